"""Contracts: everything about its inputs and outputs that a checkpoint's user must know, as JSON beside the weights.

In: plain dictionaries from training code. Out: files, and readable differences when two contracts do not match.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from wbvla.data.durable import sync


class ContractMismatch(ValueError):
    """Two contracts differ; the message lists every differing field."""


def save_contract(path: str | Path, contract: dict[str, Any]) -> None:
    """Write a contract atomically. Values must be JSON types."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(path.suffix + ".tmp")
    temporary.write_text(json.dumps(contract, indent=2, allow_nan=False) + "\n")
    sync(temporary)
    os.replace(temporary, path)


def load_contract(path: str | Path, kind: str | None = None) -> dict[str, Any]:
    """Read a contract; `kind` (for example "lmo") is checked. Raises ValueError with the fix in one line."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no contract at {path}: weights travel with their contract; copy both, or export again")
    try:
        contract = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a contract: expected JSON ({error})") from None
    if not isinstance(contract, dict):
        raise ValueError(f"{path} is not a contract: got {type(contract).__name__}, expected a JSON object")
    if kind is not None and contract.get("kind") != kind:
        raise ValueError(f"{path}: got a contract of kind {contract.get('kind')!r}, expected {kind!r}")
    return contract


def differences(expected: Any, got: Any, path: str = "") -> list[str]:
    """List the fields in which two contracts differ, one line each, numbers compared to 1e-9 relative."""
    if isinstance(expected, dict) and isinstance(got, dict):
        lines = []
        for key in sorted(expected.keys() | got.keys()):
            where = f"{path}.{key}" if path else str(key)
            if key not in expected:
                lines.append(f"{where}: unexpected, got {got[key]!r}")
            elif key not in got:
                lines.append(f"{where}: missing, expected {expected[key]!r}")
            else:
                lines += differences(expected[key], got[key], where)
        return lines
    if isinstance(expected, (list, tuple)) and isinstance(got, (list, tuple)):
        if len(expected) != len(got):
            return [f"{path}: got {len(got)} entries, expected {len(expected)}"]
        return [line for i, (e, g) in enumerate(zip(expected, got)) for line in differences(e, g, f"{path}[{i}]")]
    number = (int, float)
    if isinstance(expected, number) and isinstance(got, number) and not isinstance(expected, bool):
        same = math.isclose(expected, got, rel_tol=1e-9, abs_tol=1e-9)
    else:
        same = expected == got
    return [] if same else [f"{path}: got {got!r}, expected {expected!r}"]


def require_match(expected: dict[str, Any], got: dict[str, Any], what: str) -> None:
    """Raise ContractMismatch listing all differences, or return silently."""
    lines = differences(expected, got)
    if lines:
        raise ContractMismatch(f"{what} does not fit: " + "; ".join(lines[:12]) + (" ..." if len(lines) > 12 else ""))
