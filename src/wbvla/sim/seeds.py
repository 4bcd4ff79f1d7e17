"""The seed ranges of every experiment: nothing is trained or selected on test seeds.

In: a split's name. Out: episode seeds.
"""

from __future__ import annotations

SPLITS = {
    "train": range(100_000),
    "validation": range(100_000, 101_000),
    "test": range(200_000, 201_000),
}


def seeds_for(split: str, n: int, offset: int = 0) -> list[int]:
    """Return n consecutive episode seeds of a split, starting at its offset-th. Raises ValueError past its end."""
    if split not in SPLITS:
        raise ValueError(f"split: got {split!r}, expected one of {', '.join(SPLITS)}")
    seeds = SPLITS[split]
    if n < 0 or offset < 0 or offset + n > len(seeds):
        raise ValueError(f"{split} has {len(seeds)} seeds: got n={n}, offset={offset}; ask for fewer")
    return list(seeds[offset : offset + n])
