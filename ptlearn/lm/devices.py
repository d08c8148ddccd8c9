"""The device a model is put on, refused in one line where it is absent, too old or too small.

Order: pick_device, one_thread, require_memory, free_bytes.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import torch


def pick_device(name: str = "auto", *, bf16: bool = False) -> torch.device:
    """The device of this name; "auto" is a GPU where there is one, else the CPU.

    Args:   name, "auto", "cpu", "cuda", "cuda:1" or "mps"; bf16, whether it has to compute in bfloat16.
    Raises: ValueError for a device that is not there, or does not compute in bfloat16.
    >>> pick_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device={name!r}: expected auto, cpu, cuda or mps") from error
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        kind = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a build without CUDA"
        raise ValueError(f"device={name!r}: torch {torch.__version__}, {kind}, sees {count} of them: expected cpu, or "
                         "a driver and a build of torch that see it")  # fmt: skip
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device={name!r}: torch sees none: expected cpu")
    if bf16 and device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        major, minor = torch.cuda.get_device_capability(device)
        raise ValueError(f"bf16=True: {torch.cuda.get_device_name(device)} has compute capability {major}.{minor}: "
                         "expected 8.0 or more, or bf16 off")  # fmt: skip
    return device


@contextlib.contextmanager
def one_thread():
    """One thread of torch: for tensors so small that a second one waits, and for sums in the same order everywhere."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def require_memory(needed: int, device: torch.device, lower: str) -> None:
    """Raise ValueError if a step needs more bytes than the device has free.

    Args: needed, `memory.peak_bytes`; lower, the arguments that make it less, in words.
    """
    if needed > (free := free_bytes(device)):
        raise ValueError(f"a step needs {needed / 1e9:,.1f} GB, {device} has {free / 1e9:,.1f} GB free: lower {lower}")


def free_bytes(device: torch.device) -> int:
    """Bytes that can still be allocated there; on a CPU within a container's limit, and all there are where the system
    does not say what is free."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")] if hasattr(os, "sysconf") else [2**63]
    system = Path("/proc/meminfo")
    for line in system.read_text().splitlines() if system.exists() else ():
        if line.startswith("MemAvailable:"):
            sizes.append(1024 * int(line.split()[1]))
    limit, used = (Path(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if limit.exists() and used.exists() and limit.read_text().strip() != "max":
        sizes.append(max(int(limit.read_text()) - int(used.read_text()), 0))
    return min(sizes)
