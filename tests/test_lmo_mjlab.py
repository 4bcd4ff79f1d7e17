"""The mjlab engine: the task's functions equal numpy's, its physics equals the CPU engine's, its launcher trains."""

from __future__ import annotations

import importlib
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from wbvla.cli import main
from wbvla.lmo.arrays import namespace
from wbvla.lmo.command import CommandShaper, ShapingConfig, feedforward, is_disturbed, is_pushed
from wbvla.lmo.observation import actor_observation
from wbvla.lmo.odometry import LegKinematics, Odometry, OdometryConfig, base_velocity, pelvis_height
from wbvla.recipes.lmo import get_recipe
from wbvla.robots import get_robot
from wbvla.types import LocoCommand, Proprioception

torch = pytest.importorskip("torch")
pytest.importorskip("mjlab")

ROBOT = get_robot("g1")


@pytest.fixture(scope="module", autouse=True)
def quiet_warp():
    import warp

    warp.config.quiet = True


def tensor(x):
    """Return a numpy array as the mjlab engine holds it, anything else as it is."""
    return namespace(torch.zeros(0)).asarray(x) if isinstance(x, np.ndarray) else x


def same(a, b, tolerance: float = 1e-5) -> bool:
    """Compare numpy's values with torch's, relative to numbers above 1."""
    a, b = np.asarray(a, float), b.numpy().astype(float)
    return a.shape == b.shape and np.abs(a - b).max() <= tolerance * max(1.0, np.abs(a).max())


def walked(recipe: str, robot=ROBOT, steps: int = 30, **other):
    """Return a CPU engine of 16 worlds after some steps of noise, without random forces in the next one."""
    from wbvla.lmo.cpu_engine import CpuEngine

    engine = CpuEngine(robot, replace(get_recipe(f"{recipe}_tiny"), torque_noise=0.0, **other), 16, 3, 1)
    engine.level[:] = 0.7
    engine.set_harness(0.3)
    rng = np.random.default_rng(0)
    for _ in range(steps):
        engine.observe()
        engine.step(0.3 * rng.normal(size=(16, robot.n_lmo)))
    engine.disturbance.left[:] = engine.command_left[:] = 100
    return engine


def test_every_reward_row_is_the_same_on_numpy_and_torch():
    from wbvla.lmo.rewards import TERMS, Step

    engine = walked("lmo_paper")
    applied = engine.act(np.full((16, 15), 0.2))
    engine._physics()
    step = engine._measure(applied)
    other = Step(**{f.name: tensor(getattr(step, f.name)) for f in fields(step)})
    different = [name for name, row in TERMS.items() if not same(row(step), row(other))]
    assert not different


@pytest.mark.parametrize("kind", ["gate", "paper-literal", "velocity"])
def test_shaping_and_feedforward_are_the_same_on_numpy_and_torch(kind):
    rng, config = np.random.default_rng(0), ShapingConfig(kind=kind, rests=True, pushed_hz=2.4)
    a = CommandShaper(8, 0.74, config)
    b = CommandShaper(8, 0.74, config, namespace(torch.zeros(0)))
    for i in range(100):
        if i % 25 == 0:
            flags, height = rng.integers(-1, 2, (8, 3)).astype(float), rng.uniform(0.45, 0.76, 8)
        disturbed, pushed = rng.random((2, 8)) < 0.02
        a.step(flags, height, disturbed, pushed)
        b.step(tensor(flags), tensor(height), tensor(disturbed), tensor(pushed))
    assert same(a.v_ref, b.v_ref) and same(a.height_ref, b.height_ref)
    assert same(a.clock(), b.clock(), 1e-4) and same(a.swing(), b.swing(), 1e-4)  # a phase sums 100 small steps
    swing = a.swing()
    targets = feedforward(swing, a.height_ref, 0.74, 0.6, 0.3)
    assert same(targets, feedforward(tensor(swing), tensor(a.height_ref), 0.74, 0.6, 0.3))


def test_odometry_and_observation_are_the_same_on_numpy_and_torch():
    rng, xp = np.random.default_rng(0), namespace(torch.zeros(0))
    config = OdometryConfig(lift_per_s=0.5)
    a, b = Odometry(8, config), Odometry(8, config, xp)
    legs, legs_torch = LegKinematics(ROBOT), LegKinematics(ROBOT, xp)
    for _ in range(20):
        q, dq = rng.uniform(-0.5, 0.5, (8, 29)), rng.normal(size=(8, 29))
        gyro, gravity, v_ref = rng.normal(size=(8, 3)), rng.normal(size=(8, 3)) - [0, 0, 3], rng.normal(size=(8, 3))
        gravity /= np.linalg.norm(gravity, axis=1, keepdims=True)
        feet = legs.feet(q[:, :12], dq[:, :12])
        sample, missing = base_velocity(*feet, gyro, gravity, 0.05), 0.7 - pelvis_height(feet[0], gravity)
        feet = legs_torch.feet(tensor(q[:, :12]), tensor(dq[:, :12]))
        sample_torch = base_velocity(*feet, tensor(gyro), tensor(gravity), 0.05)
        assert same(sample, sample_torch)
        missing_torch = 0.7 - pelvis_height(feet[0], tensor(gravity))
        a.step(sample, gyro, gravity, v_ref, missing)
        b.step(sample_torch, *map(tensor, (gyro, gravity, v_ref)), missing_torch)
    assert same(a.error, b.error) and same(a.velocity, b.velocity) and same(a.lift, b.lift)
    assert (is_disturbed(a, gravity) == is_disturbed(b, tensor(gravity)).numpy()).all()
    assert (is_pushed(a, v_ref) == is_pushed(b, tensor(v_ref)).numpy()).all()
    terms = {
        "flags": v_ref, "v_ref": v_ref, "height_ref": v_ref[:, :1], "base_velocity": a.velocity, "gyro": gyro,
        "gravity": gravity, "q": q, "dq": 30 * dq, "last_action": q[:, :15], "clock": v_ref[:, :2],
        "pose_error": a.error,
    }  # fmt: skip
    seen = actor_observation(terms, 0.74, ROBOT.array("default"))
    seen_torch = actor_observation({k: tensor(v) for k, v in terms.items()}, 0.74, tensor(ROBOT.array("default")))
    assert seen_torch.dtype == torch.float32 and same(seen, seen_torch)


def test_random_draws_are_numpys_in_shape_and_range_and_resume():
    from wbvla.lmo.torch_arrays import TorchRandom

    rng = TorchRandom(0, "cpu")
    state = rng.bit_generator.state
    drawn = rng.uniform(torch.tensor([0.0, 5.0]), torch.tensor([1.0, 6.0]), (1000, 2))
    assert drawn.amin(0).tolist() >= [0.0, 5.0] and drawn.amax(0).tolist() <= [1.0, 6.0]
    assert set(rng.integers(2, 5, 200).tolist()) == {2, 3, 4}
    assert set(rng.choice([-1.0, 1.0], 100).tolist()) == {-1.0, 1.0}
    assert set(rng.choice(3, 100, p=np.array([0.5, 0.0, 0.5])).tolist()) == {0, 2}
    rng.bit_generator.state = state
    assert (rng.uniform(torch.tensor([0.0, 5.0]), torch.tensor([1.0, 6.0]), (1000, 2)) == drawn).all()


def test_an_unknown_engine_is_one_line(tmp_path, capsys):
    assert main(["lmo", "train", "--engine", "isaac", "--out", str(tmp_path)]) == 2
    assert "got 'isaac', expected cpu or mjlab" in capsys.readouterr().err


def test_every_recipe_that_fits_a_robot_is_a_task():
    importlib.import_module("wbvla.lmo.mjlab_tasks")
    from mjlab.tasks.registry import list_tasks

    names = {name for name in list_tasks() if name.startswith("Wbvla-LMO-")}
    assert {"Wbvla-LMO-G1", "Wbvla-LMO-G1-Stage2", "Wbvla-LMO-X2"} <= names
    assert not {"Wbvla-LMO-G1-Paper", "Wbvla-LMO-X2-G1"} & names, "uneven ground; another robot's"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("robot", "recipe"), [("g1", "lmo_g1_stage2"), ("g1", "lmo_paper"), ("g1", "lmo_g1_latent"), ("x2", "lmo_x2")]
)
def test_one_step_from_the_same_state_is_the_same_on_both_engines(robot, recipe):
    compare(walked(recipe, get_robot(robot), roughness_m=0.0))


@pytest.mark.slow
def test_one_step_of_drives_that_are_a_network_is_the_same_on_both_engines(tmp_path):
    from test_lmo_actuator import linear_net

    linear_net(ROBOT, 250.0).save(tmp_path, {})
    compare(walked("lmo_g1", actuator=str(tmp_path)))


def compare(a) -> None:
    """Hold one step of the mjlab engine against that of a CPU engine; then let it diverge."""
    from wbvla.lmo.cpu_engine import Diverged
    from wbvla.lmo.mjlab_engine import MjlabEngine

    b = MjlabEngine(a.robot, a.config, 16, 3)
    b.set_harness(a.harness)
    b.observe()
    a.arms.left[:] = 50  # neither draws new goals, which would differ, in the step compared
    arrays = {name: tensor(np.array(value)) for name, value in a.worlds().items()}
    b.set_worlds(arrays | {"_sensors": arrays["_sensors"][:, -1:]})
    action = 0.3 * np.random.default_rng(1).normal(size=(16, a.robot.n_lmo))
    applied, applied_torch = a.act(action), b.act(tensor(action))
    a._physics()
    b._physics()
    assert np.abs(a.qpos[:, 7:] - b.qpos[:, 7:].numpy()).max() < 1e-3
    assert np.abs(a.qpos[:, :7] - b.qpos[:, :7].numpy()).max() < 1e-3
    reward, fallen, timed_out = a.judge(applied)
    reward_torch, fallen_torch, timed_out_torch = b.judge(applied_torch)
    assert np.abs(reward - reward_torch.numpy()).max() < 1e-2
    assert (fallen == fallen_torch.numpy()).all() and (timed_out == timed_out_torch.numpy()).all()
    b.state[5, 3] = float("nan")
    with pytest.raises(Diverged, match="world 5"):
        b.step(tensor(action))


def walks(folder: Path) -> bool:
    """Tell whether the robot's controller takes a step with exported legs."""
    from wbvla.lmo.controller import LmoController

    controller = LmoController(folder)
    body = Proprioception(ROBOT.array("default"), np.zeros(29), np.zeros(3), np.array([0.0, 0.0, -1.0]))
    targets = controller.step(LocoCommand(1, 0, 0, 0.74), body)
    return targets.shape == (15,) and bool(np.isfinite(targets).all())


@pytest.mark.slow
def test_mjlabs_environment_steps_as_the_engine_does_alone():
    from mjlab.envs import ManagerBasedRlEnv

    from wbvla.lmo.mjlab_engine import MjlabEngine
    from wbvla.lmo.mjlab_tasks import environment

    recipe = get_recipe("lmo_g1_stage2_tiny")
    config = environment("g1", recipe, worlds=8)
    config.seed = 5
    env, engine = ManagerBasedRlEnv(config, device="cpu"), MjlabEngine(ROBOT, recipe, 8, 5)
    seen, _ = env.reset()
    engine.episode_steps[:4] = engine.max_steps - 3  # some worlds begin anew on the way
    env.action_manager.get_term("legs").engine.episode_steps[:4] = engine.max_steps - 3
    generator = torch.Generator().manual_seed(0)
    ended = 0
    for _ in range(6):
        for name, alone in zip(("actor", "critic"), engine.observe()):
            assert (seen[name] - alone).abs().max() < 0.02
        action = 0.3 * torch.randn(8, 15, generator=generator)
        seen, reward, fallen, timed_out, _ = env.step(action)
        reward_alone, fallen_alone, timed_out_alone = engine.step(action)
        assert (reward - reward_alone).abs().max() < 1e-2
        assert fallen.equal(fallen_alone) and timed_out.equal(timed_out_alone)
        ended += int(timed_out.sum())
    assert ended == 4


@pytest.mark.slow
def test_mjlabs_launcher_trains_a_task_and_its_export_runs_on_the_robot(tmp_path):
    importlib.import_module("wbvla.lmo.mjlab_tasks")
    from mjlab.scripts.train import TrainConfig, launch_training

    config = TrainConfig.from_task("Wbvla-LMO-G1")
    config.env.scene.num_envs = 8
    config.agent.num_steps_per_env, config.agent.max_iterations = 4, 2
    config = replace(config, gpu_ids=None, log_root=str(tmp_path))
    launch_training("Wbvla-LMO-G1", config)
    run = next((tmp_path / "Wbvla-LMO-G1").iterdir())
    assert (run / "model_1.pt").exists() and walks(run / "export")
    config.agent.resume = True
    launch_training("Wbvla-LMO-G1", config)
    assert any(folder != run for folder in (tmp_path / "Wbvla-LMO-G1").iterdir())


@pytest.mark.slow
def test_a_run_goes_from_mjlab_to_the_cpu_and_back(tmp_path, capsys):
    def train(engine: str, steps: int) -> None:
        args = ["--recipe", "lmo_g1_tiny", "--worlds", "8", "--threads", "1", "--out", str(tmp_path)]
        assert main(["lmo", "train", *args, "--engine", engine, "--steps", str(steps)]) == 0

    train("mjlab", 256)
    for engine, steps in (("mjlab", 384), ("cpu", 512), ("mjlab", 640)):
        train(engine, steps)
        assert f"at {steps - 128} steps" in capsys.readouterr().out
    assert walks(tmp_path / "export")
    assert main(["lmo", "export", "--run-folder", str(tmp_path), "--out", str(tmp_path / "again"),
                 "--recipe", "lmo_g1_tiny", "--worlds", "1"]) == 0  # fmt: skip
    assert walks(tmp_path / "again")
