"""Configurations of the legs' training. In: nothing. Out: frozen `LmoConfig`; NAME_tiny is the twin for tests."""

from __future__ import annotations

from dataclasses import dataclass, replace

from wbvla.lmo.command import ShapingConfig
from wbvla.lmo.observation import STANDARD
from wbvla.lmo.odometry import OdometryConfig

REWARDS = (
    ("track_xy", 2.5), ("track_xy_wide", 1.0), ("track_yaw", 1.5), ("track_yaw_wide", 1.0),
    ("track_height", 0.8), ("height_error", -12.0), ("drift_xy", 2.0), ("drift_yaw", 1.0),
    ("place_xy", 3.0), ("place_error", -8.0), ("place_yaw", 1.5),
    ("upright", -3.0), ("torso_upright", -2.0), ("torso_oscillation", -0.05), ("torso_yaw_oscillation", -0.15),
    ("roll_pitch_rate", -0.08), ("vertical_velocity", -1.0),
    ("contact_schedule", 0.25), ("swing_height", -30.0), ("foot_slip", -0.4), ("foot_flat", -1.0),
    ("foot_parallel", -0.4), ("feet_too_close", -6.0), ("feet_too_wide", -2.0),
    ("action_rate", -0.02), ("smoothness", -0.004), ("action_size", -0.003), ("joint_speed", -2e-3),
    ("torque", -0.05), ("torque_limit", -0.5), ("joint_limit", -2.0),
    ("hip_deviation", -0.6), ("waist_deviation", -0.8), ("waist_yaw_deviation", -1.5),
    ("stand_level", -0.6), ("stand_still", -0.15), ("rest_speed", -0.01), ("rest_action_rate", -0.4), ("alive", 0.6),
)  # fmt: skip

STILLER = {"upright": -10.0, "torso_upright": -6.0, "torso_oscillation": -0.2}  # in the second stage

# WholeBodyVLA Table 4: (row, stage I, stage II); rows that the paper names without a weight have HOMIE's. The weight
# of J_dir ("direction") is not published; it is chosen so that 0.1 rad costs as much as a step earns.
PAPER_REWARDS = (
    ("paper_forward", 1.5, 1.8), ("paper_lateral", 1.0, 1.2), ("paper_yaw", 2.0, 2.0), ("paper_height", 2.0, 2.0),
    ("vertical_velocity", -0.5, -0.75), ("upright", -1.5, -1.5), ("joint_acceleration", -2.5e-7, -2.5e-7),
    ("roll_action", -0.05, -0.1), ("stand_still_action", -0.05, -0.1), ("direction", 0.0, -50.0),
    ("hip_deviation_tall", -0.2, -0.2), ("ankle_deviation_tall", -0.5, -0.5), ("knee_squat", -0.75, -0.75),
    ("joint_speed", -1e-4, -1e-4), ("joint_speed_limit", -2e-3, -2e-3), ("joint_limit", -2.0, -2.0),
    ("torque_limit", -0.1, -0.1), ("torque_usage", -2.5e-6, -2.5e-6), ("feet_air_time", 0.05, 0.05),
    ("foot_clearance", -0.25, -0.25), ("lateral_spacing", 0.5, 0.5), ("foot_parallel", -3.0, -3.0),
    ("no_fly", 0.75, 0.75), ("foot_slip", -0.25, -0.25), ("foot_stumble", -1.5, -1.5), ("action_rate", -0.01, -0.01),
    ("smoothness", -0.05, -0.05), ("joint_tracking", -0.1, -0.1), ("torso_oscillation", -0.05, -0.05),
)  # fmt: skip
# Tutorial 000. A row that is paid once, at a motion's end, has ten times its weight: rows count 0.1 a step.
TUTORIAL_000_REWARDS = (
    ("tracking_lin_vel", 1.5), ("tracking_ang_vel", 0.75), ("vertical_velocity", -2.0), ("roll_pitch_rate", -0.05),
    ("joint_torque", -0.0002), ("action_rate", -0.01), ("feet_air_time", 1.0),
)  # fmt: skip
TUTORIAL_000_TERMS = ("flags", "height_ref", "gyro", "gravity", "q_lmo", "dq_lmo", "last_action")
# Tutorial 003: 294 numbers with the 12 joints of the legs; a robot whose policy owns the waist too has two more each.
TUTORIAL_003_TERMS = ("q_lmo", "dq_lmo", "quaternion", "gyro", "accelerometer", "foot_contacts", "latent")
TUTORIAL_003_REWARDS = (
    ("orientation", 0.25), ("angular_velocity", 0.10), ("linear_velocity", 0.10), ("foot_contact", 0.05),
    ("manipulation_support", 0.20), ("com_stability", 0.15), ("energy", 0.05), ("action_smoothness", 0.10),
)  # fmt: skip
PAPER_TERMS = ("flags", "height_ref", "gyro", "gravity", "q", "dq", "last_action")


@dataclass(frozen=True)
class LmoConfig:
    """Everything that defines a training run of the legs, except its seed, length and place.

    Attributes:
        worlds, steps_per_update: size of one PPO batch.
        physics_s, substeps: integration step and steps per 20 ms control step.
        action_scale_rad: joint offset per unit of action; action_torque_share: of the joint's limit, what its torque is
            at most, so that stiff joints move less.
        lift_rad: hip lift of the swing feed-forward.
        heights_m: range of commanded heights. nominal_share: share of commands at the nominal height.
        mixed_share: share of commands that are any of the 27 sets of flags; the others stand or move along one axis.
        opened: least share of arm motion, heights and start poses, in worlds of level 0.
        collisions: "feet" against the floor only, or "full": links against links too.
        variants: compiled model variants for randomisation of friction, masses, gains.
        friction: range of the feet's sliding friction. softness_s: range of their contacts' time constant.
        torso_kg, wrist_kg: ranges of added mass; the first variants get a small share of it, the last all.
        soles: range of the factor by which the soles are smaller than the robot's.
        roughness_m: largest bumps of the ground; the first variants walk on flat ground.
        com_m: how far the trunk's centre of mass moves. gains: share by which the joints' gains vary.
        link_mass: share by which each link's mass varies. torque_noise: share of each joint's torque limit.
        sensor_lag_share: share of worlds whose joints and IMU arrive one step late.
        push_m_s, shove_n, shove_nm: largest jump of the base's velocity, force and torque on the trunk for 0.2 s.
        hand_force_n, hand_force_share: steady force against the motion, and in which share of the worlds.
        redraw_s: how long a command lasts. reversals: share of the redraws that reverse all flags.
        calm: share of the episodes that are left alone: nobody pushes, commands last four times as long; in half of
            them the arms stay as well.
        slowest: least share of the cruise speeds that half of the episodes ask for.
        terms: what the actor observes, of lmo/observation.py's TERMS.
        history: observations that the actor sees at once.
        odometry: constants of the leg odometry.
        rewards: weights of the reward rows by name; see lmo/rewards.py.
        harness: start with the assist forces that are annealed away (reached unaided walking 10x sooner).
        arms: arm trajectories that half of the worlds play (wbvla.lmo.arm_clips); random goals everywhere if empty.
        actuator: folder of `wbvla lmo actuator` whose network gives the joints' torques; their PD if empty. With one,
            physics runs at the network's rate, whatever physics_s and substeps say.
    """

    worlds: int = 128
    steps_per_update: int = 48
    physics_s: float = 0.01
    substeps: int = 2
    action_scale_rad: float = 0.3
    action_torque_share: float = 0.375
    lift_rad: float = 0.3
    heights_m: tuple[float, float] = (0.45, 0.76)
    nominal_share: float = 0.5
    mixed_share: float = 0.16
    opened: float = 0.0
    collisions: str = "feet"
    variants: int = 16
    friction: tuple[float, float] = (0.4, 1.2)
    softness_s: tuple[float, float] = (0.02, 0.03)
    torso_kg: tuple[float, float] = (-1.0, 3.0)
    wrist_kg: tuple[float, float] = (0.0, 1.5)
    soles: tuple[float, float] = (1.0, 1.0)
    roughness_m: float = 0.0
    com_m: float = 0.03
    gains: float = 0.15
    link_mass: float = 0.0
    torque_noise: float = 0.0
    sensor_lag_share: float = 0.0
    push_m_s: float = 0.8
    shove_n: float = 120.0
    shove_nm: float = 20.0
    hand_force_n: float = 35.0
    hand_force_share: float = 0.35
    redraw_s: tuple[float, float] = (2.0, 6.0)
    reversals: float = 0.0
    calm: float = 0.0
    slowest: float = 0.5
    terms: tuple[str, ...] = STANDARD
    history: int = 1
    odometry: OdometryConfig = OdometryConfig(steer_per_s=0.8, lift_per_s=0.25)
    rewards: tuple[tuple[str, float], ...] = REWARDS
    episode_s: float = 20.0
    harness: bool = True
    arms: tuple[str, ...] = ()
    actuator: str = ""
    hidden: tuple[int, ...] = (256, 128)
    epochs: int = 3
    minibatches: int = 4
    learning_rate: float = 1e-3
    entropy: float = 0.0
    desired_kl: float = 0.03
    initial_std: float = 0.6
    shaping: ShapingConfig = ShapingConfig(rests=True, pushed_hz=2.4)


def lmo_g1() -> LmoConfig:
    """Return the configuration of the shipped G1 legs."""
    return LmoConfig()


def lmo_g1_stage2() -> LmoConfig:
    """Return the second stage: start it from a run of `lmo_g1`. Wider everything, larger batches, less exploration."""
    return replace(
        LmoConfig(),
        worlds=256,
        steps_per_update=64,
        desired_kl=0.01,
        variants=32,
        friction=(0.4, 1.5),
        torso_kg=(-3.0, 5.0),
        wrist_kg=(0.0, 3.0),
        soles=(0.75, 1.0),
        link_mass=0.1,
        torque_noise=0.03,
        sensor_lag_share=0.3,
        push_m_s=1.2,
        shove_n=180.0,
        shove_nm=35.0,
        hand_force_n=45.0,
        redraw_s=(1.5, 5.0),
        reversals=0.25,
        nominal_share=0.15,
        mixed_share=0.5,
        opened=1.0,
        collisions="full",
        harness=False,
        initial_std=0.25,
        calm=0.3,
        rewards=tuple((name, STILLER.get(name, weight)) for name, weight in REWARDS),
    )


def lmo_x2() -> LmoConfig:
    """Return the first stage of the X2's legs: the G1's, with heights that the X2 can reach."""
    return replace(lmo_g1(), heights_m=(0.45, 0.65))


def lmo_x2_stage2() -> LmoConfig:
    """Return the second stage: start it from a run of `lmo_x2`, or from the G1's legs."""
    return replace(lmo_g1_stage2(), heights_m=(0.45, 0.65))


def lmo_g1_only_stage2() -> LmoConfig:
    """Return the ablation without stage I: `lmo_g1_stage2` from the start, in the harness."""
    return replace(lmo_g1_stage2(), harness=True, initial_std=LmoConfig().initial_std)


def lmo_g1_no_direction() -> LmoConfig:
    """Return the ablation of `lmo_g1` without rows against drift (the paper's J_dir)."""
    return _without_direction(lmo_g1())


def lmo_g1_stage2_no_direction() -> LmoConfig:
    """Return the second stage of `lmo_g1_no_direction`."""
    return _without_direction(lmo_g1_stage2())


def _without_direction(config: LmoConfig) -> LmoConfig:
    return replace(config, rewards=tuple(r for r in config.rewards if r[0].split("_")[0] not in ("drift", "place")))


def lmo_g1_latent() -> LmoConfig:
    """Return `lmo_g1` that also observes the latent action: the legs know what the arms are about to do."""
    return replace(lmo_g1(), terms=(*STANDARD, "latent"))


def lmo_g1_velocity() -> LmoConfig:
    """Return the baseline that tracks continuous velocities (tutorial 001, HOMIE-like) instead of flags."""
    return replace(lmo_g1(), shaping=replace(LmoConfig.shaping, kind="velocity"))


def lmo_g1_stage2_velocity() -> LmoConfig:
    """Return the second stage of `lmo_g1_velocity`."""
    return replace(lmo_g1_stage2(), shaping=replace(LmoConfig.shaping, kind="velocity"))


def lmo_paper() -> LmoConfig:
    """Return stage I as the paper describes it: its rows, its observation with six frames, no clock, no feed-forward.

    What the paper leaves open (network, PPO, worlds) is as in `lmo_g1`; on two cores it learns far more slowly.
    """
    return replace(
        LmoConfig(),
        rewards=tuple((name, first) for name, first, _ in PAPER_REWARDS if first),
        terms=PAPER_TERMS,
        shaping=ShapingConfig(),
        history=6,
        lift_rad=0.0,
        slowest=0.0,
        friction=(0.1, 3.0),
        torso_kg=(-5.0, 10.0),
        wrist_kg=(-0.1, 0.3),
        roughness_m=0.03,
        link_mass=0.2,
        torque_noise=0.05,
        push_m_s=0.5,
    )


def lmo_paper_stage2() -> LmoConfig:
    """Return stage II of `lmo_paper`: fixed cruise speeds, its raised weights and J_dir."""
    rewards = tuple((name, second) for name, _, second in PAPER_REWARDS)
    return replace(lmo_paper(), rewards=rewards, slowest=1.0, harness=False)


def lmo_tutorial_000() -> LmoConfig:
    """Return stage I of tutorial 000: its rewards, speeds, randomisation and observation (49 numbers on the X2)."""
    return replace(
        LmoConfig(),
        shaping=ShapingConfig(goal=(0.5, 0.3, 0.3), alpha=2.0),
        heights_m=(0.55, 0.65),
        rewards=TUTORIAL_000_REWARDS,
        terms=TUTORIAL_000_TERMS,
        lift_rad=0.0,
        slowest=0.2,
        friction=(0.3, 1.0),
        com_m=0.05,
        gains=0.2,
        link_mass=0.2,
        episode_s=10.0,
    )


def lmo_tutorial_000_stage2() -> LmoConfig:
    """Return stage II of tutorial 000: one cruise speed, heading paid at a motion's end; give it recorded `--arms`."""
    return replace(
        lmo_tutorial_000(),
        rewards=(*TUTORIAL_000_REWARDS, ("direction", -20.0), ("stand_still", -1.0)),
        slowest=1.0,
        friction=(0.2, 1.2),
        link_mass=0.3,
        harness=False,
    )


def lmo_tutorial_003() -> LmoConfig:
    """Return tutorial 003: no command but the latent action, its rewards, randomisation and PPO numbers.

    Its weights are a fifth of the other recipes', so they count five times; 4096 worlds are for many cores. The noise
    of the latent action is wbvla.lmo.latent.NOISE.
    """
    return replace(
        LmoConfig(),
        shaping=ShapingConfig(),
        rewards=tuple((name, 5 * weight) for name, weight in TUTORIAL_003_REWARDS),
        terms=TUTORIAL_003_TERMS,
        lift_rad=0.0,
        physics_s=0.005,
        substeps=4,
        friction=(0.3, 1.5),
        torso_kg=(0.0, 0.0),
        wrist_kg=(0.0, 2.5),
        gains=0.2,
        roughness_m=0.05,
        com_m=0.05,
        push_m_s=0.0,
        shove_n=50.0,
        shove_nm=0.0,
        hidden=(256, 256, 128),
        steps_per_update=24,
        epochs=5,
        learning_rate=3e-4,
        entropy=0.01,
    )


def tiny(config: LmoConfig) -> LmoConfig:
    """Return a seconds-long twin of a configuration."""
    return replace(config, worlds=16, steps_per_update=16, variants=2, hidden=(32, 32), minibatches=2)


RECIPES = {
    recipe.__name__: recipe
    for recipe in (
        lmo_g1, lmo_g1_stage2, lmo_g1_only_stage2, lmo_g1_no_direction, lmo_g1_stage2_no_direction, lmo_g1_velocity,
        lmo_g1_stage2_velocity, lmo_g1_latent, lmo_x2, lmo_x2_stage2, lmo_paper,
        lmo_paper_stage2, lmo_tutorial_000, lmo_tutorial_000_stage2, lmo_tutorial_003,
    )
}  # fmt: skip


def get_recipe(name: str) -> LmoConfig:
    """Return a recipe by name; NAME_tiny is the twin of NAME. Raises ValueError listing the known names."""
    if name in RECIPES:
        return RECIPES[name]()
    if name.removesuffix("_tiny") in RECIPES:
        return tiny(RECIPES[name.removesuffix("_tiny")]())
    raise ValueError(f"recipe: got {name!r}, expected one of {', '.join(RECIPES)}, or one of these with _tiny")
