"""Configuration files: YAML in, values of a stage's dataclass out, and back.

In: a dataclass and a YAML mapping with the names of its flags. Out: an instance whose missing required fields are left
open for the command line, or one ValueError that names the file, the key and the fix.
Strict on purpose: a misspelt key that is silently ignored costs a training run.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union

import yaml


def nearest(word: str, choices: typing.Iterable[str]) -> str:
    """Return "; did you mean X?" for the choice closest to `word`, or an empty string."""
    match = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else ""


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: list[Any] = []
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            name = key.replace("-", "_") if isinstance(key, str) else key  # both spellings of a flag are one key
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
            seen.append(name)
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping. Raises FileNotFoundError or ValueError in one line."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no config file at {path}")
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)  # noqa: S506 (a SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ValueError(f"{path} is not YAML: line {line}: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML text: {error}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ValueError(f"{path}: got a {type(data).__name__}, expected 'name: value' lines")
    return data


def merge(cls: type, data: dict[str, Any], missing: Any, where: str) -> Any:
    """Build an instance of dataclass `cls` from `data` and the defaults, without running its checks yet.

    Keys may be written with - or _. A required field absent from `data` holds `missing`. `where` starts error messages.
    Raises ValueError on an unknown key or a value of the wrong type.
    """
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    hints = typing.get_type_hints(cls)
    given = {str(key).replace("-", "_"): value for key, value in data.items()}
    for key in given:
        if key not in fields:
            raise ValueError(f"{where}: unknown key {key!r}{nearest(key, fields)} (known: {', '.join(fields)})")
    # Not cls(...): a config may check itself in __post_init__, and the command line can still change the values.
    instance = object.__new__(cls)
    for name, field in fields.items():
        if name in given:
            value = _coerce(given[name], hints[name], missing, f"{where}: {name}")
        elif field.default is not dataclasses.MISSING:
            value = field.default
        elif field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        else:
            value = missing
        object.__setattr__(instance, name, value)
    return instance


def _coerce(value: Any, hint: Any, missing: Any, where: str) -> Any:
    """Return `value` as the annotated type; YAML's int for float, list for tuple and str for Path are accepted."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or (origin is Literal and value in args):
        return value
    if origin in (Union, types.UnionType):
        return _coerce_union(value, args, missing, where)
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return merge(hint, value, missing, where)
    if origin in (tuple, list) and isinstance(value, list):
        return _coerce_sequence(value, origin, args, missing, where)
    if origin is dict and isinstance(value, dict):
        return {k: _coerce(v, args[1], missing, f"{where}.{k}") for k, v in value.items()}
    if hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)  # YAML 1.1 reads 1e-3 as text
        except ValueError:
            pass
    if isinstance(hint, type):
        if issubclass(hint, Enum) and value in [member.value for member in hint]:
            return hint(value)
        if issubclass(hint, Path) and isinstance(value, str):
            return Path(value)
        if type(value) is hint:
            return value
    raise ValueError(f"{where}: got {value!r}, expected {_type_name(hint)}")


def _coerce_union(value: Any, options: tuple[Any, ...], missing: Any, where: str) -> Any:
    for option in options:
        if option is type(None) and value is None:
            return None
    for option in options:
        if option is not type(None):
            try:
                return _coerce(value, option, missing, where)
            except ValueError:
                continue
    raise ValueError(f"{where}: got {value!r}, expected {' or '.join(_type_name(o) for o in options)}")


def _coerce_sequence(value: list, origin: type, args: tuple[Any, ...], missing: Any, where: str) -> Any:
    same = origin is list or (len(args) == 2 and args[1] is Ellipsis)
    if not same and len(value) != len(args):
        raise ValueError(f"{where}: got {len(value)} values, expected {len(args)}")
    hints = [args[0]] * len(value) if same else args
    return origin(_coerce(v, h, missing, f"{where}[{i}]") for i, (v, h) in enumerate(zip(value, hints)))


def _type_name(hint: Any) -> str:
    if hint is type(None):
        return "null"
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(repr(a) for a in typing.get_args(hint))
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)


def to_yaml(config: Any) -> str:
    """Write a configuration as YAML that `--config` reads back to the same values."""
    return yaml.safe_dump(_plain(dataclasses.asdict(config)), sort_keys=False, allow_unicode=True)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value
