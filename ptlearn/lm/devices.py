"""The device of a run: the one that was asked for, or a line that says why not and what to change.

pick_device    "auto", "cpu", "mps", "cuda" or "cuda:1" as a torch.device
check_bf16     refuses bfloat16 on a GPU that has none
check_memory   refuses a run whose predicted bytes are not there
free_memory    bytes of main memory that a process can still have
"""

import os
from pathlib import Path

import torch

BF16_CAPABILITY = (8, 0)  # NVIDIA's Ampere and later


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name, if torch can use it; "auto" takes a CUDA device, else Apple's, else the CPU.

    Raises: ValueError for a name that is none of these, and for a device that torch does not see.
    >>> pick_device("cpu")
    device(type='cpu')
    """
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        name = "cuda" if there else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, colon, number = name.partition(":")
    if kind not in ("cpu", "mps", "cuda") or colon and not (kind == "cuda" and number.isdecimal()):
        raise ValueError(f"device={name!r}: expected auto, cpu, mps, cuda or cuda:N")
    if kind == "cuda" and int(number or 0) >= there:
        build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a build without CUDA"
        remedy = "a torch built for CUDA and NVIDIA's driver" if there == 0 else "a smaller number"
        raise ValueError(
            f"device={name!r}: torch {torch.__version__}, {build}, sees {there} CUDA devices; use {remedy}"
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device='mps': torch sees no such device; it takes an Apple chip and macOS 14")
    return torch.device(name)


def check_bf16(device: torch.device) -> None:
    """Raise ValueError for a CUDA device that has no bfloat16 of its own."""
    if device.type == "cuda" and (found := torch.cuda.get_device_capability(device)) < BF16_CAPABILITY:
        at_least = ".".join(map(str, BF16_CAPABILITY))
        raise ValueError(
            f"bf16 on {torch.cuda.get_device_name(device)}, compute capability {found[0]}.{found[1]}: "
            f"expected at least {at_least}; use float32"
        )


def check_memory(predicted: int, available: int, lower: str = "batch") -> None:
    """Raise ValueError if a run's bytes, such as `memory_budget(...).total`, are more than there are; `lower` helps."""
    if predicted > available:
        raise ValueError(
            f"not enough memory: {predicted:,} bytes predicted, {available:,} bytes available; lower {lower}"
        )


def free_memory() -> int:
    """Bytes of main memory that a process can still have; where the system does not say, all that there are."""
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for line in Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").exists() else ():
        if line.startswith("MemAvailable:"):
            sizes.append(1024 * int(line.split()[1]))
    limit, used = (Path(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))  # of a container
    if limit.exists() and used.exists() and limit.read_text().strip() != "max":
        sizes.append(max(int(limit.read_text()) - int(used.read_text()), 0))
    return min(sizes)
