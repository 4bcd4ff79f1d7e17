"""numpy's names over torch tensors, and numpy's random generator over torch's: the mjlab engine's side of `arrays`.

In: a device. Out: `TorchArrays` for functions, `TorchRandom` for draws. Floats are 32 bits wide, integers 64.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch

DTYPES = {float: torch.float32, int: torch.int64, bool: torch.bool, np.float32: torch.float32}


@functools.cache
def torch_arrays(device: torch.device) -> TorchArrays:
    """Return the namespace of a device."""
    return TorchArrays(device)


class TorchArrays:
    """Functions by numpy's names; those that torch has under the same name and meaning are torch's own."""

    pi = math.pi
    linalg = torch.linalg

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)

    def __getattr__(self, name: str):
        return getattr(torch, name)

    def asarray(self, x, dtype: type | None = None) -> torch.Tensor:
        """Return a tensor on the device; 64 bit floats become 32 bit ones."""
        if dtype is None and not isinstance(x, torch.Tensor):
            x = np.asarray(x)
            dtype = float if x.dtype == np.float64 else None
        return torch.as_tensor(x, dtype=DTYPES.get(dtype), device=self.device)

    def array(self, x) -> torch.Tensor:
        """Return a copy on the device."""
        return self.asarray(x).clone()

    def copy(self, x: torch.Tensor) -> torch.Tensor:
        """Return a copy."""
        return x.clone()

    def zeros(self, shape, dtype: type = float) -> torch.Tensor:
        """Return zeros of a shape, or so many."""
        return torch.zeros(shape, dtype=DTYPES[dtype], device=self.device)

    def ones(self, shape, dtype: type = float) -> torch.Tensor:
        """Return ones of a shape, or so many."""
        return torch.ones(shape, dtype=DTYPES[dtype], device=self.device)

    def full(self, n: int, value: float) -> torch.Tensor:
        """Return n times a number."""
        return torch.full((n,), value, dtype=torch.float32, device=self.device)

    def empty(self, shape) -> torch.Tensor:
        """Return room for floats."""
        return torch.empty(shape, dtype=torch.float32, device=self.device)

    def eye(self, n: int) -> torch.Tensor:
        """Return the identity matrix."""
        return torch.eye(n, dtype=torch.float32, device=self.device)

    def arange(self, n: int) -> torch.Tensor:
        """Return 0 to n - 1."""
        return torch.arange(n, device=self.device)

    def broadcast_to(self, x, shape) -> torch.Tensor:
        """Return a view of a tensor or a number in a shape, or so many times."""
        return torch.broadcast_to(self.asarray(x), (shape,) if isinstance(shape, int) else shape)

    def minimum(self, a, b) -> torch.Tensor:
        """Return the smaller of two tensors or numbers, element by element."""
        return torch.minimum(self.asarray(a), self.asarray(b))

    def maximum(self, a, b) -> torch.Tensor:
        """Return the larger of two tensors or numbers, element by element."""
        return torch.maximum(self.asarray(a), self.asarray(b))


class TorchRandom:
    """The methods of `numpy.random.Generator` that training calls, drawing tensors on a device."""

    def __init__(self, seed: int, device: torch.device | str) -> None:
        self.xp = TorchArrays(device)
        self.generator = torch.Generator(device).manual_seed(seed)
        self.bit_generator = self

    @property
    def state(self) -> list[int]:
        """The generator's state as numbers, as numpy's `bit_generator.state` is; may be assigned."""
        return self.generator.get_state().tolist()

    @state.setter
    def state(self, value: list[int]) -> None:
        self.generator.set_state(torch.tensor(value, dtype=torch.uint8))

    def random(self, size) -> torch.Tensor:
        """Draw from [0, 1)."""
        return torch.rand(size, generator=self.generator, device=self.xp.device)

    def uniform(self, low, high, size) -> torch.Tensor:
        """Draw from [low, high); bounds are numbers or tensors that broadcast to the size."""
        return low + (high - low) * self.random(size)

    def integers(self, low: int, high: int, size) -> torch.Tensor:
        """Draw from low to high - 1."""
        size = (size,) if isinstance(size, int) else size
        return torch.randint(low, high, size, generator=self.generator, device=self.xp.device)

    def normal(self, mean: float = 0.0, std: float = 1.0, size=None) -> torch.Tensor:
        """Draw from a normal distribution."""
        return mean + std * torch.randn(size, generator=self.generator, device=self.xp.device)

    def choice(self, options, size: int, p=None) -> torch.Tensor:
        """Draw from a list of numbers, or from range(options) with probabilities p (options,)."""
        if p is None:
            return self.xp.asarray(options)[self.integers(0, len(options), size)]
        weights = self.xp.asarray(p)
        return torch.multinomial(weights, size, replacement=True, generator=self.generator)
