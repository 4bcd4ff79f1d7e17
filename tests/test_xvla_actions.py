"""Laws of action spaces: decode inverts encode, padding and missing entries never matter, nothing is cut off."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from wbvla.types import FLAGS, GRIPPER, HEIGHT
from wbvla.xvla.actions import ActionSpace, Part, make_action_space, register_action_space
from wbvla.xvla.config import Domain
from xvla_world import CHUNK, HUMANOID

DIMS = {"ee6d": 20, "agibot_ee6d": 20, "joint": 14, "franka_joint7": 7, "so101_bimanual": 12, "auto": 43}
DOMAINS = {name: Domain(0, name, dim, 20) for name, dim in DIMS.items()} | {
    "whole_body": replace(HUMANOID, masked_actions=())
}


def actions_of(domain: Domain) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    actions = torch.rand((2, CHUNK, domain.action_dim), generator=g)
    if domain.action == "whole_body":
        actions[..., FLAGS] = torch.randint(-1, 2, (2, CHUNK, 3), generator=g).float()
    return actions


def certain(space: ActionSpace, target: torch.Tensor) -> torch.Tensor:
    """The prediction of a network that knows the target: its values, and logits that leave no doubt."""
    prediction = target.clone()
    for part in space.parts:
        if part.kind == "switch":
            prediction[..., part.slots] = torch.logit(target[..., part.slots].double()).float()
        if part.kind == "choice":
            prediction[..., part.slots] = 100.0 * target[..., part.slots]
    return prediction


@pytest.mark.parametrize("name", DOMAINS)
def test_decode_inverts_encode(name):
    space, actions = make_action_space(DOMAINS[name]), actions_of(DOMAINS[name])
    a = space.action_dim
    space.set_statistics(torch.linspace(-1, 1, a), torch.linspace(0.5, 2, a))
    target = space.encode(actions)
    assert target.shape == (2, CHUNK, space.width)
    torch.testing.assert_close(space.decode(certain(space, target)), actions, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", DOMAINS)
def test_every_entry_and_no_padded_step_enters_the_loss(name):
    space, actions = make_action_space(DOMAINS[name]), actions_of(DOMAINS[name])
    prediction = certain(space, space.encode(actions)).requires_grad_()
    padded = torch.zeros(2, CHUNK, dtype=torch.bool)
    padded[1, 2:] = True
    total = sum(space.losses(prediction + 0.1, space.encode(actions), padded).values())
    assert total.shape == (2,)
    spare = [slot for part in space.parts if part.kind == "spare" for slot in part.slots]
    total.sum().backward()
    moved = prediction.grad[0].abs().sum(0) > 0
    assert moved.sum() == space.width - len(spare) and not moved[spare].any()
    assert torch.equal((prediction.grad != 0).any(-1), ~padded)


def test_statistics_bring_values_to_unit_scale_and_leave_logits_alone():
    space = make_action_space(DOMAINS["whole_body"])
    actions = actions_of(DOMAINS["whole_body"])
    space.set_statistics(actions.mean((0, 1)), actions.std((0, 1)))
    target = space.encode(actions)
    torch.testing.assert_close(target[..., :14].mean((0, 1)), torch.zeros(14), atol=1e-5, rtol=0)
    assert set(target[..., 16:25].unique().tolist()) == {0.0, 1.0}
    assert torch.equal(target[..., GRIPPER], actions[..., GRIPPER])
    with pytest.raises(ValueError, match="action mean: got 3 numbers, expected 20"):
        space.set_statistics([0.0] * 3, [1.0] * 20)


def test_logits_and_last_command_are_hidden_from_the_network():
    space = make_action_space(DOMAINS["whole_body"])
    noisy, state = space.hide(torch.ones(2, CHUNK, space.width), torch.ones(2, 68))
    assert (noisy[..., 14:25] == 0).all() and (noisy[..., :14] == 1).all() and (noisy[..., 25] == 1).all()
    assert (state[:, -4:] == 0).all() and (state[:, :-4] == 1).all()


def test_masked_grippers_enter_neither_loss_nor_answer():
    space, actions = make_action_space(HUMANOID), actions_of(HUMANOID)
    target, other = space.encode(actions), actions.clone()
    other[..., GRIPPER] = 1e9
    assert torch.equal(space.encode(other), target)
    answer = space.decode(torch.ones(2, CHUNK, space.width))
    assert (answer[..., GRIPPER] == 0).all() and (answer[..., HEIGHT] == 1).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action": "ee6d", "action_dim": 29}, "got 29 entries, expected 20 for 'ee6d'; 'auto' takes any number"),
        ({"action": "auto", "action_dim": 29, "action_width": 20}, "nothing is cut off"),
        ({"action": "joints"}, "got 'joints', expected one of agibot_ee6d, auto"),
        ({"action": "ee6d", "state_dim": 8}, "state: got 8 entries, expected .* at least 20 for 'ee6d'"),
        ({"action": "joint", "action_dim": 14, "action_width": 20}, "action_width: got 20, expected 14"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        make_action_space(replace(Domain(0, "auto", 20, 20), **change))


def test_grippers_and_choices_out_of_range_are_refused():
    low, high = torch.full((14,), -50.0), torch.full((14,), 50.0)
    low[[6, 13]], high[[6, 13]] = 0.0, 1.0
    arms = make_action_space(Domain(0, "joint", 14, 14))
    arms.require_range(low, high)
    high[13] = 100.0  # LeRobot's SO-101 records per cent
    with pytest.raises(ValueError, match="entry 13: got values from 0 to 100, expected 0 to 1 .*rescale"):
        arms.require_range(low, high)
    least, most = torch.zeros(20), torch.zeros(20)
    least[16] = -2.0
    with pytest.raises(ValueError, match="entry 16: got values from -2 to 0, expected -1 to 1"):
        make_action_space(HUMANOID).require_range(least, most)


def test_a_new_space_registers_from_outside():
    @register_action_space("two_hands")
    def two_hands(domain: Domain) -> ActionSpace:
        hands = Part("value", range(24), weight=2.0)
        return ActionSpace(26, [hands, Part("choice", (24,), slots=range(24, 27)), Part("switch", (25,), slots=(27,))])

    space = make_action_space(Domain(0, "two_hands", 26, 10))
    assert space.width == 28 and len(space.losses(*2 * [space.encode(torch.rand(1, CHUNK, 26))])) == 3
    with pytest.raises(ValueError, match="already registered"):
        register_action_space("two_hands")(two_hands)
    with pytest.raises(ValueError, match="share an entry"):
        ActionSpace(3, [Part("value", (0, 1)), Part("switch", (1,))])


def test_a_new_space_of_another_package_is_found(tmp_path, monkeypatch):
    package = tmp_path / "theirs-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[wbvla.action_spaces]\ntheir_hand = their_spaces\n")
    (tmp_path / "their_spaces.py").write_text(
        "from wbvla.xvla.actions import ActionSpace, Part, register_action_space\n"
        "register_action_space('their_hand')(lambda domain: ActionSpace(5, [Part('value', range(5))]))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert make_action_space(Domain(0, "their_hand", 5, 0)).width == 5


def test_choices_are_drawn_as_predicted_and_once_a_chunk():
    space = make_action_space(DOMAINS["whole_body"])
    n, odds = 4000, torch.tensor([0.2, 0.5, 0.3])
    prediction = torch.zeros(n, CHUNK, space.width)
    part = next(part for part in space.parts if part.kind == "choice")
    prediction[..., part.slots] = odds.log().repeat(len(part.entries))
    noise = torch.randn(n, CHUNK, space.width, generator=torch.Generator().manual_seed(0))
    flags = space.decode(prediction, noise)[..., part.entries]
    assert torch.equal(flags, flags[:, :1].expand_as(flags))
    for value, share in zip((-1, 0, 1), odds):
        assert ((flags[:, 0] == value).float().mean(0) - share).abs().max() < 0.03
    together = torch.corrcoef(flags[:, 0].T)
    assert (together - torch.eye(len(part.entries))).abs().max() < 0.06
    certain_of = certain(space, space.encode(actions_of(DOMAINS["whole_body"])))
    assert torch.equal(
        space.decode(certain_of, noise[: len(certain_of)])[..., part.entries],
        space.decode(certain_of)[..., part.entries],
    )
