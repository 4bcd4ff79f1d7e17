"""Small invented worlds for X-VLA's tests: a tiny Florence-2, two robots, batches of random numbers."""

from __future__ import annotations

import copy

import torch

from wbvla.vla.config import VlaConfig
from wbvla.xvla.config import Domain, XvlaConfig

FLORENCE = {
    "vision_config": {
        "embed_dim": [8, 16, 24, 32],
        "depths": [1, 1, 1, 1],
        "num_heads": [2, 2, 2, 2],
        "num_groups": [2, 2, 2, 2],
        "projection_dim": 32,
        "window_size": 4,
    },
    "text_config": {
        "model_type": "bart",
        "vocab_size": 64,
        "d_model": 32,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "max_position_embeddings": 64,
    },
}
CHUNK, SIZE, TEXT, PAD = 6, 32, 12, 1
HUMANOID = Domain(30, "whole_body", 20, 68, ("head",), masked_actions=(14, 15))
ARMS = Domain(31, "joint", 14, 14, ("front", "wrist"))
FRANKA = Domain(32, "auto", 7, 8, ("front", "left", "right"))
TRUNK = {"trunk": VlaConfig(image_size=SIZE, width=32, heads=2).to_dict(), "florence": {}, "tokenizer": "words"}
ROBOTS = {"g1": HUMANOID, "arms": ARMS, "franka": FRANKA}


def small(domains: dict[str, Domain] | None = None, **changes) -> XvlaConfig:
    """A configuration of thirty thousand numbers."""
    sizes = dict(image_size=SIZE, text_tokens=TEXT, chunk_steps=CHUNK, hidden_size=32, depth=2, heads=4)
    sizes |= dict(prompt_tokens=4, time_dim=8, max_tokens=64, florence=copy.deepcopy(FLORENCE))
    return XvlaConfig(domains=ROBOTS if domains is None else domains, **{**sizes, **changes})


def with_words(domains: dict[str, Domain], **changes) -> XvlaConfig:
    """The same with hashed words, which need no tokenizer's files."""
    config = small(domains, **{"tokenizer": "words", "text_tokens": 16, **changes})
    config.florence["text_config"] |= {"vocab_size": 1024, "pad_token_id": 0}
    return config


def batch_of(name: str, n: int = 3, seed: int = 0, domain: Domain | None = None) -> dict:
    """A random batch of one robot; its chunks end at different steps."""
    domain = domain or ROBOTS[name]
    g = torch.Generator().manual_seed(seed)
    tokens = torch.randint(2, 60, (n, 8), generator=g)
    tokens[0, 5:] = PAD
    actions = torch.rand((n, CHUNK, domain.action_dim), generator=g)
    if domain.action == "whole_body":
        actions[..., 16:19] = torch.randint(-1, 2, (n, CHUNK, 3), generator=g).float()
    lengths = torch.randint(1, CHUNK + 1, (n, 1), generator=g)
    return {
        "images": torch.randint(0, 256, (n, len(domain.cameras), SIZE, SIZE, 3), generator=g, dtype=torch.uint8),
        "tokens": tokens,
        "state": torch.randn((n, domain.state_dim), generator=g),
        "domains": [name] * n,
        "actions": actions,
        "padded": torch.arange(CHUNK) >= lengths,
    }
