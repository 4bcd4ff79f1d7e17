"""Hold X-VLA against LeRobot's in every built-in action mode: there, and back. Weights are random.

LeRobot saves a checkpoint, ours opens it and both denoise the same noise; ours saves it in LeRobot's format, LeRobot
opens that, its tensors must be the first ones and it denoises once more. Writes the largest differences.

    python benchmarks/xvla_modes.py --size released --threads 2 --json outputs/xvla_modes.json
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
from pathlib import Path

import torch
from lerobot.policies.xvla.modeling_xvla import XVLAPolicy
from xvla_latency import CHUNK, SIZES, build, inputs, their_sample

from wbvla.xvla.checkpoint import load_model
from wbvla.xvla.released import ACTION_DIMS, write_released


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    rows = {}
    for mode, action_dim in {**ACTION_DIMS, "auto": 9}.items():
        rows[mode] = there_and_back(options.size, mode, action_dim, options.steps)
        print(mode, rows[mode], flush=True)
        gc.collect()
    result = {"size": options.size, "steps": options.steps, "torch": torch.__version__, "modes": rows}
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=2) + "\n")
        print(f"wrote {options.json}")


@torch.inference_mode()
def there_and_back(size: str, mode: str, action_dim: int, steps: int) -> dict[str, float]:
    """Return the largest answer of LeRobot's, and how far ours and the returned one are from it at most."""
    with tempfile.TemporaryDirectory() as folder:
        theirs, back = Path(folder) / "theirs", Path(folder) / "back"
        policy = build(size, 2, theirs, mode, action_dim)
        our_batch, their_batch = inputs(2, "cpu")
        noise = torch.randn(1, CHUNK, policy.model.dim_action)
        wanted = their_sample(policy, their_batch, steps, noise)
        model = load_model(theirs)
        got = model.sample(our_batch, steps, noise)
        write_released(back, model)
        del model
        again = XVLAPolicy.from_pretrained(back)
        kept = again.state_dict().keys() == policy.state_dict().keys()
        kept &= all(torch.equal(tensor, policy.state_dict()[name]) for name, tensor in again.state_dict().items())
        returned = their_sample(again, their_batch, steps, noise)
    return {
        "parameters": sum(p.numel() for p in policy.parameters()),
        "largest_answer": wanted.abs().max().item(),
        "difference": (got - wanted).abs().max().item(),
        "difference_returned": (returned - wanted).abs().max().item(),
        "tensors_equal": kept,
    }


if __name__ == "__main__":
    main()
