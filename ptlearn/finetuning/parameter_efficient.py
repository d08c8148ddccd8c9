"""Finetuning few parameters instead of all: two verbs, each method `(model, *, options) -> model`, changed in place.

    select   last_k, bitfit     train a part of the model's own parameters; only `requires_grad` changes
    insert   adapters, lora     freeze the model and add a path beside or behind its layers, zero at the start

A wrapper holds the frozen layer as `.base`. A model may be a causal LM of `transformers` or the LanguageModel around
one; names of layers are those of the causal LM. Several LoRA adapters share one base: one is active, and trained.
`merge_lora`, `unmerge_lora`, `switch_adapter`, `adapter_off` are explicit: nothing happens in `train()` or `eval()`.
Deliberately not here: the wrappers (wrappers), counts and bytes (memory), files (adapter_files), dropout inside LoRA.
Order: what is trained; select; insert; merge and switch.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral, Real

import torch
from torch import Tensor, nn

from ptlearn.finetuning.wrappers import (
    Adapter,
    Factors,
    LoRA,
    causal_lm,
    layer_shape,
    linear_layer,
    listed,
    lora_layers,
    matching_layers,
    uniform,
    zeros,
)
from ptlearn.rollout import check_counts, check_seed

# where a block adds attention and MLP to its residual stream, in Llama, Qwen, Phi, OPT, BERT layouts and all of GPT's
SUBLAYERS = (r".*(attn|attention)\.(o_proj|c_proj|out_proj|dense)"
             r"|mlp\.(down_proj|c_proj|fc_out|dense_4h_to_h)|fc2|output\.dense")  # fmt: skip


# ---------------------------------------------------------------- what is trained


def freeze(model: nn.Module) -> nn.Module:
    """Train nothing: no parameter requires a gradient any more. Returns the model."""
    return model.requires_grad_(False)


def trainable_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that require a gradient, each once, in the model's order: what an optimizer is given."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def trainable_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The trained part of `model.state_dict()`, for any method: {name: tensor}, sharing memory with the model.

    Loaded with `model.load_state_dict(..., strict=False)` into a model that went through the same method.
    """
    return {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}


# ---------------------------------------------------------------- select


def last_k(model: nn.Module, *, k: int) -> nn.Module:
    """Train the last k transformer blocks and the norm behind them.

    The head and the embeddings stay frozen: where they are tied, training the head would change the model's input.

    Raises: ValueError unless 1 <= k <= the number of blocks.
    Source: the "FT-Top2" rows of Hu et al. 2021 (LoRA), Table 3. Claim C17.
    """
    name, blocks = _blocks(model)
    if not 1 <= k <= len(blocks):
        raise ValueError(f"k={k}: expected between 1 and the number of transformer blocks, {len(blocks)}")
    freeze(model)
    beside = causal_lm(model).get_submodule(name.rpartition(".")[0]).children()
    for module in [*blocks[-k:], *(child for child in beside if "Norm" in type(child).__name__)]:
        module.requires_grad_(True)
    return model


def bitfit(model: nn.Module) -> nn.Module:
    """Train the biases alone.

    Raises: ValueError if the model has none, as most models of the Llama family.
    Source: Ben Zaken et al. 2022. Claim C17.
    """
    biases = [parameter for name, parameter in model.named_parameters() if name.rpartition(".")[2] == "bias"]
    if not biases:
        raise ValueError(f"{type(causal_lm(model)).__name__} has no biases: expected layers with a bias for BitFit")
    freeze(model)
    for bias in biases:
        bias.requires_grad_(True)
    return model


# ---------------------------------------------------------------- insert


def adapters(model: nn.Module, *, size: int, seed: int = 0) -> nn.Module:
    """Train a bottleneck behind the attention and behind the MLP of every block, before each is added to the stream.

        y + U gelu(D y + d) + u,    D (size, width), U (width, size), U = 0 and u = 0 at the start

    Everything else is frozen, the layer norms too, as in the counts of the LoRA paper.

    Args:   size, the width of the bottleneck; seed of D.
    Raises: ValueError if size < 1, if no layer has a known place, or if something was inserted before.
    Source: Houlsby et al. 2019, Figure 2. Claim C17.
    """
    check_counts(size=size)
    bare = causal_lm(model)
    _refuse(bare, Adapter, LoRA)
    layers, blocks = matching_layers(bare, SUBLAYERS), _blocks(model)[1]
    if len(layers) != 2 * len(blocks):
        raise ValueError(f"{len(layers)} places for adapters in {len(blocks)} blocks: expected two in each")
    generator = torch.Generator().manual_seed(check_seed(seed))
    freeze(model)
    for name, layer in layers.items():
        bare.set_submodule(name, Adapter(layer, size, generator))
    return model


# ---------------------------------------------------------------- insert: LoRA


def lora(
    model: nn.Module, *, targets: str | Sequence[str], rank: int = 8, alpha: float = 16.0, name: str = "default",
    seed: int = 0,
) -> nn.Module:  # fmt: skip
    """Train a low-rank path beside the chosen linear layers; everything else is frozen.

        h = W x + alpha / r * B A x,    A (r, in) uniform in +-1 / sqrt(in), B (out, r) = 0

    Args:   targets, one or several: the end of a layer's name ("q_proj", "attn.c_attn"), or a regular expression for
            it (".*_proj"); rank r; alpha; name of the adapter: a model may hold several, and the new one is active;
            seed of A. The factors are float32 (float64 beside float64) whatever the precision of the base.
    Raises: ValueError for a target that matches no linear layer, a rank < 1 or above the smaller side of a layer, an
            alpha that is not a finite number above 0, a name that is taken, a model with merged weights or `adapters`.
    Source: Hu et al. 2021, eq. 3 and section 4.1; the A of their code. Claims C17, C18.
    """
    if not isinstance(alpha, Real) or not 0 < alpha < math.inf:
        raise ValueError(f"alpha={alpha!r}: expected a finite number above 0")
    if not isinstance(rank, Integral):
        raise ValueError(f"rank={rank!r}: expected a whole number")
    layers = matching_layers(causal_lm(model), targets)
    for layer_name, layer in layers.items():
        smaller = min(layer_shape(layer))
        if not 1 <= rank <= smaller:
            raise ValueError(f"rank={rank}: expected between 1 and {smaller}, the smaller side of {layer_name!r}")
    generator = torch.Generator().manual_seed(check_seed(seed))
    factors = {}
    for layer_name, layer in layers.items():
        out, into = layer_shape(layer)
        weight = linear_layer(layer).weight
        factors[layer_name] = (uniform((rank, into), generator, weight), zeros((out, rank), weight))
    return insert_lora(model, factors, alpha=alpha, name=name)


def insert_lora(
    model: nn.Module, factors: dict[str, tuple[nn.Parameter, nn.Parameter]], *, alpha: float, name: str
) -> nn.Module:
    """Put given factors {layer's name: (A, B)} into the model as adapter `name`, make it active, freeze the rest."""
    bare = causal_lm(model)
    _refuse(bare, Adapter)
    _refuse_merged(bare)
    if not name or "." in name or hasattr(nn.ModuleDict(), name):
        raise ValueError(f"name={name!r}: expected a word without dots for the adapter, such as 'default'")
    if name in adapter_names(model):
        raise ValueError(f"name={name!r} is taken: the model holds adapters {listed(adapter_names(model))}")
    for layer_name, (A, B) in factors.items():
        layer = bare.get_submodule(layer_name)
        if not isinstance(layer, LoRA):
            layer = LoRA(layer)
            bare.set_submodule(layer_name, layer)
        layer.adapters[name] = Factors(A, B, alpha)
    return switch_adapter(freeze(model), name)


# ---------------------------------------------------------------- merge and switch


def adapter_names(model: nn.Module) -> list[str]:
    """Names of the LoRA adapters that a model holds, sorted."""
    return sorted({name for _, layer in lora_layers(model) for name in layer.adapters})


def switch_adapter(model: nn.Module, name: str | None) -> nn.Module:
    """Use the LoRA adapter `name`, or with None the base alone: a reference policy without a second copy.

    The factors in use are trainable, those of other adapters frozen. Returns the model.

    Raises: ValueError for a name that the model does not hold, and while an adapter is merged.
    Source: claim C22.
    """
    layers = _some_lora_layers(model)
    _refuse_merged(model)
    if name is not None and name not in adapter_names(model):
        raise ValueError(f"name={name!r}: expected None or one of {listed(adapter_names(model))}")
    for layer in layers:
        layer.active = name if name in layer.adapters else None
        for other, factors in layer.adapters.items():
            factors.requires_grad_(other == name)
    return model


@contextmanager
def adapter_off(model: nn.Module) -> Iterator[nn.Module]:
    """Inside, the base alone without the active LoRA adapter: a reference policy that needs no second copy.

    Raises: ValueError as `switch_adapter`.
    """
    active = next((layer.active for layer in _some_lora_layers(model) if layer.active is not None), None)
    switch_adapter(model, None)
    try:
        yield model
    finally:
        switch_adapter(model, active)


def merge_lora(model: nn.Module) -> nn.Module:
    """Add the active adapter into the weights, W + alpha / r * B A: from then on each layer is one product again.

    Meanwhile the base's own weights of these layers are kept, so that `unmerge_lora` returns them bit for bit. Returns
    the model.

    Raises: ValueError without LoRA layers, without an active adapter, and if it is merged already.
    Source: Hu et al. 2021, section 4.1. Claim C20.
    """
    layers = _some_lora_layers(model)
    _refuse_merged(model)
    active = [layer for layer in layers if layer.active is not None]
    if not active:
        raise ValueError(f"no adapter is active: switch_adapter to one of {listed(adapter_names(model))} first")
    for layer in active:
        layer.merge()
    return model


def unmerge_lora(model: nn.Module) -> nn.Module:
    """Put the base's own weights back, bit for bit, and the adapter beside them. Returns the model.

    Raises: ValueError if nothing is merged.
    """
    merged = [layer for layer in _some_lora_layers(model) if layer.merged]
    if not merged:
        raise ValueError("nothing is merged: expected a model after merge_lora")
    for layer in merged:
        layer.unmerge()
    return model


def _blocks(model: nn.Module) -> tuple[str, Sequence[nn.Module]]:
    """Name of the list of transformer blocks, and the blocks: the first list of modules in every layout."""
    modules = causal_lm(model).named_modules()
    return next(((name, module) for name, module in modules if isinstance(module, nn.ModuleList)), ("", ()))


def _some_lora_layers(model: nn.Module) -> list[LoRA]:
    layers = [layer for _, layer in lora_layers(model)]
    if not layers:
        raise ValueError("model has no LoRA layers: expected one that went through lora or load_adapter")
    return layers


def _refuse(model: nn.Module, *kinds: type) -> None:
    for name, module in model.named_modules():
        if isinstance(module, kinds):
            raise ValueError(f"model has {type(module).__name__} at {name!r} already: expected a model without")


def _refuse_merged(model: nn.Module) -> None:
    for _, layer in lora_layers(model):
        if layer.merged:
            raise ValueError(f"adapter {layer.active!r} is merged into the weights: unmerge_lora first")
