"""Where PyTorch computes. In: the text of a --device flag. Out: a device that is there, or one clear error."""

from __future__ import annotations

import re

import torch


def get_device(name: str) -> torch.device:
    """Return the device of a name: "cpu", "cuda", or "cuda:1" where there are several GPUs.

    Raises:
        ValueError: another name, or a GPU that PyTorch does not see.
    """
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ValueError(f"device: got {name!r}, expected cpu, cuda, or one of several GPUs such as cuda:1")
    device, there = torch.device(name), torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= there:
        raise ValueError(
            f"device: got {name!r}, but PyTorch {torch.__version__} sees {there} CUDA GPUs here; leave --device out, "
            "or install a driver and a PyTorch that is built for CUDA"
        )
    return device
