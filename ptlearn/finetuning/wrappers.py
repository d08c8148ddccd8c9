"""The layers that parameter-efficient methods insert, and the finding of the layers that they wrap.

A wrapper holds the frozen layer as `.base` and adds a path that is zero at the start. Linear layers are those of torch
and GPT-2's transposed Conv1D. Deliberately not here: choosing, freezing, merging (parameter_efficient).
Order: Adapter; Factors and LoRA; finding layers; how factors start.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from ptlearn.lm.models import LanguageModel


class Adapter(nn.Module):
    """A bottleneck behind a layer: y + U gelu(D y + d) + u with y = base(x); U and u are zero at the start."""

    def __init__(self, base: nn.Module, size: int, generator: torch.Generator):
        super().__init__()
        width, _ = layer_shape(base)
        self.base = base
        self.down, self.down_bias = uniform((size, width), generator, base.weight), zeros((size,), base.weight)
        self.up, self.up_bias = zeros((width, size), base.weight), zeros((width,), base.weight)
        self.train(base.training)

    def forward(self, states: Tensor) -> Tensor:
        y = self.base(states)
        # kept in float32 beside a base of half precision, used in the precision of the states
        down, down_bias = self.down.to(y.dtype), self.down_bias.to(y.dtype)
        up, up_bias = self.up.to(y.dtype), self.up_bias.to(y.dtype)
        hidden = nn.functional.gelu(nn.functional.linear(y, down, down_bias))
        return y + nn.functional.linear(hidden, up, up_bias)


class Factors(nn.Module):
    """One adapter of one layer: A (r, in), B (out, r), and alpha; it adds alpha / r * B A to the layer's weight."""

    def __init__(self, A: nn.Parameter, B: nn.Parameter, alpha: float):
        super().__init__()
        self.A, self.B, self.alpha = A, B, float(alpha)

    def extra_repr(self) -> str:
        return f"r={len(self.A)}, alpha={self.alpha}"

    @property
    def scale(self) -> float:
        return self.alpha / len(self.A)


class LoRA(nn.Module):
    """A frozen linear layer and its low-rank paths: base(x) + alpha / r * B A x, with the factors of one adapter.

    State: base; adapters, {name: Factors}; active, the name of the adapter in use, None for the base alone; merged,
    whether base.weight is the sum W + alpha / r * B A.
    """

    def __init__(self, base: nn.Module):
        super().__init__()
        self.base, self.adapters = base, nn.ModuleDict()
        self.train(base.training)
        self.active: str | None = None
        self._own_weight: list[nn.Parameter] = []  # the base's, while merged; in a list, so that it is no parameter

    @property
    def merged(self) -> bool:
        return bool(self._own_weight)

    def forward(self, states: Tensor) -> Tensor:
        y = self.base(states)
        if self.active is None:
            return y
        factors = self.adapters[self.active]
        # kept in float32 beside a base of half precision, used in the precision of the states
        A, B = factors.A.to(y.dtype), factors.B.to(y.dtype)
        # the many tokens stand last, in A x and in both gradients: skinny products are several times slower otherwise
        low = A @ states.reshape(-1, states.shape[-1]).T
        return torch.addmm(y.reshape(-1, len(B)), low.T, B.T.contiguous(), alpha=factors.scale).view_as(y)

    def merged_weight(self) -> Tensor:
        """W + alpha / r * B A, a new tensor in the layout and precision of the base's own weight."""
        factors, weight = self.adapters[self.active], self.base.weight.detach()
        delta = factors.scale * (factors.B.detach() @ factors.A.detach())
        return (weight + (delta.T if is_transposed(self.base) else delta)).to(weight.dtype)

    def merge(self) -> None:
        """Let the base hold W + alpha / r * B A, and be called directly: one product, as before there was a path."""
        # a parameter of its own: the weight of a head may be the embedding's too, which must not change
        merged, self._own_weight = nn.Parameter(self.merged_weight(), requires_grad=False), [self.base.weight]
        self.base.weight, self.forward = merged, self.base.forward

    def unmerge(self) -> None:
        """Give the base its own weight back, the very same parameter."""
        (weight,) = self._own_weight
        del self.forward
        weight.data = weight.data.to(self.base.weight)  # the model may have moved to another device meanwhile
        self.base.weight, self._own_weight = weight, []


# ---------------------------------------------------------------- finding layers


def matching_layers(model: nn.Module, targets: str | Sequence[str]) -> dict[str, nn.Module]:
    """The linear layers (or LoRA around one) that a target names by their end or by a pattern: {name: layer}.

    Raises: ValueError naming the targets that match nothing, and the layers that are there.
    >>> matching_layers(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)), r"[0-1]")
    {'0': Linear(in_features=2, out_features=2, bias=True)}
    """
    targets = [targets] if isinstance(targets, str) else list(targets)
    present = dict(_linear_layers(causal_lm(model)))
    matched = {}
    for target in targets:
        try:
            pattern = re.compile(rf"(.*\.)?({target})")
        except re.error as error:
            raise ValueError(f"targets: {target!r} is no regular expression: {error}") from error
        matched[target] = {name for name in present if pattern.fullmatch(name)}
    idle = [target for target in targets if not matched[target]]
    if idle or not targets:
        ends = sorted({name.rpartition(".")[2] for name in present})
        raise ValueError(f"targets {listed(idle)} match no linear layer: expected ends of names, as {listed(ends)}, "
                         "or a pattern for several, such as '.*_proj'")  # fmt: skip
    return {name: layer for name, layer in present.items() if any(name in names for names in matched.values())}


def lora_layers(model: nn.Module) -> Iterator[tuple[str, LoRA]]:
    """(name in the causal LM, layer) of every layer with LoRA."""
    return ((name, module) for name, module in causal_lm(model).named_modules() if isinstance(module, LoRA))


def _linear_layers(model: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Linear layers and wrappers by name, without looking into a wrapper."""
    for name, module in model.named_children():
        if isinstance(module, LoRA) or _is_linear(module):
            yield prefix + name, module
        elif not isinstance(module, Adapter):
            yield from _linear_layers(module, f"{prefix}{name}.")


def _is_linear(module: nn.Module) -> bool:
    return type(module) is nn.Linear or is_transposed(module)


def is_transposed(module: nn.Module) -> bool:
    """Whether this is the Conv1D of GPT-2, a linear layer with weight (in, out); known by name to import nothing."""
    return type(module).__name__ == "Conv1D"


def linear_layer(layer: nn.Module) -> nn.Module:
    """The layer that holds the weight: inside LoRA, its base."""
    return layer.base if isinstance(layer, LoRA) else layer


def layer_shape(layer: nn.Module) -> tuple[int, int]:
    """(out, in) of a linear layer."""
    linear = linear_layer(layer)
    first, second = linear.weight.shape
    return (second, first) if is_transposed(linear) else (first, second)


def causal_lm(model: nn.Module) -> nn.Module:
    """The causal LM of `transformers`, whose layers' names are what targets and files speak of."""
    return model.model if isinstance(model, LanguageModel) else model


def listed(names: Iterable[str]) -> str:
    """Names for an error message."""
    return ", ".join(map(repr, names)) or "(none)"


# ---------------------------------------------------------------- how factors start


def uniform(shape: tuple[int, int], generator: torch.Generator, weight: Tensor) -> nn.Parameter:
    """Uniform in +-1 / sqrt(columns), which is kaiming_uniform_ with a = sqrt(5), as layers of torch start."""
    bound = shape[1] ** -0.5
    device = "meta" if weight.is_meta else "cpu"  # drawn on the CPU: the same numbers on every device
    values = torch.empty(shape, device=device).uniform_(-bound, bound, generator=generator)
    return nn.Parameter(values.to(weight.device, precision(weight)))


def zeros(shape: tuple[int, ...], weight: Tensor) -> nn.Parameter:
    """What makes a new path add nothing at the start."""
    return nn.Parameter(torch.zeros(shape, device=weight.device, dtype=precision(weight)))


def precision(weight: Tensor) -> torch.dtype:
    """At least float32: in half precision the small steps of training would be rounded away."""
    return torch.promote_types(weight.dtype, torch.float32)
