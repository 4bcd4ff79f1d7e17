"""The demo's plan is a chain that the real verbs accept; the slow test runs all of it and watches what it opens."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from wbvla.demo import Demo, plan
from wbvla.evaluation.policies import LABELS
from wbvla.evaluation.run import episode_seeds
from wbvla.stages import Stamps

pytest.importorskip("torch")
ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("seed", [0, 1, 2, 7])
def test_what_is_repeated_in_real_time_was_done_in_simulated_time(tmp_path, no_legs_needed, seed):
    stages = {stage.name: stage.config for stage in plan(Demo(out=str(tmp_path), seed=seed), tmp_path)}
    simulated, real = (
        episode_seeds("test", stages[name]["trials"], stages[name]["seed"])
        for name in ("eval-vla", "eval-vla-realtime")
    )
    assert set(real) < set(simulated)


@pytest.fixture
def no_legs_needed(monkeypatch):
    """Plan without looking at the shipped legs."""
    monkeypatch.setattr("wbvla.demo._legs_fingerprint", lambda: "legs")


@pytest.mark.parametrize("options", [{}, {"fast": True}, {"train_legs": True}, {"workers": 5}])
def test_every_stage_comes_after_what_it_reads(tmp_path, options, no_legs_needed):
    stages = plan(Demo(out=str(tmp_path), **options), tmp_path)
    done, outputs = set(), []
    for stage in stages:
        assert set(stage.after) <= done
        assert stage.cores <= options.get("workers", 2)
        done.add(stage.name)
        outputs += stage.outputs
    assert len(set(outputs)) == len(outputs)
    assert {f"eval-{name}" for name in set(LABELS) - {"zero", "walk-only", "reach-only", "modular"}} <= done
    # A folder of ours that a stage's settings name was written by this stage or by one that it follows, however far.
    reach = {}
    for stage in stages:
        reach[stage.name] = set(stage.outputs).union(*(reach[name] for name in stage.after))
        named = [word for word in json.dumps(stage.config).split('"') if word.startswith(f"{tmp_path}/")]
        for word in named:
            inside = word.removeprefix(f"{tmp_path}/")
            assert inside == "cache" or any(inside == o or inside.startswith(f"{o}/") for o in reach[stage.name]), word


def test_the_verbs_accept_their_configuration(tmp_path, no_legs_needed):
    """What the demo writes for a stage, `wbvla VERB --config FILE` resolves to the same settings."""
    import yaml

    stamps = Stamps(tmp_path)
    for stage in plan(Demo(out=str(tmp_path), train_legs=True), tmp_path):
        if "-m" not in stage.argv:
            continue
        stamps.begin(stage, "key")
        argv = [w.replace("{config}", str(stamps.config_path(stage))) for w in stage.argv]
        done = subprocess.run([*argv, "--print-config"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert yaml.safe_load(done.stdout) == json.loads(stamps.config_path(stage).read_text())


def test_the_two_finetunings_differ_in_their_start_only(tmp_path, no_legs_needed):
    stages = {s.name: s.config for s in plan(Demo(out=str(tmp_path)), tmp_path)}
    full, without = stages["finetune"], stages["finetune-no-lam"]
    assert {k for k in full if full[k] != without[k]} == {"out", "init", "labels"}
    assert without["init"] is None
    assert full["labels"]
    assert not without["labels"]


def test_test_seeds_are_for_evaluation_only(tmp_path, no_legs_needed):
    splits = {s.name: s.config["split"] for s in plan(Demo(out=str(tmp_path)), tmp_path) if "split" in s.config}
    assert splits.pop("collect") == "train"
    assert set(splits.values()) == {"test"}
    assert len(splits) == 7


def test_own_videos_reach_both_models_and_are_watched(tmp_path, no_legs_needed):
    own = tmp_path / "own"
    own.mkdir()
    (own / "a.mp4").write_bytes(b"one")
    cfg = Demo(out=str(tmp_path / "out"), video=(str(own),))

    def lams():
        return {s.name: s for s in plan(cfg, tmp_path / "out") if s.name in ("lam-mani", "lam-loco")}

    before = lams()
    assert all(str(own) in stage.config["videos"] for stage in before.values())
    (own / "a.mp4").write_bytes(b"two")
    assert all(lams()[name].outside != stage.outside for name, stage in before.items())


def test_mistakes_are_one_line(tmp_path, wbvla):
    (tmp_path / "file").write_text("")
    for arguments, expected in (
        (("--video", "nowhere"), "nowhere"),
        (("--out", "file"), "is a file"),
        (("--workers", "0"), "workers"),
        (("--sed", "0"), "sed"),
    ):
        done = wbvla("demo", *arguments)
        assert done.returncode == 2, done
        assert len(done.stderr.strip().splitlines()) == 1
        assert expected in done.stderr


WATCH = """
import os, sys
def hook(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        path = os.path.realpath(os.fsdecode(arguments[0]))
        if path.endswith((".safetensors", ".onnx", ".pt", ".pth", ".bin", ".ckpt", ".gguf", ".npz")):
            with os.fdopen(os.open(os.environ["OPENED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT), "w") as log:
                log.write(path + "\\n")
sys.addaudithook(hook)
"""


@pytest.mark.slow
def test_the_whole_chain_opens_no_trained_weights_but_the_legs(tmp_path):
    """Every process of the demo reports the weight files it opens; caches are empty."""
    from wbvla.lmo.controller import weights_folder

    try:
        legs = weights_folder("g1").resolve()
    except ValueError:
        pytest.skip("no legs ship yet")
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(WATCH)
    path = os.pathsep.join([str(tmp_path / "hook"), str(ROOT / "src")])
    home = {"HOME": str(tmp_path / "home"), "HF_HOME": str(tmp_path / "home"), "TORCH_HOME": str(tmp_path / "home")}
    env = {**os.environ, **home, "PYTHONPATH": path, "OPENED": str(tmp_path / "opened")}
    argv = [sys.executable, "-m", "wbvla.cli", "demo", "--fast", "--out", str(tmp_path / "out")]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    opened = {Path(line) for line in (tmp_path / "opened").read_text().splitlines()}
    foreign = {p for p in opened if not p.is_relative_to((tmp_path / "out").resolve()) and p.parent != legs}
    assert foreign == set()
    assert any(p.suffix == ".safetensors" for p in opened)  # the hook did see the demo's own models
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [r["policy"] for r in results["rows"]] == ["operator", "vla", "vla-no-lam", "blind", "replay", "random"]
    assert all(r["flag_differences"] == 0 for r in results["rows"])
    assert all(results["lam"][family]["utilisation"] > 0 for family in ("mani", "loco"))
    again = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert again.returncode == 0
    assert again.stderr.count("still valid") == len(plan(Demo(out=str(tmp_path / "out"), fast=True), tmp_path / "out"))
