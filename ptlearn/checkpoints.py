"""A run's state in one file: whenever the program is killed, it can go on to the very same numbers.

    save_checkpoint(path, state, {"lm": lm}, {"adam": optimizer}, {"generator": generator})
    state = load_checkpoint(path, {"lm": lm}, {"adam": optimizer}, {"generator": generator})

Deliberately not here: when to save, and whether a file belongs to the run that finds it; the loops know.
Order: save_checkpoint, read_state, load_checkpoint.
"""

import json
import os
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn


def save_checkpoint(
    path: Path,
    state: dict,
    modules: dict[str, nn.Module],
    optimizers: dict[str, torch.optim.Optimizer],
    generators: dict[str, torch.Generator],
) -> None:
    """Trained parameters, optimizer and random states in one safetensors file, with `state` (JSON) as its header.

    Written under a temporary name and renamed: whenever the program is killed, a whole file is there.
    """
    tensors = {f"{name}.{key}": p.detach() for name, module in modules.items() for key, p in _trained(module)}
    for name, optimizer in optimizers.items():
        for index, values in optimizer.state_dict()["state"].items():
            tensors |= {f"{name}.{index}.{key}": torch.as_tensor(value) for key, value in values.items()}
    tensors |= {name: generator.get_state() for name, generator in generators.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    save_file({key: t.contiguous().clone() for key, t in tensors.items()}, temporary, {"state": json.dumps(state)})
    os.replace(temporary, path)


def _trained(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """What changes: the frozen rest of a model is where it came from."""
    return [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]


def read_state(path: Path) -> dict:
    """The plain part of a checkpoint, without loading its tensors."""
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["state"])


def load_checkpoint(
    path: Path,
    modules: dict[str, nn.Module],
    optimizers: dict[str, torch.optim.Optimizer],
    generators: dict[str, torch.Generator],
) -> dict:
    """Put everything back that `save_checkpoint` wrote; returns `state`."""
    tensors = load_file(path)
    with torch.no_grad():
        for name, module in modules.items():
            for key, parameter in _trained(module):
                parameter.copy_(tensors[f"{name}.{key}"])
    for name, optimizer in optimizers.items():
        saved = optimizer.state_dict() | {"state": {}}
        for key, value in tensors.items():
            if key.startswith(name + "."):
                _, index, entry = key.split(".")
                saved["state"].setdefault(int(index), {})[entry] = value
        optimizer.load_state_dict(saved)
    for name, generator in generators.items():
        generator.set_state(tensors[name])
    return read_state(path)
