"""The X-VLA model. In: a batch of observations of one or several robots. Out: losses, or chunks of actions.

Shape letters: B batch, V views, L words, S state, T chunk steps, A action entries, W network slots, N context tokens.
A batch is a dictionary: "images" (B, V, H, W, 3) RGB 0..255; "views" (B, V) bool, absent = all there; "tokens" (B, L)
of the sentence; "state" (B, S); "domains", a name or id per sample; for losses "actions" (B, T, A) and optionally
"padded" (B, T) bool. S, A and V are the largest among the batch's robots; what a robot does not have has no influence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wbvla.xvla.config import Domain, XvlaConfig
from wbvla.xvla.domains import DomainHead
from wbvla.xvla.encoders import make_encoder
from wbvla.xvla.lora import fold_adapters, insert_adapters
from wbvla.xvla.rtc import Previous, largest_weight, pull, value_slots
from wbvla.xvla.transformer import Cache, PromptedTransformer

Groups = dict[str, Tensor]  # robot: its rows in the batch


class Context(NamedTuple):
    """What does not change while actions are denoised: tokens (B, N, H), (B, N) bool or None, the prefix's cache."""

    tokens: Tensor
    there: Tensor | None
    cache: Cache | None


class Xvla(nn.Module):
    """Encoder, soft-prompted transformer and one head per robot."""

    def __init__(self, config: XvlaConfig) -> None:
        super().__init__()
        self.config = config
        self.vlm = make_encoder(config)
        self.transformer = PromptedTransformer(config, self.vlm.width)
        self.domains = nn.ModuleDict({name: DomainHead(domain, config) for name, domain in config.domains.items()})
        if config.lora_rank:
            insert_adapters(self, config.lora_rank)

    def add_domain(self, name: str, domain: Domain, like: str | int | None = None) -> bool:
        """Make a robot known; return whether its action layers are a copy, otherwise they are random.

        Args:
            like: robot whose prompt it starts from, and whose action layers where they fit; None = random.
        Raises:
            ValueError: name or id is taken, or `like` is unknown.
        """
        if name in self.domains:
            raise ValueError(f"domain {name!r} exists already; choose another name")
        config = replace(self.config, domains={**self.config.domains, name: domain})
        head = DomainHead(domain, config).to(self.transformer.pos_emb)
        copied = False
        if like is not None:
            source = self.domains[self.resolve(like)]
            head.prompt.data.copy_(source.prompt)
            copied = head.fits(source)
            if copied:
                head.copy_layers(source)
        self.domains[name], self.config = head.train(self.training), config
        return copied

    def set_statistics(self, name: str, action: tuple, state: tuple | None, like: str | int | None = None) -> None:
        """Give a new robot the mean and deviation (A,) of its dataset's actions and (S,) states.

        Args:
            action, state: means and deviations; None = no state.
            like: the robot that it was added like: if its layers came from one that reads physical units, so does it.
        Raises:
            ValueError: a length does not fit or a number is not finite.
        """
        head = self.domains[name]
        source = None if like is None else self.domains[self.resolve(like)]
        if source is not None and head.fits(source) and source.reads_units:
            return
        head.space.set_statistics(*action)
        if head.domain.state_dim and state is not None:
            head.set_state_statistics(*state)

    def add_adapters(self, rank: int) -> None:
        """Put low-rank adapters on the layers that robots share; answers stay the same. Raises ValueError if it has."""
        if self.config.lora_rank or rank < 1:
            raise ValueError(f"adapters: got rank {rank} on {self.config.lora_rank}, expected at least 1 on none")
        insert_adapters(self, rank)
        self.config = replace(self.config, lora_rank=rank)

    def merge_adapters(self) -> None:
        """Fold the adapters into the layers they adapt; answers stay the same."""
        fold_adapters(self)
        self.config = replace(self.config, lora_rank=0)

    def resolve(self, domain: str | int) -> str:
        """Return a robot's name from its name or id. Raises ValueError listing those it knows."""
        for name, known in self.config.domains.items():
            if domain == name or (not isinstance(domain, str) and domain == known.id):
                return name
        known = ", ".join(f"{name} ({d.id})" for name, d in self.config.domains.items())
        raise ValueError(f"domain: got {domain!r}, expected one of {known}; `wbvla xvla adapt` adds a robot")

    def losses(
        self,
        batch: dict[str, Any],
        noise: Tensor | None = None,
        t: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Return "loss", the mean over samples, and the means of its kinds over the samples that have them.

        Args:
            noise: (B, T, W) standard normal; t: (B,) flow times in [0, 1), 1 = noise. Drawn when left out.
            generator: source of what is drawn; None takes torch's global one.
        Raises:
            ValueError: a robot is missing or unknown, or a width does not fit.
        """
        groups = self._groups(batch)
        context = self._context(batch, groups)
        padded, target = self._targets(batch, groups)
        if t is None:
            b = len(target)
            t = (torch.rand(1, generator=generator) + torch.arange(b) / b) % (1 - 1e-5)
        t = t.to(target)
        noise = self._noise(noise, target.shape, generator).to(target)
        share = t.view(-1, 1, 1)
        noisy = share * noise + (1 - share) * target
        out = self._network(batch, groups, context, noisy, t, padded)
        kinds: dict[str, list[Tensor]] = {}
        total = out.new_zeros(len(out))
        for name, rows in groups.items():
            space = self.domains[name].space
            wanted = target[rows, :, : space.width]
            if self.config.objective == "velocity":
                wanted = torch.where(space.flows, noise[rows, :, : space.width] - wanted, wanted)
            hidden = None if padded is None else padded[rows]
            parts = space.losses(out[rows, :, : space.width], wanted, hidden)
            total = total.index_add(0, rows, sum(parts.values()))
            for kind, values in parts.items():
                kinds.setdefault(kind, []).append(values)
        return {"loss": total.mean(), **{kind: torch.cat(values).mean() for kind, values in kinds.items()}}

    @torch.no_grad()
    def sample(
        self,
        batch: dict[str, Any],
        steps: int = 10,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
        previous: Previous | None = None,
    ) -> Tensor:
        """Return actions (B, T, A) in the dataset's units; entries that a robot does not have are 0.

        Args:
            steps: passes through the network, at least 1.
            noise, generator: as in `losses`; the same noise gives the same actions.
            previous: the rest of the chunk that is being played, which the new one is to continue.
        Raises:
            ValueError: a robot is missing or unknown, a width does not fit, or steps < 1.
        """
        if steps < 1:
            raise ValueError(f"steps: got {steps}, expected at least 1")
        if previous is not None:
            rest = F.pad(previous.actions, (0, 0, 0, self.config.chunk_steps - previous.actions.shape[1]))
            batch = {**batch, "actions": rest}
        groups = self._groups(batch)
        context = self._context(batch, groups)
        width = max(self.domains[name].space.width for name in groups)
        shape = (len(context.tokens), self.config.chunk_steps, width)
        noise = self._noise(noise, shape, generator).to(context.tokens)
        guide = self._guide(previous, batch, groups, steps)
        x, clean = noise, torch.zeros_like(noise)
        for i in range(steps, 0, -1):
            t = torch.full((len(x),), i / steps, device=x.device, dtype=x.dtype)
            if self.config.objective == "clean":  # as released: the same noise mixed with the last prediction
                x = (i / steps) * noise + (1 - i / steps) * clean
                clean = guide(self._network(batch, groups, context, x, t, None), i)
            else:  # Euler's method; in the last step, x becomes the predicted clean action
                clean = guide(self._clean(groups, self._network(batch, groups, context, x, t, None), x, t), i)
                x = x + (clean - x) / i
        actions = x.new_zeros(*x.shape[:2], max(self.domains[name].domain.action_dim for name in groups))
        for name, rows in groups.items():
            space = self.domains[name].space
            slots = rows, slice(None), slice(space.width)
            actions[rows, :, : space.action_dim] = space.decode(clean[slots], noise[slots])
        if previous is not None:
            actions[:, : previous.frozen] = previous.actions[:, : previous.frozen].to(actions)
        return actions

    def _groups(self, batch: dict[str, Any]) -> Groups:
        """Sort the batch by robot, and hold its widths against theirs."""
        if "domains" not in batch:
            raise ValueError("domains: missing from the batch; say which robot each sample is of")
        domains = batch["domains"]
        domains = domains.tolist() if isinstance(domains, Tensor) else list(domains)
        if len(domains) != len(batch["images"]):
            raise ValueError(f"domains: got {len(domains)}, expected one for each of {len(batch['images'])} samples")
        rows: dict[str, list[int]] = {}
        for row, domain in enumerate(domains):
            rows.setdefault(self.resolve(domain), []).append(row)
        known = [self.config.domains[name] for name in rows]
        for key, width in (("state", max(d.state_dim for d in known)), ("actions", max(d.action_dim for d in known))):
            if (key == "state" or key in batch) and batch[key].shape[-1] != width:
                raise ValueError(f"{key}: got {batch[key].shape[-1]} entries, expected {width} for {', '.join(rows)}")
        device = batch["images"].device
        return {name: torch.tensor(where, device=device) for name, where in rows.items()}

    def _context(self, batch: dict[str, Any], groups: Groups) -> Context:
        seen = self.vlm(batch["images"], batch.get("views"), batch["tokens"])
        prompts = torch.empty(
            len(seen.primary), *next(iter(self.domains.values())).prompt.shape, device=seen.primary.device
        )
        for name, rows in groups.items():
            prompts[rows] = self.domains[name].prompt
        tokens = self.transformer.embed_context(seen.primary, seen.others, prompts, self.config.chunk_steps)
        own = torch.ones(batch["images"].shape[:2], dtype=torch.bool, device=prompts.device)
        for name, rows in groups.items():  # views that another robot in the batch has are padding to any weights
            own[rows, len(self.config.domains[name].cameras) :] = False
        there = None
        if self.config.mask_padding or not own.all():
            per_view = seen.others.shape[1] // max(1, own.shape[1] - 1)
            others_there = seen.others_there & own[:, 1:].repeat_interleave(per_view, dim=1)
            always = torch.ones(prompts.shape[:2], dtype=torch.bool, device=prompts.device)
            there = torch.cat([seen.primary_there, others_there, always], dim=1)
        cache = None
        if self.config.attention == "prefix":
            cache = self.transformer.read_context(tokens, None if there is None else there[:, None, None])
        return Context(tokens, there, cache)

    def _targets(self, batch: dict[str, Any], groups: Groups) -> tuple[Tensor | None, Tensor]:
        """Return which steps are padding, and the clean slots (B, T, W) of all robots, zeros where one has none."""
        actions, padded = batch["actions"], batch.get("padded")
        if actions.shape[1] != self.config.chunk_steps:
            raise ValueError(f"actions: got {actions.shape[1]} steps, expected {self.config.chunk_steps}")
        if padded is not None:
            actions = actions.masked_fill(padded.unsqueeze(-1), 0.0)  # it may hold anything, even inf
        width = max(self.domains[name].space.width for name in groups)
        target = actions.new_zeros(*actions.shape[:2], width)
        for name, rows in groups.items():
            space = self.domains[name].space
            target[rows, :, : space.width] = space.encode(actions[rows, :, : space.action_dim])
        return padded, target

    def _network(
        self,
        batch: dict[str, Any],
        groups: Groups,
        context: Context,
        noisy: Tensor,
        t: Tensor,
        padded: Tensor | None,
    ) -> Tensor:
        """Return the network's raw prediction (B, T, W)."""
        tokens = torch.empty(*noisy.shape[:2], self.config.hidden_size, device=noisy.device, dtype=noisy.dtype)
        for name, rows in groups.items():
            head = self.domains[name]
            state = batch["state"][rows, : head.domain.state_dim]
            tokens[rows] = head.encode(noisy[rows, :, : head.space.width], state, t[rows]).to(tokens)
        mask = self._mask(tokens, context, padded)
        if context.cache is not None:
            hidden = self.transformer.read_actions(tokens, context.cache, mask)
        else:
            hidden = self.transformer(tokens, context.tokens, mask)
        out = torch.zeros_like(noisy)
        for name, rows in groups.items():
            head = self.domains[name]
            out[rows, :, : head.space.width] = head.decoder(hidden[rows]).to(out)
        return out

    def _mask(self, tokens: Tensor, context: Context, padded: Tensor | None) -> Tensor | None:
        """Return which actions and context tokens may be seen, (B, 1, 1, T + N); None = all."""
        if context.there is None and padded is None:
            return None
        b, n = tokens.shape[:2]
        actions = torch.ones((b, n), dtype=torch.bool, device=tokens.device) if padded is None else ~padded
        others = context.there
        if others is None:
            others = torch.ones(context.tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        return torch.cat([actions, others], dim=1)[:, None, None]

    def _clean(self, groups: Groups, out: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Turn predicted velocities noise - action into clean actions; logits are predicted as they are."""
        clean = out.clone()
        for name, rows in groups.items():
            flows = self.domains[name].space.flows
            width = len(flows)
            moved = x[rows, :, :width] - t[rows].view(-1, 1, 1) * out[rows, :, :width]
            clean[rows, :, :width] = torch.where(flows, moved, out[rows, :, :width])
        return clean

    def _guide(
        self, previous: Previous | None, batch: dict[str, Any], groups: Groups, steps: int
    ) -> Callable[[Tensor, int], Tensor]:
        """Return what pulls a predicted clean action (B, T, W) of step i, counted down, towards the previous chunk."""
        if previous is None:
            return lambda clean, i: clean
        _, target = self._targets(batch, groups)
        weights = torch.zeros_like(target)
        for name, rows in groups.items():
            slots = value_slots(self.domains[name].space)
            weights[rows, :, : len(slots)] = previous.weights.to(target)[:, None] * slots

        def guide(clean: Tensor, i: int) -> Tensor:
            bound = min(previous.max_weight, largest_weight(self.config.objective, i, steps))
            return pull(clean, target, weights, i / steps, bound)

        return guide

    def _noise(self, noise: Tensor | None, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
        if noise is None:
            return torch.randn(shape, generator=generator)
        if noise.shape != torch.Size(shape):
            raise ValueError(f"noise: got {tuple(noise.shape)}, expected {tuple(shape)}")
        return noise
