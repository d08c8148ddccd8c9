"""A run's state in one object and one file: whenever the program is killed, it can go on to the very same numbers.

    run = Run(history, {"lm": lm}, {"adam": optimizer}, settings={"lr": 1e-3}, fixed={"examples": examples}, path=path)
    history = run.resume()                        # everything back, or a refusal that names what differs
    for step in range(len(history.loss), steps):
        with run.naming(f"step {step}"):          # errors say where, and which file is left
            ...
        run.save(step + 1, last=step + 1 == steps)

Deliberately not here: what a step is; the loops know (finetuning.sft, rl.training).
Order: Run, fingerprint; save_checkpoint, read_state, load_checkpoint.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

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
            self.path, self._identity = Path(self.path), self._identify()

    def resume(self) -> Any:
        """Put everything back that the file holds, if it is there; returns the history.

        Raises: ValueError if the file is damaged or no checkpoint; naming what differs if it is of another run.
        """
        if self.path is None or not self.path.exists():
            return self.history
        saved, now = read_state(self.path).get("run", {}), self._identity
        differing = [f"{name} was {saved.get(name)}, now {now[name]}" for name in now if saved.get(name) != now[name]]
        if differing:
            raise ValueError(f"checkpoint {self.path} is of another run: {'; '.join(differing)}")
        state = load_checkpoint(self.path, self.modules, self.optimizers, self.generators)
        vars(self.history).update(state["history"])
        return self.history

    def save(self, steps: int, last: bool = False) -> None:
        """Write the file if a save is due after so many steps, or this was the last."""
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
            "architecture": fingerprint(shapes, *map(repr, self.modules.values())),
            "dtype": ", ".join(sorted({str(t.dtype).removeprefix("torch.") for t in tensors})),
            "frozen weights": fingerprint([t for t in tensors if not t.requires_grad]),
            **{name: fingerprint(thing) for name, thing in self.fixed.items() if thing not in self.modules.values()},
            **self.settings,
        }


def _learning(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]


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
        yield from _parts([repr(thing), *thing.named_parameters(), *thing.named_buffers()])
    elif isinstance(thing, Tensor):
        yield repr((thing.dtype, thing.shape)).encode()
        yield thing.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
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
    there, a whole file is there.
    """
    tensors = {f"{name}.{key}": p.detach() for name, module in modules.items() for key, p in _trained(module)}
    for name, optimizer in optimizers.items():
        for index, values in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{name}.{index}.{key}": torch.as_tensor(value) for key, value in values.items()}
    tensors |= {name: generator.get_state() for name, generator in generators.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid4().hex}.tmp")
    try:
        header = {"state": json.dumps(state, default=float)}  # numpy's numbers are none to JSON
        save_file({key: t.contiguous().clone() for key, t in tensors.items()}, temporary, header)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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
                parameter.copy_(tensors[f"{name}.{key}"])
    for name, optimizer in optimizers.items():
        saved = optimizer.state_dict() | {"state": {}}
        for key, value in tensors.items():
            if key.startswith(f"optimizer.{name}."):
                index, entry = key.split(".")[2:]
                saved["state"].setdefault(int(index), {})[entry] = value
        optimizer.load_state_dict(saved)
    for name, generator in generators.items():
        generator.set_state(tensors[name])
    return state
