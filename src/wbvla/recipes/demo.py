"""Budgets of `wbvla demo`. In: nothing. Out: frozen `DemoBudget`s; everything is counted in steps, never in seconds.

`expected_s` is each stage's measured duration on two cores; it only feeds the display of the time left.
"""

from __future__ import annotations

from dataclasses import dataclass, field

TASK, ROBOT = "cart-pushing", "g1"
IMAGE_SIZE = 96
LAM_RECIPE = VLA_RECIPE = "tiny"
K_S = 0.5  # frame gap of both latent action models


@dataclass(frozen=True)
class DemoBudget:
    """How much of everything.

    Attributes:
        episodes: demonstrations. clips_loco, clips_mani: action-free clips.
        lam_steps, pretrain_steps, finetune_steps: optimiser steps.
        trials: closed-loop episodes of operator and VLAs; baseline_trials: of blind, replay and random weights.
        realtime_trials: how many of the VLA's are repeated in wall time through the sockets.
        legs_steps: environment steps of --train-legs.
        expected_s: seconds of each kind of stage.
    """

    episodes: int
    clips_loco: int
    clips_mani: int
    lam_steps: int
    pretrain_steps: int
    finetune_steps: int
    trials: int
    baseline_trials: int
    realtime_trials: int
    legs_steps: int
    expected_s: dict[str, float] = field(default_factory=dict)


def demo_full() -> DemoBudget:
    """Return the budget of `make demo`: about 17 minutes on two cores."""
    return DemoBudget(
        episodes=60,
        clips_loco=120,
        clips_mani=80,
        lam_steps=600,
        pretrain_steps=700,
        finetune_steps=1600,
        trials=34,
        baseline_trials=30,
        realtime_trials=3,
        legs_steps=20_000_000,
        expected_s={"legs": 2400, "collect": 210, "clips": 30, "lam": 70, "label": 25, "pretrain": 60, "finetune": 150,
                    "evaluate": 110, "realtime": 70},
    )  # fmt: skip


def demo_fast() -> DemoBudget:
    """Return the budget of --fast: every stage runs, in three minutes; nothing is learned well."""
    return DemoBudget(
        episodes=6,
        clips_loco=16,
        clips_mani=12,
        lam_steps=60,
        pretrain_steps=20,
        finetune_steps=30,
        trials=2,
        baseline_trials=2,
        realtime_trials=1,
        legs_steps=500_000,
        expected_s={"legs": 120, "collect": 20, "clips": 10, "lam": 15, "label": 8, "pretrain": 10, "finetune": 10,
                    "evaluate": 12, "realtime": 40},
    )  # fmt: skip
