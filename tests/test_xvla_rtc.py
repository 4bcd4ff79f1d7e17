"""Laws of real-time chunking: off it changes nothing; on, a chunk repeats what is frozen and goes on from there."""

from __future__ import annotations

import time
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from wbvla.xvla.checkpoint import save_model
from wbvla.xvla.config import Domain
from wbvla.xvla.model import Xvla
from wbvla.xvla.rtc import Previous, guidance_weight, largest_weight, pull, value_slots
from xvla_world import ARMS, batch_of, small, with_words

STEPS = 20
BOTH = pytest.mark.parametrize("objective", ["clean", "velocity"])


def make_model(objective: str = "clean", **changes) -> Xvla:
    torch.manual_seed(0)
    return Xvla(small(chunk_steps=STEPS, max_tokens=96, objective=objective, **changes)).eval()


def observation(name: str, n: int = 2, seed: int = 0) -> dict:
    return {key: value for key, value in batch_of(name, n, seed).items() if key not in ("actions", "padded")}


def weights(frozen: int, horizon: int, schedule: str = "LINEAR") -> torch.Tensor:
    """LeRobot's own weights."""
    from lerobot.configs import RTCAttentionSchedule
    from lerobot.policies.rtc import RTCConfig, RTCProcessor

    config = RTCConfig(prefix_attention_schedule=RTCAttentionSchedule[schedule])
    return RTCProcessor(config).get_prefix_weights(frozen, horizon, STEPS)


def previous_of(model: Xvla, name: str, n: int = 2) -> torch.Tensor:
    """What is left, twelve steps, of a chunk for another observation."""
    return model.sample(observation(name, n, seed=1), 4, torch.randn(n, STEPS, model.domains[name].space.width))[:, 8:]


@pytest.mark.parametrize("schedule", ["ZEROS", "ONES", "LINEAR", "EXP"])
def test_the_guidance_is_lerobots(schedule):
    """Velocities that LeRobot's RTCProcessor guides are ours, at every flow time, with every schedule."""
    from lerobot.configs import RTCAttentionSchedule
    from lerobot.policies.rtc import RTCConfig, RTCProcessor

    theirs = RTCProcessor(RTCConfig(prefix_attention_schedule=RTCAttentionSchedule[schedule], max_guidance_weight=7.0))
    x, velocity, rest = torch.randn(3, 2, STEPS, 5).unbind(0)
    for step in range(1, 11):
        t = step / 10
        guided = theirs.denoise_step(x, rest[:, :12], 3, t, lambda _: velocity, execution_horizon=9)
        spread = weights(3, 9, schedule)[:, None].expand(-1, 5)
        ours = pull(x - t * velocity, rest, spread, t, 7.0)
        torch.testing.assert_close(ours, x - t * guided, atol=1e-5, rtol=1e-5)
    assert (weights(3, 9, schedule).diff() <= 0).all()


@BOTH
def test_more_guidance_is_nearer_to_the_previous_chunk(objective):
    """Distances fall with the weight's bound, at every number of steps."""
    model, rest_weights = make_model(objective), weights(0, 12, "ONES")
    batch, rest, noise = observation("arms"), previous_of(model, "arms"), torch.randn(2, STEPS, 14)
    values = value_slots(model.domains["arms"].space)
    for steps in (1, 3, 10):
        chunks = [model.sample(batch, steps, noise)]
        for bound in (0.1, 0.5, 2.0, 10.0, 1000.0):
            chunks.append(model.sample(batch, steps, noise, previous=Previous(rest, rest_weights, 0, bound)))
        distances = [float((rest - chunk[:, :12])[..., values].abs().mean()) for chunk in chunks]
        assert all(near <= far + 1e-6 for far, near in pairwise(distances))
        assert distances[4] <= 0.25 * distances[0]  # the last step's gain is at least 0.83


def test_no_step_carries_x_past_the_previous_chunk():
    """Whatever weight is asked for, at any number of steps: of the difference x gets a part, at most the whole."""
    clean, target, noise, x = torch.randn(4, 2, STEPS, 5).unbind(0)
    assert guidance_weight(1.0, 10.0) == guidance_weight(1e-9, 10.0) == 10.0 and guidance_weight(0.5, 10.0) == 2.0

    def next_x(objective: str, clean: torch.Tensor, i: int, steps: int) -> torch.Tensor:
        if objective == "velocity":
            return x + (clean - x) / i
        return (i - 1) / steps * noise + (1 - (i - 1) / steps) * clean

    for objective in ("clean", "velocity"):
        for steps in (1, 2, 5, 10, 50):
            for i in range(1, steps + 1):
                bound = min(1000.0, largest_weight(objective, i, steps))
                pulled = pull(clean, target, torch.ones_like(clean), i / steps, bound)
                part = (next_x(objective, pulled, i, steps) - next_x(objective, clean, i, steps)) / (target - clean)
                assert ((part > 0) & (part < 1.001)).all()


@pytest.mark.slow
@BOTH
def test_a_trained_policy_goes_on_in_the_way_it_has_begun(objective):
    """Two ways to do a task, up or down, both learned: chunks that follow one going up go up, also beyond its end."""
    arm = Domain(30, "auto", 4, 4, ("front",))
    model = make_model(objective, domains={"arm": arm}, dropout=0.0).train()
    way = 0.6 + torch.sin(torch.arange(STEPS) / STEPS * 3.0).unsqueeze(-1).expand(-1, 4)
    model.vlm.requires_grad_(False)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    g = torch.Generator().manual_seed(1)
    batch = {
        "images": torch.full((16, 1, 32, 32, 3), 120, dtype=torch.uint8),
        "tokens": torch.full((16, 4), 5),
        "state": torch.zeros(16, 4),
        "domains": ["arm"] * 16,
    }
    for _ in range(300):
        up = torch.randint(0, 2, (16, 1, 1), generator=g) * 2.0 - 1.0
        optimiser.zero_grad()
        model.losses({**batch, "actions": up * way}, generator=g)["loss"].backward()
        optimiser.step()
    model.eval()
    rest = way[:12].expand(16, -1, -1)
    for steps in (3, 10):
        noise = torch.randn(16, STEPS, 4, generator=g)
        plain = model.sample(batch, steps, noise)
        chunk = model.sample(batch, steps, noise, previous=Previous(rest, weights(4, 12), 4))
        assert (plain[:, 12:].mean((1, 2)) > 0).float().mean() < 0.8
        assert (chunk[:, 12:].mean((1, 2)) > 0).all()
        at_handover = [(c[:, 4] - rest[:, 3]).abs().mean() for c in (chunk, plain)]
        assert at_handover[0] < 0.25 * at_handover[1]


@BOTH
@pytest.mark.parametrize("name", ["g1", "arms", "franka"])
@pytest.mark.parametrize("attention", ["bidirectional", "prefix"])
def test_a_chunk_repeats_the_frozen_steps_and_goes_on_from_there(objective, name, attention):
    model = make_model(objective, attention=attention)
    batch, rest = observation(name), previous_of(model, name)
    noise = torch.randn(2, STEPS, model.domains[name].space.width)
    plain = model.sample(batch, 10, noise)
    guided = model.sample(batch, 10, noise, previous=Previous(rest, weights(5, 12), 5))
    assert torch.equal(guided[:, :5], rest[:, :5])
    # not only a copy: what is denoised arrives there by itself, in all entries that are values
    unfrozen = model.sample(batch, 10, noise, previous=Previous(rest, weights(5, 12), 0))
    entries = [entry for part in model.domains[name].space.parts if part.kind == "value" for entry in part.entries]
    missing, before = ((rest - chunk[:, :12])[..., entries].abs() for chunk in (unfrozen, plain))
    assert missing[:, :5].mean() <= 0.12 * before[:, :5].mean()
    assert missing[:, 5:8].mean() < 0.6 * before[:, 5:8].mean()
    torch.testing.assert_close(unfrozen[:, 5:], guided[:, 5:])


@BOTH
def test_without_weights_nothing_changes(objective):
    model = make_model(objective)
    batch, rest, noise = observation("arms"), previous_of(model, "arms"), torch.randn(2, STEPS, 14)
    plain = model.sample(batch, 4, noise)
    assert torch.equal(model.sample(batch, 4, noise, previous=Previous(rest, torch.zeros(STEPS), 0)), plain)


def test_what_does_not_fit_is_refused():
    model = make_model()
    for shape, frozen in (((2, 12, 14), 13), ((2, 21, 14), 0), ((12, 14), 0), ((2, 8, 14), 0)):
        with pytest.raises(ValueError, match="previous chunk: got actions"):
            Previous(torch.zeros(shape), weights(2, 12), frozen)
    with pytest.raises(ValueError, match="actions: got 7 entries, expected 14 for arms"):
        model.sample(observation("arms"), previous=Previous(torch.zeros(2, 12, 7), weights(2, 12), 2))


@pytest.fixture
def policy(tmp_path):
    from test_xvla_lerobot import features
    from wbvla.lerobot.configuration_xvla_wb import XvlaWbConfig
    from wbvla.lerobot.modeling_xvla_wb import XvlaWbPolicy

    torch.manual_seed(0)
    save_model(tmp_path / "model", Xvla(with_words({"arms": ARMS}, chunk_steps=STEPS, max_tokens=96)))
    flags = dict(domain="arms", action_mode="joint", num_denoising_steps=10, n_action_steps=8)
    return XvlaWbPolicy(XvlaWbConfig(device="cpu", init_from=str(tmp_path / "model"), **features(), **flags)).eval()


def turn_on(policy, enabled: bool = True, **settings) -> None:
    """What LeRobot's rollout does."""
    from lerobot.policies.rtc import RTCConfig

    policy.config.rtc_config = RTCConfig(enabled=enabled, **settings)
    policy.init_rtc_processor()


def test_switched_off_or_with_nothing_left_the_policy_answers_as_ever(policy):
    from test_xvla_lerobot import batch_of as lerobot_batch

    batch, noise, rest = lerobot_batch(), torch.randn(2, STEPS, 14), torch.rand(12, 14)
    plain = policy.predict_action_chunk(batch, noise)
    asked = dict(inference_delay=3, prev_chunk_left_over=rest)
    assert torch.equal(policy.predict_action_chunk(batch, noise, **asked), plain)
    turn_on(policy, enabled=False)
    assert torch.equal(policy.predict_action_chunk(batch, noise, **asked), plain)
    turn_on(policy)
    for nothing in (None, torch.zeros(0, 14), torch.zeros(10, 14)):
        assert torch.equal(policy.predict_action_chunk(batch, noise, prev_chunk_left_over=nothing), plain)
    padded = torch.cat([rest[:4], torch.zeros(6, 14)])  # as LeRobot's rollout pads what is left
    for left in (rest[:4], padded):
        guided = policy.predict_action_chunk(batch, noise, inference_delay=3, prev_chunk_left_over=left)
        assert torch.equal(guided[:, :3], rest[:3].expand(2, -1, -1)) and not torch.equal(guided[:, 3:], plain[:, 3:])
    assert torch.equal(policy.predict_action_chunk(batch, noise, 3, padded), guided)


def test_select_action_goes_on_from_the_rest_of_its_last_chunk(policy):
    """As in lerobot-eval: without real-time chunking two chunks differ where they overlap, with it hardly."""
    from test_xvla_lerobot import batch_of as lerobot_batch

    batch = lerobot_batch()

    def jump() -> float:
        policy.reset()
        played = [policy.select_action(batch, torch.randn(2, STEPS, 14)) for _ in range(16)]
        return float((played[8] - rests[-1][:, 0])[:, list(range(6))].abs().mean())

    rests: list[torch.Tensor] = []
    predict = policy.predict_action_chunk

    def remember(*arguments, **keywords):
        chunk = predict(*arguments, **keywords)
        if len(policy._queue) == 0 and policy._rest is None:
            rests.append(chunk[:, 8:])
        return chunk

    policy.predict_action_chunk = remember
    torch.manual_seed(0)
    without = jump()
    turn_on(policy)
    torch.manual_seed(0)
    assert jump() < 0.4 * without


def test_lerobots_rollout_plays_chunks_that_join(policy):
    """LeRobot's own asynchronous engine drives the policy; the chunks it merges go on from one another."""
    from lerobot.policies.factory import make_pre_post_processors
    from lerobot.policies.rtc import RTCConfig
    from lerobot.rollout.inference.rtc import RTCInferenceEngine, supports_rtc_inference

    assert supports_rtc_inference(policy)
    turn_on(policy, execution_horizon=12)
    before, after = make_pre_post_processors(policy.config, dataset_stats={})
    joints = [f"joint_{i}.pos" for i in range(14)]
    image = {"dtype": "video", "shape": (48, 64, 3), "names": ["height", "width", "channels"]}
    features = {
        "observation.state": {"dtype": "float32", "shape": (14,), "names": joints},
        "observation.images.front": image,
        "observation.images.wrist": image,
    }
    robot = SimpleNamespace(robot_type="arms", action_features=dict.fromkeys(joints, float))
    engine = RTCInferenceEngine(
        policy, before, after, robot, RTCConfig(execution_horizon=12), features, "push the cart", fps=20.0,
        device="cpu", rtc_queue_threshold=12,
    )  # fmt: skip
    frame = np.zeros((48, 64, 3), np.uint8)
    asked, predict = [], policy.predict_action_chunk

    def note(batch, inference_delay, prev_chunk_left_over):
        chunk = predict(batch, inference_delay=inference_delay, prev_chunk_left_over=prev_chunk_left_over)
        asked.append((inference_delay, prev_chunk_left_over, chunk[0].clone()))
        return chunk

    policy.predict_action_chunk = note
    engine.start()
    engine.notify_observation(dict.fromkeys(joints, 0.1) | {"front": frame, "wrist": frame})
    engine.resume()
    played, deadline = [], time.monotonic() + 60
    while len(played) < 40 and time.monotonic() < deadline and not engine.failed:
        action = engine.get_action(None)
        if action is not None:
            played.append(action)
        time.sleep(0.05)
    engine.stop()
    assert len(played) == 40 and not engine.failed and torch.stack(played).isfinite().all()
    later = [(delay, rest, chunk) for delay, rest, chunk in asked if rest is not None]
    assert len(later) >= 2 and any(delay > 0 for delay, _, _ in later)
    for delay, rest, chunk in later:
        repeated = min(delay, int(rest.abs().amax(1).count_nonzero()))
        assert torch.equal(chunk[:repeated], rest[:repeated])
