"""Laws of the chain: skip what is valid, redo what changed and all that follows, survive interruption."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wbvla.chain import MARK, Runner, end_leftovers
from wbvla.monitor import Monitor
from wbvla.stages import Stage

# A stage that writes its configuration's "text" and its inputs' contents, and counts how often it ran.
COPY = """
import json, pathlib, sys
config = json.loads(pathlib.Path(sys.argv[1]).read_text())
out = pathlib.Path(config["out"]); out.mkdir(exist_ok=True)
text = config["text"] + "".join((pathlib.Path(i) / "text").read_text() for i in config["inputs"])
(out / "text").write_text(text)
with open(str(out) + ".runs", "a") as runs: runs.write("x")
"""
FAIL = "import sys; print('getting ready'); sys.exit('wbvla: error: the disk is full')"
pytestmark = pytest.mark.alone

# Works in steps that it saves, continues from them, and ends cleanly on SIGINT; the last steps need MAY_FINISH.
PATIENT = """
import json, os, pathlib, signal, sys, time
out = pathlib.Path(json.loads(pathlib.Path(sys.argv[1]).read_text())["out"])
steps = int(out.read_text()) if out.exists() else 0
signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
while steps < 12:
    time.sleep(0.1)
    if steps == 6 and "MAY_FINISH" not in os.environ: continue
    steps += 1
    new = out.with_suffix(".new"); new.write_text(str(steps)); new.replace(out)
    print("step", steps, flush=True)
"""


def copy_stage(root: Path, name: str, text: str, after: tuple[str, ...] = (), cores: int = 1, **more) -> Stage:
    config = {"out": str(root / name), "text": text, "inputs": [str(root / i) for i in after], **more}
    return Stage(name, name, (sys.executable, "-c", COPY, "{config}"), config, (name,), after=after, cores=cores)


def go(root: Path, *stages: Stage, cores: int = 2) -> None:
    runner = Runner(root, list(stages), cores, None)
    runner.monitor = Monitor("test", list(stages), cores, runner.log_path)
    runner.run()


def runs(root: Path, *names: str) -> list[int]:
    return [len((root / f"{n}.runs").read_text()) for n in names]


def chain(root: Path, a: str = "a", b: str = "b", c: str = "c", **more) -> list[Stage]:
    return [
        copy_stage(root, "first", a, **more),
        copy_stage(root, "second", b, after=("first",)),
        copy_stage(root, "third", c, after=("second",)),
    ]


def test_stages_run_in_order_and_are_skipped_when_valid(tmp_path):
    go(tmp_path, *chain(tmp_path))
    assert (tmp_path / "third" / "text").read_text() == "cba"
    go(tmp_path, *chain(tmp_path))
    assert runs(tmp_path, "first", "second", "third") == [1, 1, 1]


def test_a_changed_stage_is_redone_with_all_that_follows(tmp_path):
    go(tmp_path, *chain(tmp_path))
    go(tmp_path, *chain(tmp_path, b="B"))
    assert (tmp_path / "third" / "text").read_text() == "cBa"
    assert runs(tmp_path, "first", "second", "third") == [1, 2, 2]


def test_a_stage_redone_with_the_same_outputs_does_not_disturb_others(tmp_path):
    go(tmp_path, *chain(tmp_path))
    (tmp_path / "first" / "text").unlink()
    go(tmp_path, *chain(tmp_path))
    assert runs(tmp_path, "first", "second", "third") == [2, 1, 1]


def test_a_damaged_output_is_redone(tmp_path):
    go(tmp_path, *chain(tmp_path))
    (tmp_path / "second" / "text").write_text("damage")
    go(tmp_path, *chain(tmp_path))
    assert (tmp_path / "third" / "text").read_text() == "cba"
    assert runs(tmp_path, "first", "second", "third") == [1, 2, 1]


def test_hidden_caches_and_workers_do_not_count(tmp_path):
    go(tmp_path, *chain(tmp_path, workers=2))
    (tmp_path / "first" / ".cache").mkdir()
    (tmp_path / "first" / ".cache" / "frames").write_text("big")
    go(tmp_path, *chain(tmp_path, workers=7))
    assert runs(tmp_path, "first", "second", "third") == [1, 1, 1]


def test_what_lies_outside_counts(tmp_path):
    for videos, expected in (("v1", 1), ("v1", 1), ("v2", 2)):
        stage = copy_stage(tmp_path, "first", "a")
        go(tmp_path, Stage(**{**stage.__dict__, "outside": {"videos": videos}}))
        assert runs(tmp_path, "first") == [expected]


def test_a_moved_folder_stays_valid(tmp_path):
    go(tmp_path / "here", *chain(tmp_path / "here"))
    (tmp_path / "here").rename(tmp_path / "there")
    go(tmp_path / "there", *chain(tmp_path / "there"))
    assert runs(tmp_path / "there", "first", "second", "third") == [1, 1, 1]


def test_independent_stages_run_side_by_side_within_the_cores(tmp_path):
    script = "import json,pathlib,sys,time; p=pathlib.Path(json.loads(open(sys.argv[1]).read())['out']); " + (
        "a=time.time(); time.sleep(0.6); p.write_text(json.dumps([a,time.time()]))"
    )

    def overlaps(cores: int) -> bool:
        root = tmp_path / str(cores)
        stages = [
            Stage(n, n, (sys.executable, "-c", script, "{config}"), {"out": str(root / n)}, (n,)) for n in ("a", "b")
        ]
        go(root, *stages, cores=cores)
        (a0, a1), (b0, b1) = (json.loads((root / n).read_text()) for n in ("a", "b"))
        return max(a0, b0) < min(a1, b1)

    assert overlaps(2)
    assert not overlaps(1)


def test_a_failure_shows_its_last_lines_and_names_the_log(tmp_path, capsys):
    bad = Stage("bad", "bad", (sys.executable, "-c", FAIL), {}, ("bad",))
    with pytest.raises(ValueError, match=r"stage bad failed .exit code 1.: the disk is full; .*bad\.log"):
        go(tmp_path, bad)
    assert "getting ready" in capsys.readouterr().err
    with pytest.raises(ValueError, match="the disk is full"):
        go(tmp_path, bad)
    assert capsys.readouterr().err.count("getting ready") == 1  # what an earlier run said does not count


def test_a_silent_death_does_not_quote_an_earlier_run(tmp_path):
    die = "import os, pathlib, sys; p = pathlib.Path(sys.argv[1] + '.seen'); "
    die += "p.exists() and os.kill(os.getpid(), 9); p.touch(); sys.exit('all went well')"
    stage = Stage("bad", "bad", (sys.executable, "-c", die, "{config}"), {}, ("bad",))
    with pytest.raises(ValueError, match="all went well"):
        go(tmp_path, stage)
    with pytest.raises(ValueError, match="signal 9, out of memory.*: it printed nothing"):
        go(tmp_path, stage)


def test_a_failed_stage_leaves_no_process_behind(tmp_path):
    sleeper = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
    code = f"import subprocess, sys; {sleeper}; sys.exit(3)"
    with pytest.raises(ValueError, match="exit code 3"):
        go(tmp_path, Stage("bad", "bad", (sys.executable, "-c", code), {}, ("bad",)))
    time.sleep(0.2)
    assert end_leftovers(tmp_path) == []


def test_a_missing_output_is_a_failure(tmp_path):
    empty = Stage("empty", "empty", (sys.executable, "-c", "pass"), {}, ("nothing",))
    with pytest.raises(ValueError, match="without its output"):
        go(tmp_path, empty)


DRIVER = """
import sys; sys.path.insert(0, {tests!r})
from test_stages import PATIENT, Stage, go
from pathlib import Path
root = Path(sys.argv[1])
argv = (sys.executable, "-c", PATIENT, "{{config}}")
go(root, Stage("slow", "slow", argv, {{"out": str(root / "steps")}}, ("steps",)))
"""


def start_patient(root: Path, **env: str) -> subprocess.Popen:
    argv = [sys.executable, "-c", DRIVER.format(tests=str(Path(__file__).parent)), str(root)]
    process = subprocess.Popen(argv, stderr=subprocess.DEVNULL, env={**os.environ, **env})
    deadline = time.monotonic() + 20
    while not (root / "steps").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_an_interrupted_stage_continues(tmp_path, number):
    process = start_patient(tmp_path)
    time.sleep(0.4)
    process.send_signal(number)
    process.wait(timeout=20)
    assert process.returncode != 0
    again = start_patient(tmp_path, MAY_FINISH="1")
    assert again.wait(timeout=20) == 0
    log = (tmp_path / "logs" / "slow.log").read_text().split("$ ")
    first_step = int(log[-1].split("step ")[1].split()[0])
    assert first_step > 1  # it went on, it did not begin again
    assert (tmp_path / "steps").read_text() == "12"


def test_a_run_whose_reader_has_gone_ends_its_stages(tmp_path):
    """`wbvla demo 2>&1 | head -1`: the first line that nobody reads ends the run, and no stage runs on alone."""
    talkative = "import wbvla.monitor\nwbvla.monitor.QUIET_S = 0.3\n"
    driver = talkative + DRIVER.format(tests=str(Path(__file__).parent))
    reading, writing = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", driver, str(tmp_path)], stderr=writing)
    os.close(writing)
    os.read(reading, 1)
    os.close(reading)
    assert process.wait(timeout=20) != 0
    assert end_leftovers(tmp_path) == []


# Two stages that do not care about Ctrl-C.
STUBBORN = """
import sys; sys.path.insert(0, {tests!r})
from test_stages import Stage, go
from pathlib import Path
root = Path(sys.argv[1])
deaf = "import pathlib, signal, sys, time; signal.signal(2, lambda *_: None); out = pathlib.Path(sys.argv[1]); "
deaf += "out.with_suffix('.deaf').touch(); [time.sleep(0.1) for _ in range(600)]"
go(root, *(Stage(name, name, (sys.executable, "-c", deaf, "{{config}}"), {{}}, (name,)) for name in ("one", "two")))
"""


def test_a_second_ctrl_c_ends_all_stages_at_once(tmp_path):
    argv = [sys.executable, "-c", STUBBORN.format(tests=str(Path(__file__).parent)), str(tmp_path)]
    process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while len(list((tmp_path / "stages").glob("*.deaf"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None  # the stages have time to save
    process.send_signal(signal.SIGINT)
    process.wait(timeout=5)
    assert end_leftovers(tmp_path) == []


def test_an_interrupted_stage_starts_anew_when_its_settings_changed(tmp_path, monkeypatch):
    monkeypatch.setenv("MAY_FINISH", "1")
    process = start_patient(tmp_path)
    time.sleep(0.4)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=20)
    config = {"out": str(tmp_path / "steps"), "other": 1}
    go(tmp_path, Stage("slow", "slow", (sys.executable, "-c", PATIENT, "{config}"), config, ("steps",)))
    assert "step 1\n" in (tmp_path / "logs" / "slow.log").read_text().split("$ ")[-1]


def test_two_runs_in_one_folder_are_refused(tmp_path):
    process = start_patient(tmp_path)
    with pytest.raises(ValueError, match="another run"):
        go(tmp_path, copy_stage(tmp_path, "first", "a"))
    process.send_signal(signal.SIGINT)
    process.wait(timeout=20)


def test_leftovers_of_a_killed_run_are_ended_and_nothing_else(tmp_path):
    def sleeper(mark: str) -> subprocess.Popen:
        process = subprocess.Popen([sys.executable, "-c", "print(1,flush=True); import time; time.sleep(60)"],
                                   env={**os.environ, MARK: mark}, stdout=subprocess.PIPE)  # fmt: skip
        process.stdout.readline()
        return process

    ours, other = sleeper(str(tmp_path.resolve())), sleeper(str(tmp_path.resolve()) + "2")
    assert end_leftovers(tmp_path) == [ours.pid]
    assert ours.wait(timeout=5) == -signal.SIGKILL
    assert other.poll() is None
    other.kill()
    other.wait()
