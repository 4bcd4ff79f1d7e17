"""Training data of X-VLA. In: LeRobot datasets, each of one robot. Out: batches that mix robots in given shares.

Which robot a dataset is of is stored with it (`domain` in meta/wbvla.json, by recorder and converter) or is said by
whoever trains; it is never guessed, and two answers that differ are an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wbvla.data.frames import FACTS, FrameCache, read_facts, read_info
from wbvla.vla.loop import Order
from wbvla.vla.sources import Demonstrations
from wbvla.xvla.batches import arrange_views, mix
from wbvla.xvla.config import Domain, Source, new_id

IMAGES, STATE, ACTION = "observation.images.", "observation.state", "action"


def stored_domain(root: str | Path) -> dict[str, Any]:
    """Return what a dataset says of its robot: "name", "id", "action", "masked_actions"; {} if it says nothing.

    Raises:
        ValueError: the file is unreadable, or says something else than a domain.
    """
    facts = read_facts(root).get("domain", {})
    kinds = {"name": str, "id": int, "action": str, "masked_actions": list}
    if facts and (not isinstance(facts, dict) or any(not isinstance(facts.get(k), t) for k, t in kinds.items())):
        wanted = f"expected {', '.join(kinds)}; record or convert it again"
        raise ValueError(f"{Path(root) / FACTS}: domain: got {facts!r}, {wanted}")
    return facts


def describe(source: Source, known: dict[str, Domain]) -> tuple[str, Domain]:
    """Return name and domain of a dataset's robot, a known one's where it is known.

    Args:
        known: the robots of the model and of the datasets before.
    Raises:
        FileNotFoundError, ValueError: no dataset; no robot named, or another than the dataset's or the model's.
    """
    features, facts = read_info(source.dataset)["features"], stored_domain(source.dataset)
    for key in ("domain", "id", "action"):
        given, stored = getattr(source, key), facts.get("name" if key == "domain" else key)
        if None not in (given, stored) and given != stored:
            raise ValueError(f"{source.dataset}: {key}: got {given!r}, expected {stored!r}, which the dataset stores")
    name = source.domain or facts.get("name")
    if name is None:
        raise ValueError(f"{source.dataset}: domain: the dataset does not say whose it is; give --domains NAME")
    wanted = next((i for i in (source.id, facts.get("id")) if i is not None), None)
    if wanted is None:
        wanted = known[name].id if name in known else new_id(name, (domain.id for domain in known.values()))
    colour = [k for k, v in features.items() if v["dtype"] == "video" and not (v.get("info") or {}).get("is_depth_map")]
    cameras = tuple(key.removeprefix(IMAGES) for key in colour)
    if not cameras or ACTION not in features:
        raise ValueError(
            f"{source.dataset}: got features {', '.join(features)}, expected {ACTION} and a camera's video"
        )
    state = features.get(STATE, {"shape": [0]})
    names = state.get("names")
    named = isinstance(names, list) and len(set(map(str, names))) == state["shape"][0]  # some datasets nest them
    domain = Domain(
        id=wanted,
        action=source.action or facts.get("action") or (known[name].action if name in known else "auto"),
        action_dim=features[ACTION]["shape"][0],
        state_dim=state["shape"][0],
        cameras=cameras,
        masked_actions=tuple(facts.get("masked_actions", ())),
        state_names=tuple(map(str, names)) if named else (),
    )
    if name in known:
        _require_same(source.dataset, name, known[name], domain)
        return name, known[name]
    for other, theirs in known.items():
        if theirs.id == wanted:
            raise ValueError(f"{source.dataset}: domain {name!r}: id {wanted} is {other!r}'s in the model; wrong id")
    return name, domain


def _require_same(dataset: str, name: str, known: Domain, got: Domain) -> None:
    """Raise ValueError unless a dataset's numbers are those of the model's robot; cameras may be missing."""
    for key in ("id", "action", "action_dim", "state_dim"):
        if getattr(known, key) != getattr(got, key):
            raise ValueError(
                f"{dataset}: domain {name!r}: {key}: got {getattr(got, key)!r}, expected {getattr(known, key)!r} as in "
                "the model; another name adds a robot"
            )
    if unknown := sorted(set(got.cameras) - set(known.cameras)):
        raise ValueError(
            f"{dataset}: domain {name!r}: got unknown camera {', '.join(unknown)}, expected {', '.join(known.cameras)}"
        )


class RobotRows:
    """One dataset as samples of one robot.

    Args:
        dataset: folder of a LeRobot v3 dataset.
        name, domain: its robot.
        size, chunk_steps: of the model's images and chunks.
    Attributes:
        states, actions: (N, S) and (N, A), physical units.
        fingerprint: of the files.
    """

    def __init__(self, dataset: str, name: str, domain: Domain, size: int, chunk_steps: int) -> None:
        self.name, self.domain = name, domain
        there = [camera for camera in domain.cameras if IMAGES + camera in read_info(dataset)["features"]]
        self._caches = {camera: FrameCache.open(dataset, size, IMAGES + camera, whole=True) for camera in there}
        first = next(iter(self._caches.values()))
        self.demonstrations = Demonstrations(first, chunk_steps)
        self.states, self.actions = first.states[:, : domain.state_dim], first.actions
        self.tasks, self._task_index = first.tasks, first.task_index
        self.fingerprint = " ".join(cache.fingerprint for cache in self._caches.values())

    def batch(self, rows: np.ndarray, tokenize: Callable[[Sequence[str]], torch.Tensor]) -> dict[str, Any]:
        """Assemble rows (B,) as wbvla.xvla.model takes them."""
        actions, padded = self.demonstrations.chunks(rows)
        pictures = {camera: torch.from_numpy(cache.images[rows]) for camera, cache in self._caches.items()}
        images, views = arrange_views(self.domain, pictures)
        return {
            "images": images,
            "views": views,
            "tokens": tokenize([self.tasks[i] for i in self._task_index[rows]]),
            "state": torch.from_numpy(self.states[rows]),
            "actions": torch.from_numpy(actions),
            "padded": torch.from_numpy(padded),
            "domains": [self.name] * len(rows),
        }


class Mixture:
    """Which rows of which dataset a step takes: a function of seed and step, so that a resumed run sees the same.

    Args:
        rows: training rows of each dataset; each is taken once before any is taken twice.
        weights: of the datasets; a sample's dataset is drawn with these odds.
    """

    def __init__(self, rows: list[np.ndarray], weights: Sequence[float], batch: int, steps: int, seed: int) -> None:
        shares = np.asarray(weights, float)
        if len(shares) != len(rows) or not (np.isfinite(shares).all() and (shares > 0).all()):
            raise ValueError(f"weights: got {list(weights)}, expected {len(rows)} positive numbers, one a dataset")
        draws = np.random.default_rng((seed, len(rows))).multinomial(batch, shares / shares.sum(), steps)
        self._counts, self._before = draws, draws.cumsum(0) - draws
        self._orders = [Order(of, batch, seed) for of in rows]

    def __call__(self, step: int) -> list[np.ndarray]:
        """Return each dataset's rows of a step; together there are `batch`."""
        places = zip(self._orders, self._before[step].tolist(), self._counts[step].tolist())
        return [order.take(first, count) if count else np.empty(0, np.int64) for order, first, count in places]

    def part(self, number: int, parts: int) -> list[np.ndarray]:
        """Return each dataset's rows of one of the equal parts that steps are cut into, counted over all steps."""
        step, part = divmod(number, parts)
        rows, ends = self(step), self._counts[step].cumsum()
        cuts = [part * ends[-1] // parts, (part + 1) * ends[-1] // parts]
        return [of[slice(*np.clip(cuts - (end - len(of)), 0, len(of)))] for of, end in zip(rows, ends)]


def mixed_batch(data: list[RobotRows], rows: list[np.ndarray], tokenize: Callable, pad_token: int) -> dict[str, Any]:
    """Join each dataset's rows into one batch."""
    return mix([of.batch(r, tokenize) for of, r in zip(data, rows) if len(r)], pad_token)
