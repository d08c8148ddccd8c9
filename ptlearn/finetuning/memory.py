"""What finetuning costs: parameters and bytes, counted before anything is allocated.

    count_parameters   (trained, all), also of a published configuration: shapes without numbers, on the meta device
    memory_budget      bytes of weights, gradients, optimizer states and activations of one training step
    peak_bytes         the most that a step holds at once, its temporary tensors included

A method is a function model -> model, such as `partial(lora, targets="q_proj", rank=4)`; None trains everything.
Deliberately not here: the allocator's rounding and what a library keeps for itself; several devices.
"""

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ptlearn.finetuning.parameter_efficient import trainable_parameters
from ptlearn.finetuning.wrappers import causal_lm
from ptlearn.lm.models import build_model
from ptlearn.rollout import check_counts

Method = Callable[[nn.Module], nn.Module]


def count_parameters(model_or_config, method: Method | None = None) -> tuple[int, int]:
    """(trained parameters, all parameters); what is tied counts once.

    Args: model_or_config, a model, counted as it stands, or a configuration of `transformers`; method, applied to an
          empty model of the configuration first (the model itself is not changed).
    Source: claim C21.
    >>> count_parameters(nn.Linear(2, 3))
    (9, 9)
    """
    if method is None and isinstance(model_or_config, nn.Module):
        model = model_or_config
    else:
        model = _empty(model_or_config, method, torch.float32)
    return sum(p.numel() for p in trainable_parameters(model)), sum(p.numel() for p in model.parameters())


@dataclass(frozen=True)
class MemoryBudget:
    """Bytes that one training step holds at its fullest, between forward and backward pass and after the first step."""

    weights: int
    gradients: int
    optimizer_states: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer_states + self.activations


def memory_budget(
    model_or_config, method: Method | None = None, *, batch: int, length: int,
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] = torch.optim.AdamW,
    dtype: torch.dtype = torch.float32,
) -> MemoryBudget:  # fmt: skip
    """Bytes for finetuning a causal LM, from its configuration alone: nothing is allocated, nothing computed.

        weights     every parameter                       gradients    one per trained parameter
        optimizer   what it keeps after its first step    activations  what autograd saves from the forward pass

    The forward pass runs on shapes, so that activations are those of this very architecture, with its attention kernel
    for a CPU and a loss over all positions.

    Args:   model_or_config, of which only the configuration is read; method, None for full finetuning; batch (B) and
            length (T) of the tokens; optimizer, called with the trained parameters; dtype of the model.
    Raises: ValueError if batch or length is below 1.
    Source: claim C16.
    """
    check_counts(batch=batch, length=length)
    model = _empty(model_or_config, method, dtype)
    trained = trainable_parameters(model)
    _, states = _stepped(optimizer, trained)
    return MemoryBudget(
        weights=sum(parameter.nbytes for parameter in model.parameters()),
        gradients=sum(parameter.nbytes for parameter in trained),
        optimizer_states=sum(state.nbytes for state in states),
        activations=_activations(model_or_config, method, dtype, batch, length),
    )


def _stepped(make: Callable, parameters: list[nn.Parameter], **options) -> tuple[torch.optim.Optimizer, list[Tensor]]:
    """An optimizer that has made a step, and what it keeps from then on; no gradient is left."""
    for parameter in parameters:
        parameter.grad = torch.empty_like(parameter)
    stepper = make(parameters, **options)
    stepper.step()
    stepper.zero_grad()
    return stepper, [value for state in stepper.state.values() for value in state.values() if isinstance(value, Tensor)]


def saved_bytes(model: nn.Module, forward: Callable[[], Tensor]) -> tuple[Tensor, int]:
    """Run a forward pass; return its result and the bytes that autograd saved for the backward pass.

    Each storage counts once and whole, however many views of it are saved; the model's own parameters and buffers do
    not count. Measures a real step, and foretells one on tensors that are shapes alone.
    """
    own = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
    saved: dict[int, Tensor] = {}  # tensors are kept, so that no storage's address is used twice

    def pack(tensor: Tensor) -> Tensor:
        saved.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    return result, sum(tensor.untyped_storage().nbytes() for address, tensor in saved.items() if address not in own)


def peak_bytes(
    model_or_config, method: Method | None = None, *, batch: int, length: int, bf16: bool = False,
    checkpointed: bool = False, dtype: torch.dtype = torch.float32,
) -> int:  # fmt: skip
    """The most bytes that a training step holds at once, from a configuration alone: nothing is allocated.

    A whole step is run on shapes (forward, loss over all positions, backward, fused AdamW whose states exist), and
    the bytes that live are counted at every operation. `memory_budget` says what they are for.

    Args:   batch (B) rows of length (T) tokens, of one forward pass; bf16, forward passes under autocast;
            checkpointed, only the input of every layer is kept, the rest computed again on the way back
            (`checkpoint_activations`); dtype of the weights. `torch.cuda.max_memory_allocated` measures it.
    Raises: ValueError if batch or length is below 1.
    Source: Chen et al. 2016 (checkpointing); claim C16.
    """
    check_counts(batch=batch, length=length)
    with FakeTensorMode():
        model = _build(model_or_config, method, dtype)
        if checkpointed:
            checkpoint_activations(model)
        tokens = torch.zeros(batch, length, dtype=torch.long)
        stepper, states = _stepped(torch.optim.AdamW, trainable_parameters(model), fused=True)
        own = [*model.parameters(), *model.buffers(), *states]
        with LiveBytes(own) as live:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                # positions are given so that the model does not look for packed rows in values that are not there
                output = model(input_ids=tokens, position_ids=torch.arange(length)[None], use_cache=False)
            loss = cross_entropy(output.logits.float().flatten(0, 1), tokens.flatten(), reduction="none").sum()
            del output
            loss.backward()
            stepper.step()
    return sum(tensor.nbytes for tensor in own) + live.most


class LiveBytes(TorchDispatchMode):
    """Inside, counts the bytes of all storages that operations make and that still live: `now`, and the `most` so far.

    Args: known, tensors that were there before, which do not count.
    >>> with LiveBytes() as live:
    ...     doubled = 2 * torch.ones(1000)
    >>> live.now, live.most
    (4000, 8000)
    """

    def __init__(self, known: Iterable[Tensor] = ()):
        super().__init__()
        self.now = self.most = 0
        self._sizes = {tensor.untyped_storage()._cdata: 0 for tensor in known}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in self._sizes:
                self._watch(leaf.untyped_storage())
        return result

    def _watch(self, storage: torch.UntypedStorage) -> None:
        self._sizes[storage._cdata] = storage.nbytes()
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._free, storage._cdata)

    def _free(self, address: int) -> None:
        self.now -= self._sizes.pop(address)


def checkpoint_activations(model: nn.Module) -> None:
    """From now on keep only the input of every layer in training, and compute the rest again on the way back.

    Memory no longer grows with what a layer saves; a step computes a third more. The gradient is the same.
    """
    model = causal_lm(model)
    switch_on = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    switch_on({"use_reentrant": False})


def _activations(model_or_config, method: Method | None, dtype: torch.dtype, batch: int, length: int) -> int:
    # fake tensors, unlike those on the meta device, choose the kernels of a CPU, which save other things
    with FakeTensorMode():
        model = _build(model_or_config, method, dtype).train()
        tokens = torch.zeros(batch, length, dtype=torch.long)
        # with a cache the model does not ask whether positions are packed, which it could only see in their values
        return saved_bytes(model, lambda: model(input_ids=tokens, labels=tokens, use_cache=True).loss)[1]


def _empty(model_or_config, method: Method | None, dtype: torch.dtype) -> nn.Module:
    with torch.device("meta"):
        return _build(model_or_config, method, dtype)


def _build(model_or_config, method: Method | None, dtype: torch.dtype) -> nn.Module:
    is_model = isinstance(model_or_config, nn.Module)
    model = build_model(causal_lm(model_or_config).config if is_model else model_or_config, dtype=dtype)
    return model if method is None else method(model)
