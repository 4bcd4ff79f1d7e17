"""Several processes that train one model, as torchrun starts them. In: its environment. Out: who one is, sums over all.

A process that runs alone is the first of one: the same code trains with and without torchrun.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from wbvla.device import get_device

_PATIENCE = timedelta(hours=2)  # the others wait while the first measures and saves


def started() -> int:
    """Return how many processes torchrun started, 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


@contextmanager
def joined(device: str) -> Iterator[str]:
    """Meet the other processes and yield this one's device: of "cuda" the GPU with its number on this machine.

    Raises ValueError: a device that is not there, or processes on several machines, of which only one would write.
    """
    if started() == 1:
        yield device
        return
    if started() != int(os.environ["LOCAL_WORLD_SIZE"]):
        raise ValueError(f"torchrun: got {started()} processes on several machines, expected all on one")
    device = f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" else device
    if get_device(device).type == "cuda":
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", timeout=_PATIENCE, device_id=torch.device(device))
    else:
        dist.init_process_group("gloo", timeout=_PATIENCE)
    yield device
    dist.destroy_process_group()  # not after an error: it may wait for those that wait for this one


def rank() -> int:
    """Return this process's number; the first, 0, prints and writes."""
    return dist.get_rank() if _met() else 0


def count() -> int:
    """Return how many processes have met."""
    return dist.get_world_size() if _met() else 1


def _met() -> bool:
    return dist.is_available() and dist.is_initialized()  # some builds for small computers come without


def wait() -> None:
    """Return when all processes are here."""
    if count() > 1:
        dist.barrier()


def any_of(flags: list[bool], device: torch.device) -> list[bool]:
    """Return which of the flags are up in any process."""
    raised = torch.tensor(flags, dtype=torch.float32, device=device)
    if count() > 1:
        dist.all_reduce(raised, dist.ReduceOp.MAX)
    return raised.bool().tolist()


def mean(value: torch.Tensor) -> torch.Tensor:
    """Return a number's mean over all processes."""
    if count() > 1:
        value = value / count()
        dist.all_reduce(value)
    return value


def sum_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Add up each parameter's gradient over all processes; none stays none where no process has one."""
    if count() == 1:
        return
    parameters = list(parameters)
    there = any_of([p.grad is not None for p in parameters], parameters[0].device)
    for parameter in (p for p, some in zip(parameters, there) if some):
        if parameter.grad is None:  # a layer of a robot that is in other processes' parts only
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)
