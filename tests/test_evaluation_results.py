"""What the demo makes of its stages' files: results.json's schema, per-source reporting, curves from logs."""

import json
from dataclasses import replace

import pytest

from wbvla.evaluation.results import print_results, write_results
from wbvla.evaluation.rollout import Episode
from wbvla.evaluation.run import Evaluate, episode_seeds, run, summarise, write_json


def episodes(successes: int, n: int) -> list[Episode]:
    return [
        Episode(i, good, not good, "" if good else "fall", {"grab": True, "push": good}, 20.0, 2.0, 0)
        for i, good in enumerate([True] * successes + [False] * (n - successes))
    ]


def lam_metrics(*sources: str) -> dict:
    numbers = {"utilisation": 0.75, "perplexity": 9.5, "dead_codes": 4, "rrg": 0.3, "loss": 0.1, "copy_loss": 0.2,
               "pairs": 50, "histogram": [10, 5, 1, 0]}  # fmt: skip
    return {**numbers, "curve": [[1, 1.0, 0.9], [2, 0.5, 0.4]], "sources": dict.fromkeys(sources, numbers)}


@pytest.fixture
def finished(tmp_path):
    """A folder as the stages leave it."""
    for policy, n in (("operator", 29), ("vla", 22), ("vla-no-lam", 15), ("blind", 1), ("replay", 0), ("random", 0)):
        cfg = Evaluate(policy=f"somewhere/{policy}")
        rows = [summarise(cfg, episodes(n, 30), 0.04, 60.0)]
        write_json(tmp_path / "evaluation" / f"{policy}.json", {"wall_s": 60.0, "rows": rows})
    repeated = summarise(Evaluate(policy="vla", trials=3, realtime=True), episodes(2, 3), 0.006, 60.0)
    write_json(tmp_path / "evaluation" / "vla-realtime.json", {"wall_s": 60.0, "rows": [repeated]})
    for family in ("mani", "loco"):
        metrics = lam_metrics(str(tmp_path / "clips" / family), str((tmp_path / "mine").absolute()))
        write_json(tmp_path / "lam" / family / "metrics.json", metrics)
    for name in ("pretrain", "full", "no-lam"):
        write_json(tmp_path / "vla" / name / "metrics.json", {"loss": 0.1, "curve": [[1, 2.0], [2, 1.0]]})
    return tmp_path


def test_results_follow_the_schema(finished):
    write_results(finished, 800.0, {"collect": 100.0}, 0, (str(finished / "mine"),))
    results = json.loads((finished / "results.json").read_text())
    assert results["seconds"] == 800.0
    assert [r["policy"] for r in results["rows"]] == ["operator", "vla", "vla-no-lam", "blind", "replay", "random"]
    for row in results["rows"]:
        assert row["task"] == "cart-pushing"
        assert row["trials"] == 30
        assert 0 <= row["low"] <= row["successes"] / row["trials"] <= row["high"] <= 1
    assert results["lam"]["mani"]["utilisation"] == 0.75
    assert "vla is better than blind" in results["separated"]
    assert results["vla"]["full"] == {"loss": 0.1}
    assert (results["realtime"]["trials"], results["realtime"]["same_outcome"]) == (3, 2)
    assert (finished / "report.html").read_text().count("<polyline") == 5  # two LAMs, three VLA trainings


def test_the_users_videos_are_reported_separately(finished, capsys):
    results = write_results(finished, 1.0, {}, 0, (str(finished / "mine"),))
    for family in ("mani", "loco"):
        assert set(results["lam"][family]["sources"]) == {"simulated clips", str(finished / "mine")}
    print_results(finished, results)
    assert "simulated clips" in capsys.readouterr().out
    assert str(finished / "mine") in (finished / "report.html").read_text()


def test_a_row_counts_what_happened():
    row = summarise(Evaluate(policy="zero"), episodes(6, 10), 0.02, 1.0)
    assert (row["successes"], row["falls"], row["timeouts"], row["flag_differences"]) == (6, 4, 0, 0)
    assert row["subgoals"] == {"grab": 10, "push": 6}
    assert (row["simulated_s"], row["wall_s"]) == (200.0, 1.0)
    assert len(row["episodes"]) == 10


def test_rows_of_several_tasks_are_what_each_task_gives_alone(tmp_path):
    cfg = Evaluate(
        policy="zero", task="box-loading,cart-pushing", trials=1, split="validation", json=str(tmp_path / "rows.json")
    )
    report = run(cfg)
    assert json.loads((tmp_path / "rows.json").read_text()) == report
    assert [row["task"] for row in report["rows"]] == ["box-loading", "cart-pushing"]
    for row in report["rows"]:
        assert (row["successes"], row["trials"], len(row["episodes"])) == (0, 1, 1)
        assert row["simulated_s"] == pytest.approx(sum(e["simulated_s"] for e in row["episodes"]))
        assert 0 < row["wall_s"] <= report["wall_s"]
    alone = run(replace(cfg, task="cart-pushing", workers=1, json=None))["rows"][0]
    timeless = [{**e, "wall_s": 0} for e in alone["episodes"]]
    assert timeless == [{**e, "wall_s": 0} for e in report["rows"][-1]["episodes"]]


@pytest.mark.parametrize(
    "wrong, complaint",
    [
        ({"latency_s": 0.1}, "latency_s: operator acts at once"),
        ({"checkpoint": "runs/vla"}, "checkpoint: operator takes none, random, blind, modular do"),
        ({"video": "film.gif"}, "video: got 'film.gif', expected a name that ends in .mp4"),
    ],
)
def test_what_the_operator_cannot_heed_is_refused(wrong, complaint):
    with pytest.raises(ValueError, match=complaint):
        Evaluate("operator", **wrong)


def test_axes_that_a_task_lacks_are_refused_before_any_trial():
    with pytest.raises(ValueError, match="vary: got box_kg, expected some of bag-packing's axes"):
        run(Evaluate(policy="zero", task="all", variation="unseen", vary=("box_kg",)))


def test_blocks_of_test_seeds_share_nothing():
    blocks = [set(episode_seeds("test", 34, seed)) for seed in range(3)]
    assert len(set.union(*blocks)) == 3 * 34
    assert episode_seeds("test", 34, 10_000)  # wraps around
    train = set(episode_seeds("train", 1000, 0))
    assert not train & set.union(*blocks)


@pytest.mark.parametrize(
    "wrong", [{"trials": 0}, {"realtime": True, "latency_s": 0.1}, {"workers": 0}, {"seed": -1}, {"latency_s": -0.1}]
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValueError, match="expected|takes no"):
        Evaluate(policy="zero", **wrong)


def test_too_many_trials_and_unknown_splits_are_refused():
    with pytest.raises(ValueError, match="at most 1000"):
        episode_seeds("test", 1001, 0)
    with pytest.raises(ValueError, match="split"):
        episode_seeds("exam", 3, 0)


@pytest.mark.parametrize(("contract", "reason"), [(None, "needs a folder of"), ("{}", "got a contract of kind None")])
def test_only_a_checkpoint_can_be_repeated_in_real_time(tmp_path, contract, reason):
    if contract is not None:
        (tmp_path / "contract.json").write_text(contract)
    with pytest.raises(ValueError, match=reason):
        run(Evaluate(policy=str(tmp_path), realtime=True))
