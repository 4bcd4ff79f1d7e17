"""Laws of the command line, seen from outside: light help, strict configs, one line and exit code 2 for user errors."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal

import docstring_parser
import pytest
import yaml

from wbvla.cli import VERBS, main
from wbvla.config import merge, read_yaml, to_yaml

HEAVY = ("torch", "mujoco", "lerobot", "transformers", "onnxruntime", "av")
OPEN = object()  # what merge puts where a required value is still open


def assert_user_error(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """One line on stderr that holds the words, nothing on stdout, exit code 2."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("wbvla: error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize("arguments", [["--help"], [], *([*name.split(), "--help"] for name in VERBS)], ids=" ".join)
def test_help_of_every_verb_loads_nothing_heavy(arguments):
    script = (
        "import sys\nfrom wbvla.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit as stop: assert not stop.code\n"
        f"print('LOADED', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("LOADED []"), done.stdout[-500:]
    assert "usage: wbvla" in done.stdout


def test_top_level_help_lists_every_verb_without_importing_a_parser(wbvla):
    done = wbvla("--help")
    assert all(name in done.stdout for name in VERBS)
    script = "import sys; from wbvla.cli import main; main(['--help']); sys.exit('tyro' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], stdout=subprocess.DEVNULL, check=False).returncode == 0


def test_unknown_verbs_name_the_nearest(wbvla):
    assert_user_error(wbvla("evla"), "unknown verb 'evla'", "did you mean 'eval'?")
    assert_user_error(wbvla("lam", "trian"), "unknown verb 'lam trian'", "did you mean 'train'?")
    assert_user_error(wbvla("lam"), "needs one of: train, label")


def test_unknown_flags_and_bad_values_are_one_line(wbvla):
    assert_user_error(wbvla("lmo", "train", "--stps", 3), "unknown flag '--stps'", "did you mean '--steps'?")
    assert_user_error(wbvla("lmo", "train", "--steps", "many"), "--steps", "many")
    assert_user_error(wbvla("doctor", "now"), "unexpected word 'now'")


def test_complaints_are_as_short_where_the_terminal_is_ascii(wbvla):
    unicode = wbvla("lmo", "train", "--steps", "many")
    ascii_only = wbvla("lmo", "train", "--steps", "many", env={"PYTHONIOENCODING": "ascii"})
    assert_user_error(ascii_only, "--steps", "many")
    assert ascii_only.stderr == unicode.stderr


def test_places_where_nothing_can_be_written_are_refused_at_once(wbvla, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "x.mp4").mkdir()
    assert_user_error(wbvla("collect", "sim", "--out", "file"), "out: file is a file, expected a folder")
    assert_user_error(wbvla("collect", "sim", "--out", "file/deeper/set"), "out: file is a file")
    assert_user_error(wbvla("eval", "--policy", "zero", "--json", "file/x.json"), "json: file is a file")
    assert_user_error(wbvla("eval", "--policy", "zero", "--video", "x.mp4"), "video: x.mp4 is a folder")
    assert_user_error(wbvla("collect", "sim", "--out", ""), "out: got an empty text")
    assert_user_error(wbvla("lam", "train", "--out", "x", "--videos", "a", ""), "videos: got an empty text")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "x.mp4"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stps: 3", ("unknown key 'stps'", "did you mean 'steps'?")),
        ("steps: many", ("steps: got 'many', expected int",)),
        ("steps: [", ("is not YAML", "line 1")),
        ("steps: 3\nsteps: 4", ("line 2", "'steps' is given twice")),
        ("evaluate-every: 3\nevaluate_every: 4", ("'evaluate_every' is given twice",)),
        ("- steps", ("got a list",)),
    ],
)
def test_config_files_are_strict(wbvla, tmp_path, text, words):
    file = tmp_path / "legs.yaml"
    file.write_text(text)
    assert_user_error(wbvla("lmo", "train", "--config", file), "legs.yaml", *words)


def test_missing_config_file_is_one_line(wbvla):
    assert_user_error(wbvla("lmo", "train", "--config", "nowhere.yaml"), "no config file at nowhere.yaml")
    assert_user_error(wbvla("lmo", "train", "--config"), "--config: got nothing")
    assert_user_error(wbvla("lmo", "train", "--config="), "--config: got nothing")


def test_one_config_file_at_most(wbvla, tmp_path):
    (tmp_path / "a.yaml").write_text("steps: 3")
    done = wbvla("lmo", "train", "--config", "a.yaml", "--config=a.yaml")
    assert_user_error(done, "--config: got a second file")


def test_flags_override_the_file_and_the_result_reads_back(wbvla, tmp_path):
    file = tmp_path / "legs.yaml"
    file.write_text("steps: 5\nevaluate-every: 7\n")
    first = wbvla("lmo", "train", "--config", file, "--steps", 9, "--print-config")
    resolved = yaml.safe_load(first.stdout)
    assert (resolved["steps"], resolved["evaluate_every"]) == (9, 7)
    file.write_text(first.stdout)
    assert wbvla("lmo", "train", f"--config={file}", "--print-config").stdout == first.stdout


def test_a_missing_extra_is_named(tmp_path):
    blocked = "import sys; sys.modules['torch'] = None; from wbvla.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", blocked, "lmo", "train", "--out", str(tmp_path), "--steps", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert_user_error(done, "torch", "pip install 'wbvla[train]'")


@pytest.mark.parametrize("name", ["torch", None])
def test_a_package_that_does_not_load_is_one_line(tmp_path, name):
    broken = f"""
import sys
from wbvla.cli import main
class Broken:
    def find_spec(self, module, path=None, target=None):
        if module == "torch":
            raise ImportError("libcuda.so.1: cannot open shared object file", name={name!r})
sys.meta_path.insert(0, Broken())
sys.exit(main(sys.argv[1:]))"""
    command = [sys.executable, "-c", broken, "lmo", "train", "--out", str(tmp_path), "--steps", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert_user_error(done, name or "", "libcuda.so.1", "wbvla doctor")


def test_debug_shows_the_traceback(wbvla):
    done = wbvla("lam", "trian", env={"WBVLA_DEBUG": "1"})
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_ctrl_c_is_a_message_and_130(tmp_path):
    command = [sys.executable, "-m", "wbvla.cli", "doctor"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert process.stdout.readline().startswith("ok       machine")
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 130
    assert complaint == "wbvla: interrupted; the same command goes on from what was saved\n"


def test_a_closed_pipe_is_silent():
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m wbvla.cli doctor | head -c 1"], capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr


def test_main_returns_what_doctor_found(capsys, monkeypatch):
    import wbvla.doctor

    def broken() -> str:
        raise RuntimeError("the real reason")

    monkeypatch.setattr(wbvla.doctor, "CHECKS", {"good": lambda: "fine", "bad": broken})
    assert main(["doctor"]) == 1
    printed = capsys.readouterr().out
    assert "ok       good" in printed
    assert "Traceback" in printed
    assert "RuntimeError: the real reason" in printed


@dataclass(frozen=True)
class Inner:
    width: int = 3


@dataclass(frozen=True)
class Example:
    out: str
    rate: float = 0.1
    family: Literal["mani", "loco"] = "mani"
    folders: tuple[str, ...] = ()
    pair: tuple[int, float] = (1, 2.0)
    json: str | None = None
    where: Path = Path(".")
    inner: Inner = Inner()

    def __post_init__(self):
        if not isinstance(self.out, str):
            raise ValueError("checked too early: the command line has not spoken yet")


def test_values_take_their_annotated_types():
    text = {"out": "x", "rate": "1e-3", "folders": ["a", "b"], "pair": [1, 2], "where": "y", "inner": {"width": 4}}
    got = merge(Example, text, OPEN, "f")
    assert got == Example("x", 1e-3, folders=("a", "b"), pair=(1, 2.0), where=Path("y"), inner=Inner(4))
    assert isinstance(got.pair[1], float)


def test_required_values_stay_open_and_checks_wait():
    assert merge(Example, {"rate": 1}, OPEN, "f").out is OPEN


def test_printed_configurations_read_back(tmp_path):
    config = Example("x", 1e-5, "loco", ("a",), json="j", where=Path("z"))
    (tmp_path / "c.yaml").write_text(to_yaml(config))
    assert merge(Example, read_yaml(tmp_path / "c.yaml"), OPEN, "f") == config


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("rate", True, "expected float"),
        ("family", "legs", "expected one of 'mani', 'loco'"),
        ("folders", "a", "expected tuple"),
        ("pair", [1], "got 1 values, expected 2"),
        ("json", 3, "expected str or null"),
        ("inner", {"widht": 1}, "did you mean 'width'?"),
    ],
)
def test_wrong_values_say_got_and_expected(field, value, complaint):
    with pytest.raises(ValueError, match=r"^f: ") as error:
        merge(Example, {"out": "x", field: value}, OPEN, "f")
    assert complaint in str(error.value)


def config_class_of(name: str) -> type:
    verb = VERBS[name]
    return getattr(import_module(f"wbvla.{verb.module}"), verb.config)


@pytest.mark.parametrize("name", VERBS)
def test_every_flag_of_every_verb_has_a_help_text_of_its_own(name):
    """Read as tyro reads it: of two attributes on one docstring line the second has no text, the first has both."""
    config_class = config_class_of(name)
    texts = {text.arg_name: text.description for text in docstring_parser.parse(config_class.__doc__).params}
    assert set(texts) == {field.name for field in dataclasses.fields(config_class)}
    assert all(texts.values())
    assert len(set(texts.values())) == len(texts)


@pytest.mark.parametrize("name", VERBS)
def test_every_field_of_every_stage_has_a_type_that_files_can_hold(name):
    """A stage's defaults survive the trip through YAML, so --print-config is always a valid --config."""
    config_class = config_class_of(name)
    required = {f.name for f in dataclasses.fields(config_class) if f.default is f.default_factory}
    config = merge(config_class, {}, "filled", name)
    printed = {key: value for key, value in yaml.safe_load(to_yaml(config)).items() if key not in required}
    assert vars(merge(config_class, printed, "filled", name)) == vars(config)


def test_the_command_leaves_the_callers_choices_alone(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    main(["--version"])
    assert os.environ["MUJOCO_GL"] == "osmesa"
