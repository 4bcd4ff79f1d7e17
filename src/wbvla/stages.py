"""What a chain is made of: stages, and stamps that say what a stage's outputs were made from.

In: a stage's command, configuration, the stages it follows, its outputs. Out: whether it is done and valid.
Laws: a stage whose stamp fits its configuration, its inputs and its outputs is valid; an interrupted one continues if
nothing changed and starts anew otherwise. wbvla.chain runs them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wbvla import __version__
from wbvla.data.cache import fingerprint

_NO_RESULT_CHANGE = {"workers"}  # settings that change the speed only


@dataclass(frozen=True)
class Stage:
    """One step of the chain.

    Attributes:
        name: short, unique; names the log, the stamp and the configuration file.
        title: what it does, for people.
        argv: the command; "{config}" in it becomes the path of the configuration file.
        config: its settings, JSON values.
        after: names of the stages whose outputs it reads.
        outputs: files or folders under the run's folder that it writes, relative.
        outside: fingerprints of files from elsewhere that it reads, by name.
        cores: how many it keeps busy. expected_s: its usual duration on two cores, for the time left.
    """

    name: str
    title: str
    argv: tuple[str, ...]
    config: dict[str, Any]
    outputs: tuple[str, ...]
    after: tuple[str, ...] = ()
    outside: dict[str, str] = field(default_factory=dict)
    cores: int = 1
    expected_s: float = 10.0


def wbvla_stage(name: str, title: str, verb: str, config: dict[str, Any], outputs: tuple[str, ...], **more) -> Stage:
    """Make a stage of a `wbvla` verb; its configuration file works with the same verb by hand."""
    argv = (sys.executable, "-m", "wbvla.cli", *verb.split(), "--config", "{config}")
    return Stage(name, title, argv, config, outputs, **more)


def fingerprint_path(path: Path) -> str:
    """Fingerprint a file or a folder's files by name, size and content; hidden ones (caches, locks) do not count."""
    if path.is_file():
        return fingerprint([(path.name, path)])
    files = (p for p in sorted(path.rglob("*")) if p.is_file())
    named = [(p.relative_to(path).as_posix(), p) for p in files]
    return fingerprint((n, p) for n, p in named if not any(part.startswith(".") for part in n.split("/")))


class Stamps:
    """What is done and valid in a run's folder."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, root / "stages"

    def config_path(self, stage: Stage) -> Path:
        """Where the stage's configuration lies (JSON, which is YAML)."""
        return self.folder / f"{stage.name}.yaml"

    def key(self, stage: Stage, ids: dict[str, str]) -> str:
        """Hash everything that decides the stage's outputs; `ids` are those of the stages before it."""
        config = {k: v for k, v in stage.config.items() if k not in _NO_RESULT_CHANGE}
        inputs = {name: ids[name] for name in stage.after}
        argv = stage.argv[1:]  # which Python runs it does not matter
        text = json.dumps([__version__, argv, config, inputs, stage.outside], sort_keys=True)
        return hashlib.sha256(text.replace(str(self.root), "DIR").encode()).hexdigest()[:32]

    def valid_id(self, stage: Stage, key: str) -> str | None:
        """Return the id of the stage's outputs when they are done, complete and unchanged; None otherwise."""
        stamp = _read_json(self.folder / f"{stage.name}.done")
        if stamp is None or stamp.get("key") != key or stamp.get("outputs") != self._outputs(stage):
            return None
        return stamp["id"]

    def seconds(self, stage: Stage) -> float:
        """How long the stage took, over all its interrupted runs."""
        return float((_read_json(self.folder / f"{stage.name}.done") or {}).get("seconds", 0.0))

    def begin(self, stage: Stage, key: str) -> None:
        """Prepare a run: remove outputs of another configuration, keep those of an interrupted run of this one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{stage.name}.done").unlink(missing_ok=True)
        begun = _read_json(self.folder / f"{stage.name}.begun") or {}
        if begun.get("key") != key:
            for output in stage.outputs:
                path = self.root / output
                for rest in (path, *path.parent.glob(f".{path.name}.*")):  # also its half-written versions
                    _remove(rest)
            begun = {"key": key, "seconds": 0.0}
            _write_json(self.folder / f"{stage.name}.begun", begun)
        for output in stage.outputs:
            (self.root / output).parent.mkdir(parents=True, exist_ok=True)
        _write_json(self.config_path(stage), stage.config)

    def add_seconds(self, stage: Stage, seconds: float) -> float:
        """Count time spent on an unfinished stage. Returns the sum."""
        path = self.folder / f"{stage.name}.begun"
        begun = _read_json(path) or {}
        begun["seconds"] = round(begun.get("seconds", 0.0) + seconds, 2)
        _write_json(path, begun)
        return begun["seconds"]

    def finish(self, stage: Stage, key: str, seconds: float) -> str:
        """Stamp a finished stage. Returns its id. Raises ValueError when an output is missing."""
        outputs = self._outputs(stage)
        if outputs is None:
            missing = next(o for o in stage.outputs if not (self.root / o).exists())
            raise ValueError(f"stage {stage.name} ended without its output {self.root / missing}; see its log")
        total = self.add_seconds(stage, seconds)
        identity = hashlib.sha256(f"{key} {outputs}".encode()).hexdigest()[:32]
        stamp = {"key": key, "outputs": outputs, "id": identity, "seconds": total}
        _write_json(self.folder / f"{stage.name}.done", stamp)
        (self.folder / f"{stage.name}.begun").unlink(missing_ok=True)
        return identity

    def _outputs(self, stage: Stage) -> dict[str, str] | None:
        if not all((self.root / output).exists() for output in stage.outputs):
            return None
        return {output: fingerprint_path(self.root / output) for output in stage.outputs}


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _read_json(path: Path) -> dict | None:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _write_json(path: Path, value: Any) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value, indent=1) + "\n")
    os.replace(temporary, path)
