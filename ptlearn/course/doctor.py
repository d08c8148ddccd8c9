"""What this machine has and which lessons run on it, on one screen, for `ptlearn doctor`.

`examine` looks, once and without network; `report` and `changes` are functions of what it found.
"""

import os
import platform
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ptlearn.course.lesson import LessonError, lesson_files

GB = 10**9
WIDTH = 95
NEEDED = {"torch": (2, 4), "transformers": (5, 0)}
OPTIONAL = ("accelerate", "peft", "gguf", "tensorboard", "vllm")
WEIGHTS = Path(__file__).parents[1] / "pocket" / "weights"
POCKET = ("pocket-s", "pocket-m", "pocket-l")
REAL_MODEL = "smollm2-135m"
MEMORY, DISK = 2 * GB, 1 * GB  # free bytes that the longest lesson and the real model want
BF16_CAPABILITY = (8, 0)  # NVIDIA's Ampere and later
EVERYWHERE = range(14)  # lessons that run on a CPU with what the course brings


@dataclass(frozen=True)
class Device:
    """An accelerator: its name, bytes of memory, and compute capability; Apple's tells neither of the last two."""

    name: str
    memory: int | None = None
    capability: tuple[int, int] | None = None


@dataclass(frozen=True)
class Machine:
    """What was found. Sizes are free bytes; `versions` lacks what is not installed; `seconds` of a lesson's run are
    those written in it, None where it says none."""

    versions: dict[str, str]
    processor: str
    cores: int
    cpu_bf16: bool
    devices: tuple[Device, ...]
    memory: int
    cache: str
    disk: int
    threads: int
    omp_num_threads: str | None
    damaged: tuple[str, ...]
    real_model: bool
    seconds: dict[int, int | None]


# ---------------------------------------------------------------- looking


def examine() -> Machine:
    """Look at this machine; takes as long as importing torch does."""
    import torch

    from ptlearn.lm.checksums import damaged_files
    from ptlearn.lm.devices import free_bytes
    from ptlearn.lm.real_model import home

    cache = home().absolute()
    return Machine(
        versions=installed(),
        processor=processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        cpu_bf16=has_bf16(),
        devices=accelerators(),
        memory=free_bytes(torch.device("cpu")),
        cache=str(cache),
        disk=shutil.disk_usage(next(folder for folder in (cache, *cache.parents) if folder.is_dir())).free,
        threads=torch.get_num_threads(),
        omp_num_threads=os.environ.get("OMP_NUM_THREADS"),
        damaged=tuple(f"{name}/{path.name}" for name in POCKET for path in damaged_files(WEIGHTS / name)),
        real_model=(cache / REAL_MODEL / "SHA256SUMS").is_file(),
        seconds=recorded_seconds(),
    )


def installed() -> dict[str, str]:
    """The versions of what the course uses."""
    found = {"python": platform.python_version()}
    for name in ("torch", "transformers", "ptlearn", *OPTIONAL):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def processor_facts() -> str:
    """What the system tells of its processor, as text."""
    if platform.system() == "Darwin":
        command = ["sysctl", "machdep.cpu.brand_string", "hw.optional.arm.FEAT_BF16"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def processor() -> str:
    """The processor's name."""
    named = re.search(r"^(?:model name|machdep\.cpu\.brand_string)\s*: (.+)$", processor_facts(), re.MULTILINE)
    return named[1].strip() if named else platform.machine()


def has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 itself; else torch does it, slowly, in float32."""
    return bool(re.search(r"\bavx512_bf16\b|\bamx_bf16\b|^Features.*\bbf16\b|FEAT_BF16: 1", processor_facts(), re.M))


def accelerators() -> tuple[Device, ...]:
    """The GPUs that torch can use."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    cards = [torch.cuda.get_device_properties(index) for index in range(count)]
    found = [Device(card.name, card.total_memory, (card.major, card.minor)) for card in cards]
    return (*found, *([Device("Apple GPU (mps)")] if torch.backends.mps.is_available() else []))


def recorded_seconds() -> dict[int, int | None]:
    """How long each lesson's run takes on two cores, as its first cell says; nothing outside the repository."""
    try:
        files = lesson_files()
    except LessonError:
        return {}
    openings = {int(path.stem[:2]): path.read_text(encoding="utf-8")[:4000] for path in files}
    told = {number: re.search(r"runs\s+(?:#\s+)?in\s+(?:#\s+)?(\d+)\s+s\b", text) for number, text in openings.items()}
    return {number: int(found[1]) if found else None for number, found in told.items()}


# ---------------------------------------------------------------- telling


def report(machine: Machine) -> str:
    """One screen: at most 24 lines of 95 columns."""
    rows = [*facts(machine), ("", ""), *lessons(machine), ("", "")]
    lines = [f"{name:14}{text}" for name, text in rows]
    asked = [f"  {line}" for line in changes(machine)] or ["  nothing"]
    return "\n".join(shortened(line.rstrip()) for line in [*lines, "what to change", *asked])


def shortened(line: str) -> str:
    """A line cut to the width of the screen.

    >>> shortened("a" * 100) == "a" * 94 + "…"
    True
    """
    return line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"


def facts(machine: Machine) -> list[tuple[str, str]]:
    """What there is, as rows of (what, text)."""
    needed = ("python", "torch", "transformers", "ptlearn")
    absent = [name for name in OPTIONAL if name not in machine.versions]
    optional = [f"{name} {machine.versions[name]}" for name in OPTIONAL if name in machine.versions]
    bf16 = "bf16 native" if machine.cpu_bf16 else "bf16 slow"
    pocket = f"damaged: {', '.join(machine.damaged)}" if machine.damaged else "all whole"
    return [
        ("versions", ", ".join(f"{name} {machine.versions.get(name, 'absent')}" for name in needed)),
        ("", ", ".join(optional + [f"no {name}" for name in absent])),
        ("processor", f"{machine.processor}, {counted(machine.cores, 'core')}, {bf16}"),
        *(("GPU", line) for line in device_lines(machine.devices)),
        ("memory", f"{machine.memory / GB:.1f} GB free"),
        ("cache", f"{machine.disk / GB:.0f} GB free in {machine.cache}"),
        ("threads", f"{machine.threads} of torch, OMP_NUM_THREADS {machine.omp_num_threads or 'not set'}"),
        ("pocket models", pocket),
        (REAL_MODEL, "in the cache" if machine.real_model else "not in the cache"),
    ]


def counted(count: int, name: str) -> str:
    """A number of things.

    >>> counted(1, "core"), counted(2, "core")
    ('1 core', '2 cores')
    """
    return f"{count} {name}{'s' * (count != 1)}"


def device_lines(devices: tuple[Device, ...]) -> list[str]:
    """A line per kind of GPU, three at most."""
    lines = []
    for device, count in Counter(devices).most_common(3):
        line = f"{count} × {device.name}"
        if device.memory is not None and device.capability is not None:
            native = "native" if device.capability >= BF16_CAPABILITY else "slow"
            line += f", {device.memory / GB:.0f} GB, capability {'.'.join(map(str, device.capability))}, bf16 {native}"
        lines.append(line)
    return lines or ["none that torch can use"]


def lessons(machine: Machine) -> list[tuple[str, str]]:
    """Which lessons run here and in how long, as rows."""
    seconds = [machine.seconds.get(number) or 0 for number in EVERYWHERE]
    times = f"about {sum(seconds) / 60:.0f} minutes in all on two cores, the longest {max(seconds)} s"
    real = "runs" if runs(machine) and machine.real_model else "does not run yet"
    real += f", about {machine.seconds[14]} s on two cores" if machine.seconds.get(14) else ""
    cuda = any(device.capability for device in machine.devices)
    full = "and at full size on the GPU" if cuda and not extra(machine) else "at full size with CUDA and .[gpu]"
    both = f"run with a pocket LM on the CPU, {full}" if runs(machine) else "do not run yet"
    return [
        ("lessons 00–13", f"run, {times}" if runs(machine) else "do not run yet"),
        ("lesson 14", real),
        ("lessons 15–16", both),
    ]


def extra(machine: Machine) -> list[str]:
    """What the extra `gpu` would add."""
    return [name for name in ("accelerate", "peft") if name not in machine.versions]


def runs(machine: Machine) -> bool:
    """Whether lessons 00 to 13 run here."""
    return not any(obstacles(machine))


def obstacles(machine: Machine) -> Iterator[str]:
    """What lessons 00 to 13 lack, each as a line that says what to do."""
    if missing := [number for number in EVERYWHERE if number not in machine.seconds]:
        yield f"cd into a copy of the repository and: pip install -e .    ({len(missing)} lessons are not here)"
    if old := [name for name, least in NEEDED.items() if release(machine.versions.get(name, "0")) < least]:
        yield f"pip install -U {' '.join(requirement(name) for name in old)}"
    if machine.damaged:
        yield "git checkout -- ptlearn/pocket/weights    (the pocket models are damaged)"
    if machine.memory < MEMORY:
        yield f"close other programs: {MEMORY / GB:.0f} GB of free memory are wanted"


def changes(machine: Machine) -> list[str]:
    """What to change, the most pressing first: five lines at most, each a command or a setting."""
    found = list(obstacles(machine))
    if machine.threads > machine.cores:
        found.append(f"export OMP_NUM_THREADS={machine.cores}    ({machine.threads} threads share the cores)")
    if not machine.real_model and machine.disk < DISK:
        found.append(f"export PTLEARN_HOME=FOLDER    (with {DISK / GB:.0f} GB free, for {REAL_MODEL})")
    if not machine.real_model:
        found.append(f"ptlearn get {REAL_MODEL}    (for lesson 14)")
    if any(device.capability for device in machine.devices) and extra(machine):
        found.append("pip install -e '.[gpu]'    (for lessons 15 and 16 at full size)")
    return found[:5]


def release(text: str) -> tuple[int, ...]:
    """The first two numbers of a version.

    >>> release("2.13.0+cpu")
    (2, 13)
    """
    return tuple(int(number) for number in re.findall(r"\d+", text)[:2])


def requirement(name: str) -> str:
    """What pip is asked for."""
    return f"'{name}>={'.'.join(map(str, NEEDED[name]))}'"


def main() -> int:
    """Print the screen; 0 when lessons 00 to 13 run, else 1."""
    machine = examine()
    print(report(machine))
    return 0 if runs(machine) else 1
