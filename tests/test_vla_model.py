"""Laws of the VLA's model: what may and what may not change its losses and answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vla_world import SMALL, batch_of
from wbvla.types import FLAGS, GRIPPER
from wbvla.vla.augment import augment
from wbvla.vla.config import VlaConfig
from wbvla.vla.model import WholeBodyVla
from wbvla.vla.text import MAX_WORDS, tokenize


@pytest.fixture
def model() -> WholeBodyVla:
    torch.manual_seed(0)
    return WholeBodyVla(SMALL).eval()


def same_losses(model, a, b) -> bool:
    one, two = model.losses(a), model.losses(b)
    return all(torch.equal(one[name], two[name]) for name in one)


def test_padding_never_matters(model):
    batch, other = batch_of(5), batch_of(5)
    other["actions"][other["padded"]] = float("nan")
    assert same_losses(model, batch, other)
    changed = {**batch, "actions": batch["actions"].clone()}
    changed["actions"][:, 0] += 1.0  # the first step is never padding
    assert not same_losses(model, batch, changed)


def test_masked_grippers_enter_neither_loss_nor_answer(model):
    batch, other = batch_of(5), batch_of(5)
    other["actions"][..., GRIPPER] = 1e9
    assert same_losses(model, batch, other)
    answer = model(batch["images"], batch["tokens"], batch["state"]).actions
    assert (answer[..., GRIPPER] == 0).all()


def test_missing_codes_never_matter(model):
    batch = batch_of(4)
    batch["codes"][2:] = -1
    part = {name: tensor[:2] for name, tensor in batch.items()}
    for name in ("code_loss", "mani_accuracy", "loco_accuracy"):
        torch.testing.assert_close(model.losses(batch)[name], model.losses(part)[name])
    batch["codes"][:] = -1
    assert model.losses(batch)["code_loss"] == 0.0


def test_image_state_and_sentence_each_matter_where_they_should(model):
    batch = batch_of(3)
    seen = model(batch["images"], batch["tokens"], batch["state"])
    blind = model(torch.zeros_like(batch["images"]), batch["tokens"], batch["state"])
    told = model(batch["images"], torch.from_numpy(tokenize(["stand still"] * 3)), batch["state"])
    moved = model(batch["images"], batch["tokens"], batch["state"] + 1.0)
    assert not torch.allclose(seen.code_logits, blind.code_logits)
    assert not torch.allclose(seen.code_logits, told.code_logits)
    assert torch.equal(seen.code_logits, moved.code_logits)  # the state enters the decoder only
    assert not torch.allclose(seen.actions, moved.actions)


def test_the_last_command_is_invisible_when_always_dropped(model):
    batch = batch_of(3)
    other = batch["state"].clone()
    other[:, -4:] += 1.0
    answers = [model(batch["images"], batch["tokens"], state).actions for state in (batch["state"], other)]
    assert torch.equal(*answers)


def test_flags_are_drawn_from_their_distribution_once_a_chunk(model):
    n, chances = 2000, torch.tensor([0.2, 0.5, 0.3])
    batch = batch_of(1)
    state = batch["state"] + torch.randn(n, 1, generator=torch.Generator().manual_seed(0))
    decode = model.decoder.forward

    def even(*args):
        chunk = decode(*args)
        return chunk._replace(flag_logits=chances.log().expand_as(chunk.flag_logits))

    model.decoder.forward = even
    try:
        flags = model(batch["images"].expand(n, -1, -1, -1), batch["tokens"].expand(n, -1), state).actions[..., FLAGS]
    finally:
        del model.decoder.forward
    assert (flags == flags[:, :1]).all()
    for axis in range(3):
        shares = torch.stack([(flags[:, 0, axis] == value).float().mean() for value in (-1, 0, 1)])
        torch.testing.assert_close(shares, chances, atol=0.04, rtol=0.0)
    both = (flags[:, 0, 0] == 0) & (flags[:, 0, 1] == 0)
    assert abs(float(both.float().mean()) - 0.25) < 0.04  # each axis draws for itself


def test_flags_are_ternary_and_statistics_come_back_in_physical_units():
    torch.manual_seed(0)
    model = WholeBodyVla(SMALL).eval()
    mean, std = np.linspace(-1, 1, 20), np.full(20, 0.5)
    model.set_statistics(np.zeros(68), np.ones(68), mean, std)
    batch = batch_of(4)
    actions = model(batch["images"], batch["tokens"], batch["state"]).actions
    assert set(actions[..., FLAGS].unique().tolist()) <= {-1.0, 0.0, 1.0}
    # an untrained head answers about zero in normalised units
    assert (actions[..., :14] - torch.as_tensor(mean[:14])).abs().max() < 0.5
    with pytest.raises(ValueError, match="state_mean: got 3 numbers, expected 68"):
        model.set_statistics(np.zeros(3), np.ones(68), mean, std)


def test_samples_of_a_batch_do_not_influence_each_other(model):
    batch = batch_of(4)
    together = model(batch["images"], batch["tokens"], batch["state"]).actions
    alone = model(batch["images"][1:2], batch["tokens"][1:2], batch["state"][1:2]).actions
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-5)


def test_randomness_is_the_generators(model):
    model.train()
    batch = batch_of(4)
    draw = [model.losses(batch, torch.Generator().manual_seed(seed))["loss"].item() for seed in (1, 1, 2)]
    assert draw[0] == draw[1] != draw[2]


def test_augmentation_shifts_without_wrapping_and_keeps_the_range():
    images = torch.zeros(64, 32, 32, 3, dtype=torch.uint8)
    images[:, :, 16:] = 200
    moved = augment(images, 4, 0.0, 0.0, torch.Generator().manual_seed(0))
    edges = (moved[:, 0, :, 0] > 100).float().argmax(1)
    assert set(edges.tolist()) == set(range(12, 21))
    assert (moved[:, :, -1] == 200).all() and (moved[:, :, 0] == 0).all()
    bright = augment(images, 0, 0.5, 0.2, torch.Generator().manual_seed(0))
    assert 0 <= bright.min() and bright.max() <= 255 and bright[:, 0, -1].std() > 1


def test_words_decide_tokens():
    rows = tokenize(["Push the cart!", "push THE cart", "pull the cart", "", "a " * 99])
    assert rows.shape == (5, MAX_WORDS) and (rows[0] == rows[1]).all()
    assert (rows[0] != rows[2]).sum() == 1 and (rows[3] > 0).sum() == 1 and (rows[4] > 0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 90}, "image_size: got 90"),
        ({"width": 30, "heads": 4}, "width: got 30"),
        ({"masked_actions": (16,)}, "masked_actions"),
        ({"state_dropout": 1.5}, "state_dropout: got 1.5"),
        ({"width": "wide"}, "width: got 'wide', expected int"),
        ({"width": -128}, "width: got -128"),
        ({"heads": 0}, "heads: got 0"),
        ({"layers": 2.5}, "layers: got 2.5, expected int"),
        ({"colour": None}, "colour: got None, expected float"),
    ],
)
def test_impossible_configurations_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        VlaConfig(**change)


def test_the_tiny_recipe_fits_one_core():
    from wbvla.recipes.vla import vla_tiny

    model = WholeBodyVla(vla_tiny())
    assert 0.5e6 < sum(p.numel() for p in model.parameters()) < 2e6
