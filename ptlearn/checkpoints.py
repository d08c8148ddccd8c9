"""A run's state in one object and one file: whenever the program is killed, it can go on to the very same numbers.

    run = Run(history, {"lm": lm}, {"adam": optimizer}, settings={"lr": 1e-3}, fixed={"examples": examples}, path=path)
    history = run.resume()                        # everything back, or a refusal that names what differs
    for step in range(len(history.loss), steps):
        with run.naming(f"step {step}"):          # errors say where, and which file is left
            ...
        run.save(step + 1, last=step + 1 == steps)

On several processes each makes the same run and calls the same methods. The first one writes, whole tensors, so that
any number of processes may go on, divided or not; each of them reads.
Deliberately not here: what a step is; the loops know (finetuning.sft, rl.training).
Order: Run, fingerprint; save_checkpoint, read_state, load_checkpoint.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ptlearn.processes import as_whole_of, rank, size, total, whole
from ptlearn.rollout import check_counts


@dataclass
class Run:
    """All that training changes, what happened, and what must not change meanwhile.

    Holds: history, a dataclass of lists; modules, whose trained parameters are saved; optimizers; generators; settings,
    plain values that make a run what it is, and free, what may be otherwise when it goes on; fixed, data and models
    that the run depends on, of which fingerprints are saved; path of the file (None: nothing is saved); every, steps
    between two saves.

    Raises: ValueError if every is below 1.
    """

    history: Any
    modules: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    generators: dict[str, torch.Generator] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    free: dict[str, Any] = field(default_factory=dict)
    fixed: dict[str, Any] = field(default_factory=dict)
    path: str | os.PathLike | None = None
    every: int = 100

    def __post_init__(self):
        check_counts(checkpoint_every=self.every)
        if self.path is not None:
            self.path, self._identity = Path(self.path).expanduser(), self._identify()

    def resume(self) -> Any:
        """Put everything back that the file holds, if it is there; returns the history.

        Raises: ValueError if the file is damaged or no checkpoint; naming what differs if it is of another run.
        """
        if self.path is None or not self._is_there():
            return self.history
        saved, now = read_state(self.path).get("run", {}), self._identity
        differing = [f"{name} was {saved.get(name)}, now {now[name]}" for name in now if saved.get(name) != now[name]]
        if differing:
            raise ValueError(f"checkpoint {self.path} is of another run: {'; '.join(differing)}")
        state = load_checkpoint(self.path, self.modules, self.optimizers, self.generators)
        vars(self.history).update(state["history"])
        return self.history

    def _is_there(self) -> bool:
        seen = total(int(self.path.exists()))
        if 0 < seen < size():
            raise ValueError(f"checkpoint {self.path} is there for {seen} of {size()} processes: expected a folder "
                             "that all of them see")  # fmt: skip
        return seen > 0

    def save(self, steps: int, last: bool = False) -> None:
        """Write the file if a save is due after so many steps, or this was the last.

        Raises: ValueError if it cannot be written; the one before is then as it was.
        """
        if self.path is not None and (last or steps % self.every == 0):
            state = {"run": self._identity, "history": asdict(self.history)}
            save_checkpoint(self.path, state, self.modules, self.optimizers, self.generators)

    @contextmanager
    def naming(self, step: str) -> Iterator[None]:
        """Inside, a ValueError says at which step it happened, and which checkpoint is left."""
        try:
            yield
        except ValueError as error:
            kept = f"; the last checkpoint is {self.path}" if self.path is not None and self.path.exists() else ""
            raise ValueError(f"{step}: {error}{kept}") from error

    def _identify(self) -> dict[str, Any]:
        """What a run that goes on must have in common with the one that was stopped."""
        tensors = [t for module in self.modules.values() for t in (*module.parameters(), *module.buffers())]
        shapes = [(key, p.shape) for module in self.modules.values() for key, p in _trained(module)]
        return {
            "trained": {name: sum(p.numel() for p in _learning(o)) for name, o in self.optimizers.items()},
            "architecture": fingerprint(shapes, *map(_layout, self.modules.values())),
            "dtype": ", ".join(sorted({str(t.dtype).removeprefix("torch.") for t in tensors})),
            "frozen weights": fingerprint([t for t in tensors if not t.requires_grad]),
            **{name: fingerprint(thing) for name, thing in self.fixed.items() if thing not in self.modules.values()},
            **self.settings,
        }


def _learning(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]


def _layout(module: nn.Module) -> str:
    """What the module is made of, also where FSDP2 has put its own name before those of the layers that it divides."""
    if isinstance(module, nn.ParameterList):  # it would name its device, of which every process has another
        return type(module).__name__
    return re.sub(r"\bFSDP(\w+\()", r"\1", repr(module))


def fingerprint(*things: Any) -> str:
    """A short name for the content of tensors, models and plain data, nested or not: others hardly ever have the same.

    >>> fingerprint([torch.zeros(2)]) == fingerprint([torch.zeros(2)]) != fingerprint([torch.tensor([0.0, 1e-9])])
    True
    """
    digest = blake2b(digest_size=6)
    for part in _parts(things):
        digest.update(part)
    return digest.hexdigest()


def _parts(thing: Any) -> Iterator[bytes]:
    if isinstance(thing, nn.Module):
        yield from _parts([_layout(thing), *thing.named_parameters(), *thing.named_buffers()])
    elif isinstance(thing, Tensor):
        yield repr((thing.dtype, thing.shape)).encode()
        yield whole(thing).detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    elif isinstance(thing, list | tuple) and not all(isinstance(part, int | float | str) for part in thing):
        yield f"{len(thing)} parts".encode()
        for part in thing:
            yield from _parts(part)
    else:  # a list of numbers is written out whole, unlike a tensor in it
        yield repr(list(thing) if isinstance(thing, tuple) else getattr(thing, "tolist", lambda: thing)()).encode()


def save_checkpoint(
    path: Path, state: dict, modules: dict[str, nn.Module], optimizers: dict[str, torch.optim.Optimizer],
    generators: dict[str, torch.Generator],
) -> None:  # fmt: skip
    """Trained parameters, optimizer and random states in one safetensors file, with `state` (JSON) as its header.

    Written under a name of its own and renamed: whenever the program is killed, and whoever else writes
    there, a whole file is there. On several processes all wait until it is.

    Raises: ValueError if it cannot be written, with the bytes that it takes and those that are free.
    """
    tensors, failure = {}, ""
    for key, tensor in _contents(modules, optimizers, generators):
        entire = whole(tensor)  # on every process, though one alone keeps it
        if rank() == 0:
            tensors[key] = entire.detach().to("cpu", copy=True).contiguous()
    if rank() == 0:
        failure = _write(path, tensors, {"state": json.dumps(state, default=float)})  # numpy's numbers are none to JSON
    if total(len(failure)):
        raise ValueError(failure or f"checkpoint {path} could not be written by the first process")


def _contents(
    modules: dict[str, nn.Module], optimizers: dict[str, torch.optim.Optimizer], generators: dict[str, torch.Generator]
) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a checkpoint under its name there."""
    for name, module in modules.items():
        yield from ((f"{name}.{key}", parameter) for key, parameter in _trained(module))
    for name, optimizer in optimizers.items():
        for index, values in optimizer.state_dict()["state"].items():
            yield from ((f"optimizer.{name}.{index}.{key}", torch.as_tensor(value)) for key, value in values.items())
    yield from ((name, generator.get_state()) for name, generator in generators.items())


def _write(path: Path, tensors: dict[str, Tensor], header: dict[str, str]) -> str:
    """Put a whole file in the place of the one before; returns why not, if the system refused."""
    temporary = path.with_name(f"{path.name}.{uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, temporary, header)
        os.replace(temporary, path)
        return ""
    except (OSError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    there = next(folder for folder in path.absolute().parents if folder.is_dir())
    needed, free = sum(tensor.nbytes for tensor in tensors.values()), shutil.disk_usage(there).free
    return (f"checkpoint {path} cannot be written ({reason}): it takes {needed:,} bytes, {free:,} are free; "
            "a file that was there before is as it was")  # fmt: skip


def _trained(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """What changes: the frozen rest of a model is where it came from."""
    return [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]


def read_state(path: Path) -> dict:
    """The plain part of a checkpoint, without loading its tensors.

    Raises: ValueError for a file that is damaged or no checkpoint.
    """
    try:
        with safe_open(path, "pt") as file:
            return dict(json.loads(file.metadata()["state"]))
    except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0] if isinstance(error, SafetensorError) else "it holds no state"
        raise ValueError(f"checkpoint {path} is damaged or none ({reason}): remove it to begin anew") from error


def load_checkpoint(
    path: Path, modules: dict[str, nn.Module], optimizers: dict[str, torch.optim.Optimizer],
    generators: dict[str, torch.Generator],
) -> dict:  # fmt: skip
    """Put everything back that `save_checkpoint` wrote; returns `state`.

    Raises: ValueError as `read_state`, before anything is put back.
    """
    state, tensors = read_state(path), load_file(path)
    wanted = [f"{name}.{key}" for name, module in modules.items() for key, _ in _trained(module)]
    if absent := [key for key in wanted if key not in tensors]:
        raise ValueError(f"checkpoint {path} lacks {absent[0]!r}: expected one of the same modules")
    with torch.no_grad():
        for name, module in modules.items():
            for key, parameter in _trained(module):
                parameter.copy_(as_whole_of(tensors[f"{name}.{key}"], parameter))
    for name, optimizer in optimizers.items():
        saved, owners = optimizer.state_dict() | {"state": {}}, [p for g in optimizer.param_groups for p in g["params"]]
        for key, value in tensors.items():
            if key.startswith(f"optimizer.{name}."):
                index, entry = key.split(".")[2:]
                owner = owners[int(index)]
                value = as_whole_of(value, owner) if value.shape == owner.shape else value  # not so a count of steps
                saved["state"].setdefault(int(index), {})[entry] = value
        optimizer.load_state_dict(saved)
    for name, generator in generators.items():
        generator.set_state(tensors[name])
    return state
