"""Laws of collecting: the dataset follows from the configuration, continues where it stopped, holds successes only."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wbvla.collect import sim
from wbvla.collect.sim import SLIP_WAYS, Attempt, CollectSim, Slips, episode_seed, run
from wbvla.collect.workers import Workers
from wbvla.data.frames import FrameCache
from wbvla.types import LocoCommand

FACTS = {"by": "test"}


def attempt(cfg: CollectSim, seed: int) -> Attempt:
    """A stand-in for the simulator: seeds divisible by 3 fail, some take longer than their successors."""
    time.sleep(0.2 * (seed % 2))
    if seed % 3 == 0:
        return Attempt(success=False, failure="fall")
    n = 4 + seed % 5
    numbers = np.arange(n) + 100.0 * (seed % 1000)
    images = np.random.default_rng(seed).integers(0, 255, (n, cfg.image_size, cfg.image_size, 3), np.uint8)
    states, actions = np.tile(numbers[:, None], 68), np.tile(numbers[:, None], 20)
    return Attempt(True, "", images, states, actions, list(numbers * 0), list(np.arange(n) / 20))


def never(cfg: CollectSim, seed: int) -> Attempt:
    return Attempt(success=False, failure="timeout")


def config(out: Path, **changes) -> CollectSim:
    return replace(CollectSim(str(out), episodes=5, image_size=32, split="validation", seed=3), **changes)


def collect(cfg: CollectSim, attempt, facts: dict) -> dict:
    with Workers(cfg.workers) as workers:
        return sim.collect(cfg, attempt, facts, workers)


def arrays(root: Path) -> tuple:
    cache = FrameCache.open(root, 32)
    return cache.fingerprint, cache.states, np.array(cache.images)


def test_the_dataset_does_not_depend_on_workers_or_interruptions(tmp_path: Path) -> None:
    whole = config(tmp_path / "whole", workers=1)
    counts = collect(whole, attempt, FACTS)
    seeds = [episode_seed(whole, i) for i in range(20)]
    expected = [s for s in seeds if s % 3][:5]
    saved = json.loads((tmp_path / "whole" / "meta" / "wbvla.json").read_text())["episodes"]
    assert [e["seed"] for e in saved] == expected
    assert counts["failures"] == {"fall": sum(s % 3 == 0 for s in seeds[: seeds.index(expected[-1]) + 1])}

    parts = config(tmp_path / "parts", workers=2)
    collect(replace(parts, episodes=2), attempt, FACTS)
    counts = collect(parts, attempt, FACTS)
    assert (counts["episodes"], counts["recorded_before"]) == (5, 2)
    for one, other in zip(arrays(tmp_path / "whole"), arrays(tmp_path / "parts")):
        np.testing.assert_array_equal(one, other)

    assert collect(parts, never, FACTS)["seconds"] < 2, "a complete dataset is left alone"
    with pytest.raises(ValueError, match=r"seed: got 3, expected 4"):
        collect(replace(parts, seed=4), attempt, FACTS)


def test_several_tasks_are_recorded_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim, "simulate", attempt)
    cfg = config(tmp_path / "out", task="box-loading, bag-packing", episodes=2, json=str(tmp_path / "counts.json"))
    report = run(cfg)
    assert [row["task"] for row in report["rows"]] == ["box-loading", "bag-packing"]
    assert json.loads((tmp_path / "counts.json").read_text()) == report
    for row in report["rows"]:
        assert row["episodes"] == 2
        saved = json.loads((tmp_path / "out" / row["task"] / "meta" / "wbvla.json").read_text())
        assert saved["simulated"] == row["task"] and len(saved["episodes"]) == 2
    for wrong in ("box-loading,", "box-loading,box-loading", "cart"):
        with pytest.raises(ValueError, match="expected all, or some of bag-packing"):
            config(tmp_path, task=wrong)


def test_an_operator_that_always_fails_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"failed 11 times \(failed: 11 timeout\); look at them"):
        collect(config(tmp_path / "out"), never, FACTS)


def test_seeds_stay_in_their_split_and_blocks_keep_apart() -> None:
    from wbvla.sim.seeds import SPLITS

    blocks = [{episode_seed(config(Path("x"), split="train", seed=s), i) for i in range(1000)} for s in range(20)]
    assert len(set().union(*blocks)) == 20_000
    for split, seeds in SPLITS.items():
        assert {episode_seed(config(Path("x"), split=split, seed=7), i) for i in range(len(seeds))} == set(seeds)
    with pytest.raises(ValueError, match="split: got 'exam'"):
        episode_seed(config(Path("x"), split="exam"), 0)


class Walked:
    """Stands in for the legs: knows where it was sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, int, int]] = []

    def reset(self) -> None:
        """Nothing to forget."""

    def step(self, loco: LocoCommand, body: object) -> np.ndarray:
        self.sent.append((loco.s_x, loco.s_y, loco.s_psi))
        return np.zeros(15)


def test_slips_are_moments_aside_or_turning_with_obedience_between() -> None:
    def history(rate_hz: float) -> np.ndarray:
        legs = Walked()
        slips = Slips(legs)
        slips.reset()
        slips.begin(np.random.default_rng(0), rate_hz)
        for _ in range(50 * 600):
            slips.step(LocoCommand(1, 0, 0), None)
        slips.reset()
        slips.step(LocoCommand(1, 0, 0), None)
        assert legs.sent[-1] == (1, 0, 0)  # a new episode begins without
        return np.array(legs.sent)

    assert not history(0.0)[:, 1:].any()
    sent = history(0.3)
    astray = sent[:, 1:].any(1)
    assert (sent[:, 0] == 1).all() and set(map(tuple, sent[astray, 1:])) == set(SLIP_WAYS)
    assert 0.1 < astray.mean() < 0.2  # 0.3 a second, 0.55 s long on average


def test_bad_numbers_are_refused() -> None:
    for size in (97, 482):
        with pytest.raises(ValueError, match=f"image_size: got {size}, expected an even number up to 480"):
            CollectSim("x", image_size=size)
    for name in ("episodes", "workers", "image_size"):
        with pytest.raises(ValueError, match=name):
            config(Path("x"), **{name: 0})


@pytest.mark.slow
def test_the_operator_records_the_task_with_the_shipped_legs(tmp_path: Path) -> None:
    from wbvla.lmo.controller import weights_folder

    try:
        weights_folder("g1")
    except ValueError as error:
        pytest.skip(str(error))
    cfg = CollectSim(str(tmp_path / "dataset"), episodes=2)
    assert run(cfg)["rows"][0]["episodes"] == 2
    cache = FrameCache.open(cfg.out, 96)
    assert set(np.unique(cache.actions[:, 16:19])) <= {-1.0, 0.0, 1.0}
    assert cache.actions[:, 16].max() == 1, "pushing needs walking ahead"
    assert np.abs(cache.states[:, 60]).max() > 0.9, "gravity points down in the pelvis frame"
    assert cache.images.std() > 10
