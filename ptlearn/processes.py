"""Several processes at one job, so that the numbers do not depend on how many they are.

    lm = spread(lm, accelerator)                             # DDP or FSDP2, as the accelerator is configured
    own = share(rows)                                        # this process's part of what all of them know
    for piece, counts in in_step(lm, pieces): ...            # as many passes on each, one exchange of gradients
    loss = total(own_loss) / total(own_count)                # what one process would have seen

Without a process group (`accelerate launch` and `torchrun` start one) each function gives back what it is given. With
one they are meetings: every process has to call them, in the same order. Under FSDP2 a forward pass is a meeting too.
Deliberately not here: starting processes. DTensor, DDP and FSDP2 are known by their methods: importing them takes long.
Order: rank, size, share; total, most, gather; spread, averages, in_step, gathered; whole, as_whole_of.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, distributed, nn


def rank() -> int:
    """The number of this process, from 0 on: the one with number 0 writes files and talks."""
    return distributed.get_rank() if _together() else 0


def size() -> int:
    """How many processes there are, at least 1."""
    return distributed.get_world_size() if _together() else 1


def share(items):
    """This process's part of a sequence or of the rows of a tensor: every `size()`-th, from `rank()` on.

    >>> share(["all", "of", "them"])
    ['all', 'of', 'them']
    """
    return items[rank() :: size()]


# ---------------------------------------------------------------- numbers of all


def total(value: float | Tensor) -> float | Tensor:
    """The sum over all processes of a number, or of tensors of one shape; without gradient where there are several."""
    return _reduced(value, "SUM")


def most(value: float | Tensor) -> float | Tensor:
    """The largest on any process."""
    return _reduced(value, "MAX")


def gather(rows: Tensor) -> Tensor:
    """The rows (n, ...) of all processes one after the other, (sum of all n, ...); n may differ."""
    if size() == 1:
        return rows
    counts = torch.zeros(size(), dtype=torch.long)
    counts[rank()] = len(rows)
    counts = total(counts).tolist()
    before = sum(counts[: rank()])
    everyone = rows.new_zeros(sum(counts), *rows.shape[1:])
    everyone[before : before + len(rows)] = rows
    return total(everyone)


def _reduced(value: float | Tensor, how: str) -> float | Tensor:
    if size() == 1:
        return value
    device = "cuda" if "nccl" in distributed.get_backend() else "cpu"
    exact = torch.float64 if isinstance(value, float) else None
    sent = torch.as_tensor(value, dtype=exact).detach().to(device, copy=True)
    distributed.all_reduce(sent, getattr(distributed.ReduceOp, how))
    return sent.to(value.device) if isinstance(value, Tensor) else sent.item()


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized()


# ---------------------------------------------------------------- a model of all


def spread(lm, accelerator):
    """Let all processes train a language model together, by DDP or FSDP2, whichever the accelerator is configured for.

    In place; returns lm. Frozen parameters and tied embeddings may stay as they are, LoRA is inserted before. Under DDP
    precision stays what `lm` was loaded in and `bf16=` says; FSDP2 has its own, from the accelerator.

    Args:   lm, a LanguageModel, the same on every process; accelerator, `accelerate.Accelerator`.
    Raises: ValueError for FSDP1.
    """
    if accelerator.distributed_type == "FSDP" and not accelerator.is_fsdp2:
        raise ValueError("accelerator has fsdp_version=1: expected fsdp_version: 2 in its configuration")
    if accelerator.is_fsdp2:
        plugin = accelerator.state.fsdp_plugin
        if plugin.mixed_precision_policy is not None:  # sums of gradients are no place to save bits
            plugin.mixed_precision_policy = replace(plugin.mixed_precision_policy, reduce_dtype=torch.float32)
        # it refuses a model without an optimizer, though ours is made later
        trained = [parameter for parameter in lm.model.parameters() if parameter.requires_grad]
        called, _ = accelerator.prepare(lm.model, torch.optim.SGD(trained, lr=0.0))
    else:
        called = accelerator.prepare_model(lm.model)
        # it puts autocast around the model, which a decoder that calls single layers would see half of
        if "_original_forward" in vars(lm.model):
            del lm.model.forward, lm.model._original_forward
    vars(lm)["called"] = called  # not as a submodule: names of parameters stay
    return lm


def averages(module: nn.Module) -> bool:
    """Whether a wrapper averages this module's gradients over the processes: DDP or FSDP2."""
    called = _called(module)
    return hasattr(called, "no_sync") or hasattr(called, "set_requires_gradient_sync")


def in_step(module: nn.Module, pieces: Sequence) -> Iterator[tuple[object, bool]]:
    """Each piece of work with True; then the last one again with False, until every process has had as many.

    Gradients are exchanged in the backward pass of the last alone.
    """
    for part in _parts(module):
        part.reshard()  # a forward pass without gradient leaves some weights as they were then
        if (group := _group(part)) is not None:
            group.lazy_init()  # a LoRA adapter that was off when it was last called had nothing to train
    count = most(len(pieces))
    for index in range(count):
        with _exchange(module, index + 1 == count):
            yield pieces[min(index, len(pieces) - 1)], index < len(pieces)


@contextmanager
def _exchange(module: nn.Module, on: bool) -> Iterator[None]:
    called = _called(module)
    if hasattr(called, "set_requires_gradient_sync"):
        called.set_requires_gradient_sync(on)
    if hasattr(called, "no_sync") and not on:
        with called.no_sync():
            yield
    else:
        yield


@contextmanager
def gathered(module: nn.Module) -> Iterator[None]:
    """Inside, every process holds the weights that FSDP2 has divided whole: forward passes are no meetings any more.

    For work without gradients, of which processes may have different amounts. Takes the memory of all weights.
    """
    parts, called = _parts(module), _called(module)
    if not parts or getattr(called, "held_whole", False):
        yield
        return
    # there is no public way to read what `set_reshard_after_forward` sets
    before = [(group, group.post_forward_mesh_info) for part in parts if (group := _group(part)) is not None]
    for part in parts:
        part.reshard()
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    called.held_whole = True
    try:
        yield
    finally:
        called.held_whole = False
        for group, setting in before:
            group.post_forward_mesh_info = setting
        for part in parts:
            part.reshard()


def _parts(module: nn.Module) -> list:
    """The modules that FSDP2 gathers one at a time, which stand in each other; the weights are in their groups."""
    return [part for part in _called(module).modules() if hasattr(part, "unshard")]


def _group(part):
    return part._get_fsdp_state()._fsdp_param_group


def _called(module: nn.Module) -> nn.Module:
    """What stands around a language model's network, else the module itself."""
    called = getattr(module, "called", None)
    return module if called is None else called


# ---------------------------------------------------------------- divided tensors


def whole(tensor: Tensor) -> Tensor:
    """The tensor itself, or all of one that FSDP2 has divided over the processes."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def as_whole_of(values: Tensor, divided: Tensor) -> Tensor:
    """Whole values, the same on every process, divided as another tensor is; unchanged where that is whole too."""
    if not hasattr(divided, "full_tensor"):
        return values
    from torch.distributed.tensor import distribute_tensor

    values = values.to(divided.device)
    return distribute_tensor(values, divided.device_mesh, divided.placements, src_data_rank=None)
