"""Cache folders on disk. In: a fingerprint of source files and a build function. Out: a folder that fits them.

A cache is built in a temporary sibling and renamed when complete, so that a killed build leaves nothing that is
mistaken for a cache, and it is rebuilt when the fingerprint of its sources changes. Of several processes that want one
cache at the same time, one builds it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

_PROBE = 1 << 20  # bytes read at the start, middle and end of a large file
META = "cache.json"


def fingerprint(files: Iterable[tuple[str, Path]], salt: str = "") -> str:
    """Hash names, sizes and contents of files; files above 8 MB are probed at three places.

    Independent of where the files lie and of their times: a copied folder keeps its fingerprint.

    Args:
        files: (name, path) pairs in a fixed order.
        salt: whatever else the cache depends on, for example its resolution.
    Returns:
        32 hexadecimal digits.
    """
    digest = hashlib.sha256(salt.encode())
    for name, path in files:
        size = path.stat().st_size
        digest.update(f"\0{name}\0{size}\0".encode())
        with path.open("rb") as stream:
            if size <= 8 * _PROBE:
                digest.update(stream.read())
                continue
            for offset in (0, size // 2, size - _PROBE):
                stream.seek(offset)
                digest.update(stream.read(_PROBE))
    return digest.hexdigest()[:32]


def cached(folder: Path, key: str, build: Callable[[Path], dict]) -> dict:
    """Return the meta data of the cache in `folder`, building it when it is absent or has another key.

    Args:
        folder: where the cache lives.
        key: the fingerprint that it must have.
        build: writes the files of the cache into the folder it is given and returns JSON meta data.
    """
    meta = _read_meta(folder)
    if meta is not None and meta.get("fingerprint") == key:
        return meta
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # whoever comes second waits for the first one's cache; a kill releases it
        meta = _read_meta(folder)
        if meta is not None and meta.get("fingerprint") == key:
            return meta
        temporary = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)  # of a build that was killed
        temporary.mkdir()
        try:
            meta = {**build(temporary), "fingerprint": key}
            (temporary / META).write_text(json.dumps(meta))
            shutil.rmtree(folder, ignore_errors=True)
            os.rename(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return meta


def _read_meta(folder: Path) -> dict | None:
    try:
        meta = json.loads((folder / META).read_text())
    except (OSError, ValueError):
        return None
    return meta if isinstance(meta, dict) else None
