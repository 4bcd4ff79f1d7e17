"""Configurations of the legs' training. In: nothing. Out: frozen `LmoConfig`; the `tiny` ones are twins for tests."""

from __future__ import annotations

from dataclasses import dataclass, replace

from wbvla.lmo.command import ShapingConfig


@dataclass(frozen=True)
class LmoConfig:
    """Everything that defines a training run of the legs, except its seed, length and place.

    Attributes:
        worlds, steps_per_update: size of one PPO batch.
        physics_s, substeps: integration step and steps per 20 ms control step.
        action_scale_rad: joint offset per unit of action. lift_rad: hip lift of the swing feed-forward.
        heights_m: range of commanded heights. nominal_share: share of commands at the nominal height.
        variants: compiled model variants for randomisation of friction, masses, gains.
        friction: range of the feet's sliding friction. torso_kg, wrist_kg: ranges of added mass.
        link_mass: share by which each link's mass varies. torque_noise: share of each joint's torque limit.
        sensor_lag_share: share of worlds whose joints and IMU arrive one step late.
        push_m_s: base velocity jump at full curriculum.
        hand_force_n, hand_force_share: steady force against the motion, and in which share of the worlds.
        redraw_s: how long a command lasts. reversals: share of the redraws that reverse all flags.
        slowest: least share of the cruise speeds that half of the episodes ask for.
        precision: weight of the rows against drift from the reference and against motion at rest.
        harness: start with the assist forces that are annealed away (reached unaided walking 10x sooner).
    """

    worlds: int = 128
    steps_per_update: int = 48
    physics_s: float = 0.01
    substeps: int = 2
    action_scale_rad: float = 0.3
    lift_rad: float = 0.3
    heights_m: tuple[float, float] = (0.55, 0.76)
    nominal_share: float = 0.5
    variants: int = 16
    friction: tuple[float, float] = (0.4, 1.2)
    torso_kg: tuple[float, float] = (-1.0, 3.0)
    wrist_kg: tuple[float, float] = (0.0, 1.5)
    link_mass: float = 0.0
    torque_noise: float = 0.0
    sensor_lag_share: float = 0.0
    push_m_s: float = 0.6
    hand_force_n: float = 35.0
    hand_force_share: float = 0.35
    redraw_s: tuple[float, float] = (2.0, 6.0)
    reversals: float = 0.0
    slowest: float = 1.0
    precision: float = 1.0
    episode_s: float = 20.0
    harness: bool = True
    hidden: tuple[int, ...] = (256, 128)
    epochs: int = 3
    minibatches: int = 4
    learning_rate: float = 1e-3
    entropy: float = 0.001
    desired_kl: float = 0.03
    initial_std: float = 0.6
    shaping: ShapingConfig = ShapingConfig()


def lmo_g1() -> LmoConfig:
    """Return the configuration of the shipped G1 legs."""
    return LmoConfig()


def lmo_g1_stage2() -> LmoConfig:
    """Return the second stage: start it from a run of `lmo_g1`. Wider everything, and drift counts."""
    return replace(
        LmoConfig(),
        heights_m=(0.45, 0.76),
        variants=32,
        friction=(0.3, 1.5),
        torso_kg=(-2.0, 5.0),
        wrist_kg=(0.0, 4.0),
        link_mass=0.1,
        torque_noise=0.03,
        sensor_lag_share=0.4,
        push_m_s=0.9,
        hand_force_n=45.0,
        redraw_s=(1.5, 5.0),
        reversals=0.25,
        slowest=0.5,
        harness=False,
        initial_std=0.45,
    )


def lmo_x2() -> LmoConfig:
    """Return the first stage of the X2's legs: the G1's, heights as far below nominal."""
    return replace(lmo_g1(), heights_m=(0.48, 0.65))


def lmo_x2_stage2() -> LmoConfig:
    """Return the second stage: start it from a run of `lmo_x2`."""
    return replace(lmo_g1_stage2(), heights_m=(0.45, 0.65))


def lmo_tiny() -> LmoConfig:
    """Return a seconds-long twin of `lmo_g1` for tests."""
    return _tiny(lmo_g1())


def lmo_x2_tiny() -> LmoConfig:
    """Return a seconds-long twin of `lmo_x2` for tests."""
    return _tiny(lmo_x2())


def _tiny(config: LmoConfig) -> LmoConfig:
    return replace(config, worlds=16, steps_per_update=16, variants=2, hidden=(32, 32), minibatches=2)


RECIPES = {
    "lmo_g1": lmo_g1,
    "lmo_g1_stage2": lmo_g1_stage2,
    "lmo_x2": lmo_x2,
    "lmo_x2_stage2": lmo_x2_stage2,
    "lmo_tiny": lmo_tiny,
    "lmo_x2_tiny": lmo_x2_tiny,
}


def get_recipe(name: str) -> LmoConfig:
    """Return a recipe by name. Raises ValueError listing the known names."""
    if name not in RECIPES:
        raise ValueError(f"recipe: got {name!r}, expected one of {', '.join(RECIPES)}")
    return RECIPES[name]()
