"""Laws of the X-VLA model: what may and what may not change its losses and actions."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from wbvla.xvla.batches import arrange_views, mix
from wbvla.xvla.config import Domain, XvlaConfig
from wbvla.xvla.model import Xvla
from xvla_world import ARMS, CHUNK, PAD, ROBOTS, SIZE, TEXT, TRUNK, batch_of, small

VARIANTS = [("clean", "bidirectional"), ("clean", "prefix"), ("velocity", "bidirectional"), ("velocity", "prefix")]
CLOSE = dict(atol=1e-5, rtol=1e-5)


def make(objective: str = "clean", attention: str = "prefix", **changes) -> Xvla:
    torch.manual_seed(0)
    return Xvla(small(objective=objective, attention=attention, **changes)).eval()


def noise_of(model: Xvla, n: int = 3) -> torch.Tensor:
    width = max(head.space.width for head in model.domains.values())
    return torch.randn(n, CHUNK, width, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("mask_padding", [True, False])
@pytest.mark.parametrize(("objective", "attention"), VARIANTS)
def test_a_mixed_batch_equals_separate_ones(objective, attention, mask_padding):
    model = make(objective, attention, mask_padding=mask_padding)
    batches = {name: batch_of(name, 2, seed) for seed, name in enumerate(ROBOTS)}
    mixed = mix(list(batches.values()), PAD)
    noise, t = noise_of(model, 6), torch.linspace(0.1, 0.9, 6)
    together, actions = model.losses(mixed, noise, t), model.sample(mixed, 3, noise)
    alone = []
    for i, (name, batch) in enumerate(batches.items()):
        rows, head = slice(2 * i, 2 * i + 2), model.domains[name]
        own = noise[rows, :, : head.space.width]
        alone.append(model.losses(batch, own, t[rows]))
        a = head.domain.action_dim
        torch.testing.assert_close(actions[rows, :, :a], model.sample(batch, 3, own), **CLOSE)
        assert (actions[rows, :, a:] == 0).all()
    for kind in together:
        mean = torch.stack([part[kind] for part in alone if kind in part]).mean()
        torch.testing.assert_close(together[kind], mean, **CLOSE)


@pytest.mark.parametrize(("objective", "attention"), VARIANTS)
def test_padding_never_matters(objective, attention):
    model, batch = make(objective, attention), batch_of("arms")
    noise, t = noise_of(model)[..., :14], torch.linspace(0.1, 0.9, 3)
    batch["views"] = torch.tensor([[True, True], [True, False], [True, True]])
    other = {**batch, "images": batch["images"].clone(), "actions": batch["actions"].clone()}
    other["images"][1, 1] = 255
    other["actions"][batch["padded"]] = float("nan")
    other["tokens"] = torch.nn.functional.pad(batch["tokens"], (0, TEXT - batch["tokens"].shape[1]), value=PAD)
    other["images"] = torch.nn.functional.pad(
        other["images"], (0, 0) * 3 + (0, 1), value=9
    )  # a third camera, not there
    other["views"] = torch.nn.functional.pad(batch["views"], (0, 1), value=False)
    noisier = noise.clone()
    noisier[batch["padded"]] = 7.0
    model.losses(other, noisier, t)["loss"].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    torch.testing.assert_close(model.losses(batch, noise, t), model.losses(other, noisier, t), **CLOSE)
    torch.testing.assert_close(model.sample(batch, 2, noise), model.sample(other, 2, noise), **CLOSE)


@pytest.mark.parametrize("objective", ["clean", "velocity"])
def test_cached_equals_uncached(objective):
    """A prefix cache is one long sequence in which context tokens cannot see the actions."""
    model = make(objective)
    batch, noise = batch_of("arms"), noise_of(model)[..., :14]
    cached = model.sample(batch, 4, noise)

    def whole(actions, cache, mask):
        transformer, n = model.transformer, actions.shape[1]
        context = model._context(batch, model._groups(batch)).tokens
        x = torch.cat([actions + transformer.pos_emb[:, :n], context], dim=1)
        rows = torch.ones(1, 1, x.shape[1], x.shape[1], dtype=torch.bool)
        rows[:, :, n:, :n] = False
        for block in transformer.blocks:
            x, _ = block(x, x.shape[1], mask & rows)
        return transformer.norm(x[:, :n])

    model.transformer.read_actions = whole
    torch.testing.assert_close(model.sample(batch, 4, noise), cached, **CLOSE)


def test_image_sentence_state_and_robot_each_matter():
    for objective, attention in VARIANTS:
        model, batch = make(objective, attention), batch_of("arms")
        noise = noise_of(model)[..., :14]
        seen = model.sample(batch, 3, noise)
        for key, value in (
            ("images", 255 - batch["images"]),
            ("tokens", batch["tokens"].flip(1)),
            ("state", batch["state"] + 1.0),
        ):
            assert not torch.allclose(seen, model.sample({**batch, key: value}, 3, noise)), key
        model.add_domain("twin", Domain(40, "joint", 14, 14, ARMS.cameras), like="arms")
        twins = {**batch, "domains": ["twin"] * 3}
        assert torch.equal(seen, model.sample(twins, 3, noise))
        model.domains["twin"].prompt.data.normal_()
        assert not torch.allclose(seen, model.sample(twins, 3, noise))


def test_noise_and_seed_decide():
    model, batch = make(), batch_of("arms")
    draw = [model.sample(batch, 2, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draw[0], draw[1]) and not torch.allclose(draw[0], draw[2])
    losses = [model.losses(batch, generator=torch.Generator().manual_seed(seed))["loss"].item() for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]
    steps = [model.sample(batch, steps, noise_of(model)[..., :14]) for steps in range(1, 11)]
    assert all(not torch.equal(a, b) for a, b in pairwise(steps))


@pytest.mark.parametrize("objective", ["clean", "velocity"])
def test_a_network_that_knows_the_answer_has_no_loss_and_answers_it(objective):
    """Objective, targets, sampler and inverse agree: with an oracle in the network's place nothing is lost."""
    model, batch = make(objective), batch_of("g1")
    space = model.domains["g1"].space
    space.set_statistics(torch.full((20,), 0.5), torch.full((20,), 0.3))
    actions = batch["actions"].clone()
    actions[..., 14:16] = 0.0
    target = space.encode(actions)

    def oracle(batch, groups, context, noisy, t, padded):
        velocity = (noisy - target) / t.view(-1, 1, 1)
        flowing = velocity if objective == "velocity" else target
        return torch.where(space.flows, flowing, 100.0 * target)  # the rest are logits

    model._network = oracle
    losses = model.losses(batch, noise_of(model), torch.linspace(0.1, 0.9, 3))
    torch.testing.assert_close(losses["loss"], torch.zeros(()), atol=1e-6, rtol=0)
    for steps in (1, 3, 10):
        torch.testing.assert_close(model.sample(batch, steps, noise_of(model)), actions, atol=1e-4, rtol=0)


def test_dropping_a_camera_is_not_the_same_as_a_black_one():
    images = {"front": torch.zeros(2, SIZE, SIZE, 3), "wrist": torch.zeros(2, SIZE, SIZE, 3)}
    stacked, there = arrange_views(ARMS, {"wrist": images["wrist"]})
    assert stacked.shape == (2, 2, SIZE, SIZE, 3) and there.tolist() == [[False, True]] * 2
    model, batch = make(), batch_of("arms", 2)
    noise = noise_of(model, 2)[..., :14]
    answers = []
    for there in (arrange_views(ARMS, images), arrange_views(ARMS, {"front": images["front"]})):
        answers.append(model.sample({**batch, "images": there[0], "views": there[1]}, 2, noise))
    assert not torch.allclose(*answers)
    with pytest.raises(ValueError, match="unknown camera head, expected one or more of front, wrist"):
        arrange_views(ARMS, {"head": images["front"]})


def test_bad_batches_are_refused():
    model = make()

    def refused(message, name="arms", **changes):
        batch = {**batch_of(name), **changes}
        with pytest.raises(ValueError, match=message):
            model.losses({k: v for k, v in batch.items() if v is not None})

    refused("domains: missing from the batch", domains=None)
    refused(r"domain: got 'x2', expected one of g1 \(30\), arms \(31\)", domains=["x2"] * 3)
    refused("domain: got 0, expected one of", domains=torch.zeros(3, dtype=torch.long))
    refused("domains: got 1, expected one for each of 3", domains=["arms"])
    refused("state: got 3 entries, expected 14 for arms", state=torch.zeros(3, 3))
    refused("actions: got 20 entries, expected 14 for arms", actions=torch.zeros(3, CHUNK, 20))
    refused(f"actions: got 2 steps, expected {CHUNK}", actions=torch.zeros(3, 2, 14), padded=None)
    refused("images: got", images=torch.zeros(3, 2, 48, 48, 3))
    refused("a sample without any view", views=torch.tensor([[True, False], [False, False], [True, True]]))
    refused(f"sentence: got 40 tokens, expected at most {TEXT}", tokens=torch.ones(3, 40, dtype=torch.long))
    with pytest.raises(ValueError, match="steps: got 0"):
        model.sample(batch_of("arms"), 0)
    with pytest.raises(ValueError, match="noise: got"):
        model.sample(batch_of("arms"), 1, torch.zeros(3, CHUNK, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"domains": {}}, "domains: got none"),
        ({"domains": {"a": ARMS, "b": ARMS}}, "id 31 is taken by 'a'"),
        ({"domains": {"A b": ARMS}}, "expected lower-case"),
        ({"objective": "noise"}, "objective: got 'noise', expected clean or velocity"),
        ({"heads": 5}, "hidden_size: got 32"),
        ({"depth": 0}, "depth: got 0"),
    ],
)
def test_impossible_configurations_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        small(**{"domains": ROBOTS, **change})


def test_the_configuration_survives_json():
    import json

    config = small()
    assert XvlaConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(ValueError, match="unknown or missing keys depht"):
        XvlaConfig.from_dict({**config.to_dict(), "depht": 1})


@pytest.mark.parametrize("attention", ["bidirectional", "prefix"])
def test_the_vla_trunk_sees_by_the_same_laws(attention):
    """Mixed equals separate, padding never matters, and picture and sentence do, with the other encoder."""
    model = make(attention=attention, **TRUNK)
    batches = [{**b, "tokens": b["tokens"] * (b["tokens"] != PAD)} for b in (batch_of("g1", 2), batch_of("franka", 2))]
    noise, t = noise_of(model, 4), torch.linspace(0.1, 0.9, 4)
    actions = model.sample(mix(batches, 0), 3, noise)
    together, alone = model.losses(mix(batches, 0), noise, t), []
    for i, (batch, width, a) in enumerate(zip(batches, (26, 7), (20, 7))):
        rows = slice(2 * i, 2 * i + 2)
        own = noise[rows, :, :width]
        alone.append(model.losses(batch, own, t[rows])["loss"])
        torch.testing.assert_close(actions[rows, :, :a], model.sample(batch, 3, own), **CLOSE)
    torch.testing.assert_close(together["loss"], torch.stack(alone).mean(), **CLOSE)
    batch, noise = {**batches[1], "views": torch.tensor([[True, False, True]] * 2)}, noise[:2, :, :7]
    seen = model.sample(batch, 2, noise)
    images = batch["images"].clone()
    images[:, 1] = 255
    torch.testing.assert_close(model.sample({**batch, "images": images}, 2, noise), seen, **CLOSE)
    for key, other in (("images", 255 - batch["images"]), ("tokens", batch["tokens"].flip(1))):
        assert not torch.allclose(model.sample({**batch, key: other}, 2, noise), seen), key
    with pytest.raises(ValueError, match="trunk: got images of 64 px and tokenizer 'words', expected 32 px"):
        make(**TRUNK, image_size=64)
    with pytest.raises(ValueError, match="encoder: got both florence and trunk"):
        small(trunk=TRUNK["trunk"])
