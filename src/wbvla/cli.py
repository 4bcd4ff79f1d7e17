"""The `wbvla` command: a verb and flags in, one stage run, an exit code out.

A stage is a module with a Config dataclass and a function that takes it; the table below is all the command line knows.
Nothing heavy is imported before a verb needs it: `wbvla --help` costs one small import.
Exit codes: 0 done, 2 the user can fix it (one line on stderr; WBVLA_DEBUG=1 shows the traceback), 130 Ctrl-C.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Verb:
    """Where a verb's code lives: module and names inside wbvla, and the line that --help prints."""

    module: str
    config: str
    function: str
    summary: str


VERBS = {
    "demo": Verb("demo", "Demo", "run", "the whole chain, from nothing to a trained humanoid and a report"),
    "collect sim": Verb("collect.sim", "CollectSim", "run", "record the scripted operator's demonstrations"),
    "collect clips": Verb("collect.egocentric", "CollectClips", "run", "film first-person clips without actions"),
    "lam train": Verb("lam.train", "TrainLam", "run", "train a latent action model on video without actions"),
    "lam label": Verb("lam.label", "LabelLam", "run", "write the latent codes of every frame pair beside a dataset"),
    "vla pretrain": Verb("vla.train", "Pretrain", "run_pretrain", "teach the VLA to predict latent codes"),
    "vla finetune": Verb("vla.train", "Finetune", "run_finetune", "teach it whole-body actions from demonstrations"),
    "xvla adapt": Verb("xvla.adapt", "Adapt", "run", "train one policy for many robots, or add a robot to it"),
    "xvla convert": Verb("xvla.convert", "Convert", "run", "turn joint actions into end-effector poses, and back"),
    "xvla pack": Verb(
        "xvla.pack_files", "Pack", "run", "write one robot as a small file, or put such a file in a model"
    ),
    "lmo train": Verb("lmo.train", "TrainLmo", "run", "train the legs' policy by reinforcement learning"),
    "lmo actuator": Verb("lmo.actuator_fit", "FitActuator", "run", "fit a network of the joints' drives to a log"),
    "lmo export": Verb("lmo.export", "ExportLmo", "run", "write a legs checkpoint as ONNX with its contract"),
    "lmo play": Verb("lmo.play", "PlayLmo", "run", "drive the legs by keyboard in a viewer, or film a scripted walk"),
    "lmo bench": Verb("lmo.bench.run", "BenchLmo", "run", "score any legs policy by a written protocol"),
    "lmo eval": Verb("lmo.evaluate", "EvaluateLmo", "run", "measure falls, speeds and heights of a legs policy"),
    "serve": Verb("runtime.serve", "Serve", "run", "answer observations with action chunks over a socket or HTTP"),
    "run": Verb("runtime.run", "RunRobot", "run", "drive a robot: 50 Hz loop, chunks from a server"),
    "eval": Verb("evaluation.run", "Evaluate", "run", "closed-loop success over many seeded trials"),
    "sim view": Verb("sim.view", "ViewTask", "run", "watch the operator at a task: a window, or a film"),
    "tasks": Verb("sim.listing", "ListTasks", "run", "what there is to do: subgoals and variation of each task"),
    "doctor": Verb("doctor", "Doctor", "run", "check this installation and say what is wrong"),
}

# Which extra brings a module that a base-only install lacks.
EXTRAS = {
    "sim": ("mujoco", "mink", "daqp", "qpsolvers", "gymnasium", "av", "PIL", "matplotlib", "scipy"),
    "train": (
        *("torch", "torchvision", "lerobot", "transformers", "timm", "rsl_rl", "tensordict"),
        *("tensorboard", "safetensors", "onnx", "onnxscript", "accelerate", "peft", "datasets", "pandas", "pyarrow"),
    ),
    "serve": ("fastapi", "starlette", "uvicorn"),
    "mjlab": ("mjlab", "mujoco_warp", "warp"),
    "dev": ("pytest", "ruff"),
}

CONFIG_HELP = (
    "--config FILE.yaml gives any of the flags, by the same names (flags on the command line win);\n"
    "--print-config prints the resolved configuration as YAML and stops."
)


def main(argv: list[str] | None = None) -> int:
    """Run one command line and return the exit code; user errors become one line on stderr."""
    argv = list(sys.argv[1:]) if argv is None else list(argv)
    # Read when MuJoCo and OpenMP load, so set here: render without a display; idle threads must not spin on few cores.
    os.environ.setdefault("MUJOCO_GL", "egl")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    debug = os.environ.get("WBVLA_DEBUG") == "1"
    try:
        return _dispatch(argv)
    except KeyboardInterrupt:
        print("wbvla: interrupted; the same command goes on from what was saved", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `wbvla ... | head`: nobody reads any more
        return 141
    except ModuleNotFoundError as error:
        # A module of our own that is missing is a bug and deserves its traceback.
        if debug or (error.name or "wbvla").split(".")[0] == "wbvla":
            raise
        return _fail(_missing_module(error.name))
    except ImportError as error:
        if debug or (error.name or "").split(".")[0] == "wbvla":
            raise
        package = f"{error.name.split('.')[0]} cannot be loaded: " if error.name else ""
        return _fail(f"{package}{_one_line(error)}; wbvla doctor shows what is wrong here")
    except (ValueError, OSError) as error:
        if debug:
            raise
        return _fail(_one_line(error))


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if argv[0] == "--version":
        print(_version())
        return 0
    name = _verb_name(argv)
    if name is None:
        print(_overview(argv[0]))
        return 0
    verb = VERBS[name]
    module = importlib.import_module(f"wbvla.{verb.module}")
    config_class = getattr(module, verb.config)
    rest, config_file, print_config = _take_config_flags(argv[len(name.split()) :])
    config = _parse(name, config_class, rest, config_file)
    if print_config:
        from wbvla.config import to_yaml

        print(to_yaml(config), end="")
        return 0
    result = getattr(module, verb.function)(config)
    return result if type(result) is int else 0


def _verb_name(argv: list[str]) -> str | None:
    """Return the verb that starts `argv`, or None for a group's --help. Raises ValueError with the nearest verb."""
    first, second = argv[0], argv[1] if len(argv) > 1 else ""
    for name in (f"{first} {second}", first):
        if name in VERBS:
            return name
    group = [name.split()[1] for name in VERBS if name.startswith(first + " ")]
    if group and second in ("-h", "--help"):
        return None
    from wbvla.config import nearest

    if group and (not second or second.startswith("-")):
        raise ValueError(f"'wbvla {first}' needs one of: {', '.join(group)}")
    if group:
        raise ValueError(f"unknown verb '{first} {second}'{nearest(second, group)} (known: {', '.join(group)})")
    typed = first if not second or second.startswith("-") else f"{first} {second}"
    hint = nearest(typed, VERBS) or nearest(first, [*VERBS, *{name.split()[0] for name in VERBS}])
    raise ValueError(f"unknown verb {first!r}{hint} (see wbvla --help)")


def _overview(group: str | None = None) -> str:
    """Return the help text made from the table, without importing any stage."""
    names = [name for name in VERBS if group is None or name.startswith(group + " ")]
    lines = [f"usage: wbvla {group or 'VERB'} ...", ""]
    if group is None:
        lines[1:] = ["", "WholeBodyVLA for humanoid robots: see, understand, walk and handle.", ""]
    lines += [f"  {name:<14} {VERBS[name].summary}" for name in names]
    return "\n".join([*lines, "", "wbvla VERB --help shows a verb's flags. Every verb also takes:", CONFIG_HELP])


def _version() -> str:
    from importlib.metadata import version

    return f"wbvla {version('wbvla')}"


def _take_config_flags(argv: list[str]) -> tuple[list[str], str | None, bool]:
    """Split --config FILE and --print-config from the other flags."""
    rest: list[str] = []
    config_file, print_config = None, False
    words = iter(argv)
    for word in words:
        if word in ("--print-config", "--print_config"):
            print_config = True
        elif word == "--config" or word.startswith("--config="):
            if config_file is not None:
                raise ValueError(f"--config: got a second file, expected one; {config_file} was given before")
            config_file = word.removeprefix("--config=") if "=" in word else next(words, None)
            if not config_file:
                raise ValueError("--config: got nothing, expected a YAML file")
        else:
            rest.append(word)
    return rest, config_file, print_config


def _parse(name: str, config_class: type, argv: list[str], config_file: str | None) -> Any:
    """Resolve defaults, file and flags into one configuration. Raises ValueError; SystemExit(0) after --help."""
    import tyro

    from wbvla.config import merge, nearest, read_yaml

    default = tyro.MISSING_NONPROP
    if config_file is not None:
        default = merge(config_class, read_yaml(config_file), tyro.MISSING, config_file)
    summary = VERBS[name].summary
    description = f"{summary[0].upper()}{summary[1:]}.\n\nBesides the options below: {CONFIG_HELP}"
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            config, unknown = tyro.cli(
                config_class,
                args=argv,
                prog=f"wbvla {name}",
                description=description,
                default=default,
                return_unknown_args=True,
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        message = _unboxed(complaint.getvalue()).removeprefix(f"Error parsing {config_class.__name__}: ")
        raise ValueError(f"{message} (see wbvla {name} --help)") from None
    if unknown:
        flags = ["--" + field.name.replace("_", "-") for field in fields(config_class)]
        flag = unknown[0].split("=")[0]
        what = "unknown flag" if flag.startswith("-") else "unexpected word"
        raise ValueError(f"{what} {flag!r}{nearest(flag, flags)} (see wbvla {name} --help)")
    _check_paths(config)
    return config


def _check_paths(config: Any) -> None:
    """Refuse, before hours of work, an empty text and a place for results where none can be written."""
    for field in fields(config):
        value = getattr(config, field.name)
        if (value == "" and field.default != "") or (isinstance(value, tuple) and "" in value):
            raise ValueError(f"{field.name}: got an empty text; is a shell variable unset?")
        if field.name not in ("out", "cache", "json", "video") or not isinstance(value, str) or not value:
            continue
        path, is_file = Path(value), field.name in ("json", "video")
        if is_file and path.is_dir():
            raise ValueError(f"{field.name}: {value} is a folder, expected a file to write")
        folders = path.parents if is_file else [path, *path.parents]
        in_the_way = next((p for p in folders if p.exists() and not p.is_dir()), None)
        if in_the_way is not None:
            raise ValueError(f"{field.name}: {in_the_way} is a file, expected a folder; choose another")


def _unboxed(text: str) -> str:
    """Reduce tyro's framed complaint to one line: its title and the flags' help are left out."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip("╭╮╰╯│ \t") for line in text.splitlines()]
    is_rule = [line.startswith("─") or set(line) == {"-"} for line in lines]  # dashes where there is no UTF-8
    first = next((i for i in range(1, len(lines)) if not is_rule[i]), len(lines))
    last = next((i for i in range(first, len(lines)) if is_rule[i]), len(lines))
    return " ".join(line for line in lines[first:last] if line) or "the flags could not be read"


def _missing_module(module: str) -> str:
    top = module.split(".")[0]
    for extra, modules in EXTRAS.items():
        if top in modules:
            return f"this verb needs {top}, which is not installed: pip install 'wbvla[{extra}]'"
    return f"the Python module {top!r} is not installed: pip install it, or run make setup in a clone of wbvla"


def _one_line(error: Exception) -> str:
    """Return the message on one line; OSError's own text already says errno, reason and path."""
    return " ".join(str(error).split()) or type(error).__name__


def _fail(message: str) -> int:
    print(f"wbvla: error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
