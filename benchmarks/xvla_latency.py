"""Hold X-VLA against LeRobot's at equal size, weights, views and steps: largest difference, then seconds per chunk.

In: nothing; weights are random. Out: JSON. LeRobot saves a checkpoint, ours opens it, both denoise the same noise; ours
is timed as released (bidirectional) and with the prefix cache, each the median of its runs, taken in turns.

    python benchmarks/xvla_latency.py --size small --json outputs/xvla_small.json
    python benchmarks/xvla_latency.py --size released --views 2 --device cuda --json outputs/xvla_released.json
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path

import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.xvla.configuration_xvla import XVLAConfig
from lerobot.policies.xvla.modeling_xvla import XVLAPolicy

from wbvla.recipes.xvla import FLORENCE_LARGE
from wbvla.xvla.checkpoint import load_model
from wbvla.xvla.florence import IMAGENET_MEAN, IMAGENET_STD
from wbvla.xvla.model import Xvla

FLORENCE_SMALL = {
    "vision_config": {
        **FLORENCE_LARGE["vision_config"],
        "embed_dim": [32, 64, 128, 256],
        "depths": [1, 1, 2, 1],
        "num_heads": [2, 4, 8, 8],
        "num_groups": [2, 4, 8, 8],
        "projection_dim": 256,
    },
    "text_config": {
        **FLORENCE_LARGE["text_config"],
        "vocab_size": 1024,
        "d_model": 256,
        "encoder_layers": 2,
        "decoder_layers": 1,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 1024,
    },
}
SIZES = {"small": (FLORENCE_SMALL, 512, 6, 8), "released": (FLORENCE_LARGE, 1024, 24, 16)}
SIZE, TEXT, CHUNK, DOMAINS = 224, 64, 32, 30


def build(size: str, views: int, folder: Path, mode: str = "ee6d", action_dim: int = 20) -> XVLAPolicy:
    """Return LeRobot's policy with random weights, saved in `folder`."""
    florence, hidden, depth, heads = SIZES[size]
    images = {f"observation.images.image{i}": PolicyFeature(FeatureType.VISUAL, (3, SIZE, SIZE)) for i in range(views)}
    config = XVLAConfig(
        input_features={**images, "observation.state": PolicyFeature(FeatureType.STATE, (20,))},
        output_features={"action": PolicyFeature(FeatureType.ACTION, (action_dim,))},
        florence_config=florence, hidden_size=hidden, depth=depth, num_heads=heads, num_domains=DOMAINS,
        max_state_dim=20, tokenizer_max_length=TEXT, chunk_size=CHUNK, device="cpu", action_mode=mode,
    )  # fmt: skip
    policy = XVLAPolicy(config).eval()
    with torch.no_grad():  # theirs starts with zero biases and identical norms, which would hide mistakes
        for parameter in policy.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    policy.save_pretrained(folder)
    return policy


def inputs(views: int, device: str) -> tuple[dict, dict]:
    """Return one random observation as ours and as theirs."""
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (1, views, SIZE, SIZE, 3), generator=g, dtype=torch.uint8)
    tokens, state = torch.randint(2, 1000, (1, TEXT), generator=g), torch.randn((1, 20), generator=g)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    ours = {"images": images, "tokens": tokens, "state": state, "domains": torch.tensor([3])}
    theirs = {
        "input_ids": tokens,
        "image_input": (images.permute(0, 1, 4, 2, 3).float() / 255.0 - mean) / std,
        "image_mask": torch.ones(1, views, dtype=torch.bool),
        "domain_id": torch.tensor([3]),
        "proprio": state,
    }
    return ({k: v.to(device) for k, v in batch.items()} for batch in (ours, theirs))


def their_sample(policy: XVLAPolicy, batch: dict, steps: int, noise: torch.Tensor) -> torch.Tensor:
    """LeRobot takes no noise: hand it out where it draws."""
    draw, torch.randn = torch.randn, lambda *shape, **kwargs: noise.clone()
    try:
        return policy.model.generate_actions(**batch, steps=steps)
    finally:
        torch.randn = draw


def seconds(run, device: str) -> float:
    """Return how long one call takes."""
    if device == "cuda":
        torch.cuda.synchronize()
    start_s = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start_s


def with_attention(model: Xvla, attention: str) -> Xvla:
    """Switch a model: the weights are the same."""
    model.config = dataclasses.replace(model.config, attention=attention)
    return model


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--views", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        policy = build(options.size, options.views, Path(folder)).to(options.device)
        model = load_model(folder).to(options.device)
    ours, theirs = inputs(options.views, options.device)
    noise = torch.randn(1, CHUNK, 20).to(options.device)
    wanted = their_sample(policy, theirs, options.steps, noise)
    difference = (model.sample(ours, options.steps, noise) - wanted).abs().max().item()
    runs = {
        "lerobot": lambda: their_sample(policy, theirs, options.steps, noise),
        "bidirectional": lambda: with_attention(model, "bidirectional").sample(ours, options.steps, noise),
        "prefix": lambda: with_attention(model, "prefix").sample(ours, options.steps, noise),
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.runs):
        for name, run in runs.items():
            times[name].append(seconds(run, options.device))
    medians = {name: statistics.median(values) for name, values in times.items()}
    result = {
        **{key: getattr(options, key) for key in ("size", "views", "steps", "runs", "threads", "device")},
        "parameters": sum(p.numel() for p in model.parameters()),
        "largest_difference": difference,
        "largest_answer": wanted.abs().max().item(),
        "seconds_per_chunk": {name: round(value, 4) for name, value in medians.items()},
        "times_faster": {name: round(medians["lerobot"] / value, 2) for name, value in medians.items()},
        "torch": torch.__version__,
        "machine": torch.cuda.get_device_name() if options.device == "cuda" else platform.machine(),
    }
    print(json.dumps(result, indent=2))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
