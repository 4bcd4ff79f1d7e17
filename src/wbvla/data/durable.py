"""Writing that survives a power cut. In: finished files that a rename will put in place. Out: they are on the disk.

A rename alone protects from a kill: a reader finds the old file or the new one. After a power cut it may find the new
name with nothing in it, unless the content was written out before.
"""

from __future__ import annotations

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Have the disk hold a file, or a folder's files and their names."""
    if path.is_dir():
        for inner in path.iterdir():
            sync(inner)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
