"""Action spaces. In: a dataset's action vectors. Out: what the network predicts, its loss, and the way back.

Shape letters: B batch, T chunk steps, A entries of the dataset's action, W slots of the network's vector, S state.
An action space is a list of parts; each says which entries it covers and how they are learned. A new one is registered
from anywhere; the command line finds it where a package has an entry point of its name in "wbvla.action_spaces":

    @register_action_space("two_arms")
    def two_arms(domain):
        return ActionSpace(14, [Part("value", range(0, 12)), Part("switch", (12, 13), weight=0.1)])
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import entry_points
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wbvla.types import ACTION_DIM, ARM, FLAGS, GRIPPER, HEIGHT, N_STATE_COMMAND
from wbvla.xvla.config import Domain

STD_FLOOR = 0.02  # rad or m: entries that hardly move must not have their noise blown up
LOSS_NAMES = {"value": "flow_matching", "switch": "gripper_bce", "choice": "flag_cross_entropy"}


class Part:
    """Entries of an action that are learned in the same way.

    Args:
        kind: "value" is regressed by the flow (squared error); "switch" is a number in [0, 1] predicted as one logit
            (binary cross-entropy); "choice" is -1, 0 or 1 predicted as three logits (cross-entropy); "spare" are slots
            of released weights that this robot does not use: noise passes through them, nothing is learned.
        entries: of the dataset's action; empty for "spare".
        weight: of the loss, which is a mean over entries, steps and samples.
        slots: of the network's vector; the same numbers as `entries` when left out.
    """

    def __init__(
        self,
        kind: Literal["value", "switch", "choice", "spare"],
        entries: Iterable[int],
        weight: float = 1.0,
        slots: Iterable[int] | None = None,
    ) -> None:
        self.kind, self.entries, self.weight = kind, list(entries), weight
        self.slots = list(self.entries if slots is None else slots)
        wanted = {"choice": 3 * len(self.entries), "spare": len(self.slots)}.get(kind, len(self.entries))
        if len(self.slots) != wanted:
            raise ValueError(f"{kind} part: got {len(self.slots)} slots, expected {wanted}")

    def target(self, action: Tensor) -> Tensor:
        """Return what the slots should be for actions (..., A): values, 0/1 labels, or one-hot choices."""
        values = action[..., self.entries]
        if self.kind == "choice":
            return F.one_hot(values.nan_to_num().round().clamp(-1, 1).long() + 1, 3).flatten(-2).to(action.dtype)
        return values if self.entries else action.new_zeros(*action.shape[:-1], len(self.slots))

    def error(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the unweighted loss (..., n) of slots that the network predicted."""
        if self.kind == "value":
            return (prediction - target).square()
        if self.kind == "switch":
            return F.binary_cross_entropy_with_logits(prediction, target, reduction="none")
        logits, labels = prediction.unflatten(-1, (-1, 3)), target.unflatten(-1, (-1, 3))
        return -(labels * logits.log_softmax(-1)).sum(-1)

    def read(self, prediction: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the entries that predicted slots (..., T, n) stand for; see `ActionSpace.decode`."""
        if self.kind == "switch":
            return prediction.sigmoid()
        if self.kind != "choice":
            return prediction
        logits = prediction.unflatten(-1, (-1, 3))
        if noise is None:
            return logits.argmax(-1).to(prediction.dtype) - 1.0
        draw = torch.special.ndtr(noise[..., :1, ::3])  # of the chunk's first step: uniform in [0, 1], one a choice
        up_to = logits.softmax(-1).cumsum(-1)[..., :2]  # chance of -1, and of -1 or 0
        return (draw.unsqueeze(-1) > up_to).sum(-1).to(prediction.dtype) - 1.0


class ActionSpace(nn.Module):
    """Loss, normalisation and inverse of one robot's actions.

    Slots that no value flows through (logits, and entries the robot does not have) are zero in the network's input:
    they are predicted outright, never denoised.

    Args:
        action_dim: A, entries of the dataset's action.
        parts: what they are; entries in no part are 0 in answers and absent from the loss.
        width: W, slots of the network's vector; as many as the parts need when left out.
        hidden_state: entries of the state that the network may not see; negative ones count from the end.
        normalised: values are brought to zero mean and unit deviation by the dataset's statistics. False where the
            weights of the loss already do that.
    """

    def __init__(
        self,
        action_dim: int,
        parts: Sequence[Part],
        width: int | None = None,
        hidden_state: Sequence[int] = (),
        normalised: bool = True,
    ) -> None:
        super().__init__()
        self.action_dim, self.parts, self.normalised = action_dim, [p for p in parts if p.slots], normalised
        self.hidden_state = list(hidden_state)
        slots = [slot for part in self.parts for slot in part.slots]
        self.width = width or max(slots) + 1
        entries = [entry for part in self.parts for entry in part.entries]
        if len(set(slots)) != len(slots) or len(set(entries)) != len(entries):
            raise ValueError("action space: two parts share an entry or a slot")
        if max(slots) >= self.width or max(entries) >= action_dim:
            raise ValueError(f"action space: parts reach past {action_dim} entries or {self.width} slots")
        flowing = [slot for part in self.parts if part.kind in ("value", "spare") for slot in part.slots]
        flows = torch.zeros(self.width, dtype=torch.bool)
        flows[flowing] = True
        self.register_buffer("flows", flows, persistent=False)
        self.register_buffer("mean", torch.zeros(action_dim))
        self.register_buffer("std", torch.ones(action_dim))

    def set_statistics(self, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor) -> None:
        """Take mean and standard deviation (A,) of the dataset's actions; ignored unless `normalised`.

        Raises:
            ValueError: a length does not fit or a number is not finite.
        """
        for name, values in (("mean", mean), ("std", std)):
            vector = torch.as_tensor(values, dtype=torch.float32).flatten()
            if len(vector) != self.action_dim or not vector.isfinite().all():
                raise ValueError(f"action {name}: got {len(vector)} numbers, expected {self.action_dim} finite ones")
            if self.normalised:
                getattr(self, name).copy_(vector.clamp_min(STD_FLOOR) if name == "std" else vector)

    def require_range(self, low: Sequence[float] | Tensor, high: Sequence[float] | Tensor) -> None:
        """Raise ValueError if least and largest actions (A,) leave what grippers and choices lie between."""
        low, high = torch.as_tensor(low).flatten(), torch.as_tensor(high).flatten()
        for part in self.parts:
            least = {"switch": 0.0, "choice": -1.0}.get(part.kind)
            if least is None:
                continue
            for entry in part.entries:
                got = float(low[entry]), float(high[entry])
                if got[0] < least - 1e-3 or got[1] > 1.0 + 1e-3:
                    raise ValueError(
                        f"action: entry {entry}: got values from {got[0]:g} to {got[1]:g}, expected {least:g} to 1 in "
                        "this action space; rescale the dataset, or use 'auto'"
                    )

    def encode(self, action: Tensor) -> Tensor:
        """Turn actions (..., A) into what the network should predict, (..., W)."""
        slots = action.new_zeros(*action.shape[:-1], self.width)
        for part in self.parts:
            source = (action - self.mean) / self.std if part.kind == "value" else action
            slots[..., part.slots] = part.target(source)
        return slots

    def decode(self, prediction: Tensor, noise: Tensor | None = None) -> Tensor:
        """Turn predictions (..., T, W) into actions (..., T, A): the inverse of `encode`.

        Args:
            noise: (..., T, W) standard normal. With it, choices are drawn from what was predicted, once a chunk, as
                values are drawn by the flow; without it, each is the likeliest.
        """
        action = prediction.new_zeros(*prediction.shape[:-1], self.action_dim)
        for part in self.parts:
            if part.entries:
                values = part.read(prediction[..., part.slots], None if noise is None else noise[..., part.slots])
                if part.kind == "value":
                    values = values * self.std[part.entries] + self.mean[part.entries]
                action[..., part.entries] = values
        return action

    def hide(self, noisy: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Blank the slots (..., W) that are not denoised and the state entries (B, S) that may not be seen."""
        if self.hidden_state and state.shape[-1]:
            state = state.clone()
            state[..., self.hidden_state] = 0.0
        return torch.where(self.flows, noisy, 0.0), state

    def losses(self, prediction: Tensor, target: Tensor, padded: Tensor | None = None) -> dict[str, Tensor]:
        """Return weighted losses (B,) by kind: "flow_matching", "gripper_bce", "flag_cross_entropy".

        Args:
            prediction, target: (B, T, W), the latter from `encode`.
            padded: (B, T) bool, steps beyond the episode's end, which have no influence.
        """
        there = torch.ones(prediction.shape[:2], device=prediction.device) if padded is None else (~padded).float()
        count = there.sum(1).clamp_min(1.0)
        losses: dict[str, Tensor] = {}
        for part in self.parts:
            if part.kind == "spare":
                continue
            error = part.error(prediction[..., part.slots], target[..., part.slots]).mean(-1)
            loss = part.weight * (there * error).sum(1) / count
            name = LOSS_NAMES[part.kind]
            losses[name] = losses[name] + loss if name in losses else loss
        return losses


Factory = Callable[[Domain], ActionSpace]
_FACTORIES: dict[str, Factory] = {}


def register_action_space(name: str) -> Callable[[Factory], Factory]:
    """Make a function Domain -> ActionSpace known by a name. Raises ValueError if the name is taken."""

    def register(factory: Factory) -> Factory:
        if name in _FACTORIES:
            raise ValueError(f"action space {name!r} is already registered")
        _FACTORIES[name] = factory
        return factory

    return register


def make_action_space(domain: Domain) -> ActionSpace:
    """Build a robot's action space. Raises ValueError if it is unknown or does not fit the dataset's action."""
    if domain.action not in _FACTORIES:
        for entry in entry_points(group="wbvla.action_spaces", name=domain.action):
            entry.load()  # the module registers it
    if domain.action not in _FACTORIES:
        raise ValueError(f"action: got {domain.action!r}, expected one of {', '.join(sorted(_FACTORIES))}")
    space = _FACTORIES[domain.action](domain)
    if space.action_dim != domain.action_dim:
        raise ValueError(
            f"action: got {domain.action_dim} entries, expected {space.action_dim} for {domain.action!r}; "
            "'auto' takes any number"
        )
    if domain.action_width not in (None, space.width):
        raise ValueError(f"action_width: got {domain.action_width}, expected {space.width} for {domain.action!r}")
    needed = max((i + 1 if i >= 0 else -i for i in space.hidden_state), default=0)
    if 0 < domain.state_dim < needed:
        raise ValueError(
            f"state: got {domain.state_dim} entries, expected 0 or at least {needed} for {domain.action!r}"
        )
    return space


# Weights below equal LeRobot's sums of terms: two arms of equal size, each a mean, are twice the mean over both.
_XYZ, _ROTATION, _EE6D_GRIPPERS = (0, 1, 2, 10, 11, 12), (*range(3, 9), *range(13, 19)), (9, 19)


@register_action_space("ee6d")
def ee6d(domain: Domain) -> ActionSpace:
    """Two arms of position (m), 6-D rotation and gripper in [0, 1] (X-VLA's unified space); one arm = second half 0."""
    parts = [Part("value", _XYZ, 1000.0), Part("value", _ROTATION, 20.0), Part("switch", _EE6D_GRIPPERS)]
    return ActionSpace(20, parts, hidden_state=_EE6D_GRIPPERS, normalised=False)


@register_action_space("agibot_ee6d")
def agibot_ee6d(domain: Domain) -> ActionSpace:
    """As ee6d with continuous grippers that are denoised like the rest."""
    parts = [Part("value", _XYZ, 1000.0), Part("value", _ROTATION, 20.0), Part("value", _EE6D_GRIPPERS, 10.0)]
    return ActionSpace(20, parts, normalised=False)


@register_action_space("joint")
def joint(domain: Domain) -> ActionSpace:
    """Two arms of six joints and a gripper in [0, 1] each."""
    parts = [Part("value", (*range(6), *range(7, 13))), Part("switch", (6, 13), 0.1)]
    return ActionSpace(14, parts, hidden_state=(6, 13))


@register_action_space("franka_joint7")
def franka_joint7(domain: Domain) -> ActionSpace:
    """Seven joints in the released 20-wide network."""
    return ActionSpace(7, [Part("value", range(7)), Part("spare", (), slots=range(7, 20))])


@register_action_space("so101_bimanual")
def so101_bimanual(domain: Domain) -> ActionSpace:
    """Two arms of five joints and a gripper in [0, 1] each, in the released 20-wide network.

    Grippers are learned by cross-entropy because answers are sigmoids; LeRobot learns them by squared error, which
    its own sigmoid then bends, and counts every joint twice.
    """
    parts = [Part("value", (*range(5), *range(6, 11))), Part("switch", (5, 11)), Part("spare", (), slots=range(12, 20))]
    return ActionSpace(12, parts, hidden_state=(5, 11))


@register_action_space("auto")
def auto(domain: Domain) -> ActionSpace:
    """Whatever the dataset holds, all of it regressed; `action_width` pads it for released weights."""
    width = domain.action_width or domain.action_dim
    if width < domain.action_dim:
        raise ValueError(
            f"action: got {domain.action_dim} entries, expected at most action_width ({width}): nothing is cut off; "
            "leave action_width out to grow the network"
        )
    spare = Part("spare", (), slots=range(domain.action_dim, width))
    return ActionSpace(domain.action_dim, [Part("value", range(domain.action_dim)), spare], width)


@register_action_space("whole_body")
def whole_body(domain: Domain) -> ActionSpace:
    """This project's humanoid action (wbvla.types): 14 arm joints, 2 grippers, three flags of -1/0/1, height.

    The last command at the end of the state is hidden: a policy that sees it copies it (copycat problem).
    """
    masked = set(domain.masked_actions)
    if masked - set(range(ARM.start, GRIPPER.stop)):
        raise ValueError(
            f"masked_actions: got {sorted(masked)}, expected arm joints and grippers: 0 to {GRIPPER.stop - 1}"
        )
    arms = [i for i in range(ARM.start, ARM.stop) if i not in masked]
    grippers = [i for i in range(GRIPPER.start, GRIPPER.stop) if i not in masked]
    flags = range(FLAGS.start, FLAGS.stop)
    logits = range(GRIPPER.stop, GRIPPER.stop + 9)
    parts = [
        Part("value", arms),
        Part("switch", grippers, 0.1),
        Part("choice", flags, 0.5, slots=logits),
        Part("value", (HEIGHT,), 0.1, slots=(logits.stop,)),
    ]
    return ActionSpace(ACTION_DIM, parts, hidden_state=range(-N_STATE_COMMAND, 0))
