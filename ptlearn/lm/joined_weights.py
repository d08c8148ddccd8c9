"""A second copy of a Llama layout's weights, laid out for sampling: few large products, everything between them fused.

Here: `can_join`, whether a model's weights can be taken over; `JoinedWeights`, the copy, and its forward pass around
any attention; the pointwise functions between the products; `plain_weights`, one by one, for other samplers.
Deliberately not here: attention and its cache, and drawing (fast_sampling.py).

Query, key and value are one product, gate and up another; LoRA is added into the copy; a weight that FSDP2 shares out
over processes is put together, which all of them do at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ptlearn.rollout import upcast

FAMILIES = ("Llama", "Qwen2", "Qwen3")  # layouts whose steps are written here
_MOVING = ("dynamic", "longrope")  # rotary embeddings whose angles depend on how long the text is


def can_join(model: nn.Module) -> bool:
    """Whether JoinedWeights computes what the model computes: Llama, Qwen2 or Qwen3 without windows, and nothing in the
    place of its linear layers but LoRA."""
    family = _kind(model).removesuffix("ForCausalLM")
    if family not in FAMILIES or model.config.hidden_act != "silu":
        return False
    body = model.model
    if body.rotary_emb.rope_type in _MOVING or _kind(body.embed_tokens) != "Embedding":
        return False
    if not (_is_linear(model.lm_head) and is_norm(body.norm)):
        return False
    return all(
        (_kind(layer), _kind(layer.self_attn), _kind(layer.mlp))
        == (f"{family}DecoderLayer", f"{family}Attention", f"{family}MLP")
        and getattr(layer.self_attn, "sliding_window", None) is None
        and all(_is_linear(module) for name, module in _children(layer) if name.endswith("_proj"))
        and all(is_norm(module) for name, module in _children(layer) if name.endswith("norm"))
        for layer in body.layers
    )


class Pointwise(NamedTuple):
    """What stands between the products, each a function that can be compiled by itself."""

    norm: Callable
    add_norm: Callable
    gate: Callable
    store_heads: Callable

    def compiled(self) -> Pointwise:
        return Pointwise(*(torch.compile(function, dynamic=False) for function in self))


class JoinedWeights:
    """The weights of one model in another precision. `take_over` brings them up to date, in the same memory.

    For one use, `copied=False` leaves those that need no change where the model has them, and `take_over` is refused.
    Holds: layers, one {name: tensor or None} each; embedding, head (V, width), last_norm (width,); frequencies
    (size / 2,) and amplitude of the rotary embedding; heads, key_heads, size, scaling of attention; eps of the norms.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype, *, copied: bool = True):
        attention, norm = model.model.layers[0].self_attn, model.model.norm
        self.dtype, self.copied = dtype, copied
        self.size, self.scaling = attention.head_dim, attention.scaling
        self.heads, self.key_heads = model.config.num_attention_heads, model.config.num_key_value_heads
        self.eps = norm_eps(norm)
        self.amplitude = model.model.rotary_emb.attention_scaling
        self.layers: list[dict[str, Tensor | None]] = [{} for _ in model.model.layers]
        self._rest: dict[str, Tensor | None] = {}
        self.take_over(model)

    embedding = property(lambda self: self._rest["embedding"])
    head = property(lambda self: self._rest["head"])
    last_norm = property(lambda self: self._rest["last_norm"])
    frequencies = property(lambda self: self._rest["frequencies"])

    @torch.no_grad()
    def take_over(self, model: nn.Module) -> None:
        """Copy the model's current weights, LoRA added. Under FSDP2 all processes have to call it together."""
        if self._rest and not self.copied:
            raise ValueError("copied=False: expected weights of its own, to be written into")
        body = model.model
        for mine, layer in zip(self.layers, body.layers, strict=True):
            for name, weight in self._of_layer(layer):
                _put(mine, name, weight, self.dtype, self.copied)
        _put(self._rest, "embedding", _whole(body.embed_tokens.weight), self.dtype, self.copied)
        _put(self._rest, "head", _added(model.lm_head), self.dtype, self.copied)
        _put(self._rest, "last_norm", _whole(body.norm.weight), self.dtype, self.copied)
        _put(self._rest, "frequencies", body.rotary_emb.inv_freq, torch.float32, self.copied)

    def _of_layer(self, layer: nn.Module) -> Iterator[tuple[str, Tensor | None]]:
        attention, mlp = layer.self_attn, layer.mlp
        yield "attention_norm", _whole(layer.input_layernorm.weight)
        yield "mlp_norm", _whole(layer.post_attention_layernorm.weight)
        for name in ("q_norm", "k_norm"):
            yield name, _whole(getattr(attention, name).weight) if hasattr(attention, name) else None
        products = {
            "in": (attention.q_proj, attention.k_proj, attention.v_proj), "out": (attention.o_proj,),
            "gate_up": (mlp.gate_proj, mlp.up_proj), "down": (mlp.down_proj,),
        }  # fmt: skip
        for name, modules in products.items():
            weight, biases = torch.cat([_added(module) for module in modules]), [_bias(module) for module in modules]
            yield name, self._interleaved(weight) if name == "out" else weight
            yield f"{name}_bias", None if biases[0] is None else torch.cat(biases)

    def _interleaved(self, weight: Tensor) -> Tensor:
        """The columns in the order in which attention leaves its heads: the first of each group, then the seconds."""
        return weight.view(len(weight), self.key_heads, -1, self.size).transpose(1, 2).reshape(weight.shape)

    def forward(self, tokens: Tensor, attend: Callable, pointwise: Pointwise) -> Tensor:
        """The states (..., width) behind the last norm, before the head, of tokens (...).

        `attend(index, layer, joined (..., (heads + 2 key heads) * size)) -> (..., heads * size)`, heads interleaved.
        """
        stream = nn.functional.embedding(tokens, self.embedding)
        states = pointwise.norm(stream, self.layers[0]["attention_norm"], self.eps)
        following = [*(layer["attention_norm"] for layer in self.layers[1:]), self._rest["last_norm"]]
        for index, (layer, next_norm) in enumerate(zip(self.layers, following, strict=True)):
            mixed = attend(index, layer, linear(states, layer["in"], layer["in_bias"]))
            update = linear(mixed, layer["out"], layer["out_bias"])
            stream, states = pointwise.add_norm(stream, update, layer["mlp_norm"], self.eps)
            hidden = pointwise.gate(linear(states, layer["gate_up"], layer["gate_up_bias"]))
            update = linear(hidden, layer["down"], layer["down_bias"])
            stream, states = pointwise.add_norm(stream, update, next_norm, self.eps)
        return states

    def rotation(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine (..., 1, size) of the angles at positions (...), the same for every head."""
        angles = positions[..., None, None].float() * self.frequencies
        angles = torch.cat((angles, angles), -1)
        return (angles.cos() * self.amplitude).to(self.dtype), (angles.sin() * self.amplitude).to(self.dtype)


# ---------------------------------------------------------------- between the products


def norm(states: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm over the last dimension, its mean in at least float32."""
    return weight * nn.functional.rms_norm(upcast(states), weight.shape, eps=eps).to(states.dtype)


def add_norm(stream: Tensor, update: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The residual stream with an update added, and its norm."""
    stream = stream + update
    return stream, norm(stream, weight, eps)


def gate(joined: Tensor) -> Tensor:
    """silu(gate) * up of both side by side, (..., 2 m) to (..., m)."""
    gates, ups = joined.chunk(2, -1)
    return nn.functional.silu(gates) * ups


def split_heads(
    joined: Tensor, norms: tuple, rotation: tuple[Tensor, Tensor], key_heads: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value (..., their heads, size) of their joint product, query and key normed and rotated."""
    heads = joined.unflatten(-1, (-1, rotation[0].shape[-1]))
    counts = heads.shape[-2] - 2 * key_heads, key_heads
    turning, value = heads.split((sum(counts), key_heads), -2)
    if norms[0] is not None:
        query, key = turning.split(counts, -2)
        turning = torch.cat((norm(query, norms[0], eps), norm(key, norms[1], eps)), -2)
    return *rotate(turning, rotation).split(counts, -2), value


def store_heads(
    joined: Tensor, norms: tuple, rotation: tuple[Tensor, Tensor], keys: Tensor, values: Tensor, column: Tensor,
    eps: float,
) -> Tensor:  # fmt: skip
    """One token of every row: its key and value into a column (1,) of their caches (n, key heads, columns, size), its
    query (n, heads, size) out."""
    query, key, value = split_heads(joined, norms, rotation, keys.shape[1], eps)
    keys.index_copy_(2, column, key.unsqueeze(2))
    values.index_copy_(2, column, value.unsqueeze(2))
    return query


def rotate(heads: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turn (..., size) by an angle, the halves paired; rotation, its cosine and sine (..., size)."""
    cosine, sine = rotation
    turned = heads * cosine
    (first, second), (low, high) = heads.chunk(2, -1), sine.chunk(2, -1)
    ahead, behind = turned.chunk(2, -1)
    ahead.addcmul_(second, low, value=-1)
    behind.addcmul_(first, high)
    return turned


def causal_bias(columns: Tensor, hidden: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to the scores (n, 1, T, T) of prompts; of columns (T,) the first `hidden` (n,) are padding."""
    seen = (columns <= columns[:, None]) & (columns >= hidden[:, None, None])
    # padding sees itself: nothing at all would be 0 / 0
    seen |= columns == columns[:, None]
    return torch.zeros(seen.shape, dtype=dtype, device=columns.device).masked_fill(~seen, -torch.inf)[:, None]


PLAIN = Pointwise(norm, add_norm, gate, store_heads)


# ---------------------------------------------------------------- weights of a model


def plain_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every weight of any causal LM under the name that it has without LoRA: whole, and with LoRA added."""
    around = {name: module for name, module in model.named_modules() if _has_paths(module)}
    for name, module in around.items():
        yield f"{name}.weight", _added(module)
        if _bias(module) is not None:
            yield f"{name}.bias", _bias(module)
    for name, parameter in model.named_parameters():
        if not any(name.startswith(f"{wrapped}.") for wrapped in around):
            yield name, _whole(parameter)


def _kind(module: nn.Module) -> str:
    """The name of its class, without what FSDP2 puts before it."""
    return type(module).__name__.removeprefix("FSDP")


def _children(layer: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return (pair for parent in (layer, layer.self_attn, layer.mlp) for pair in parent.named_children())


def _has_paths(module: nn.Module) -> bool:
    """Whether this is LoRA around a layer; known by what it holds, since finetuning stands above this room."""
    return all(hasattr(module, name) for name in ("base", "adapters", "active", "merged"))


def _is_linear(module: nn.Module) -> bool:
    return _kind(module.base if _has_paths(module) else module) == "Linear"


def is_norm(module: nn.Module) -> bool:
    """Whether it is an RMSNorm with a weight, known by its name: each layout has a class of its own."""
    return _kind(module).endswith("RMSNorm") and module.weight is not None


def norm_eps(norm: nn.Module) -> float:
    """What an RMSNorm adds to the mean of squares; torch's own may leave it to the precision."""
    eps = norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps
    return torch.finfo(norm.weight.dtype).eps if eps is None else eps


def _added(module: nn.Module) -> Tensor:
    """The weight of a linear layer, with the active path of LoRA added unless it is merged already."""
    if not _has_paths(module):
        return _whole(module.weight)
    weight = _whole(module.base.weight)
    if module.active is None or module.merged:
        return weight
    factors = module.adapters[module.active]
    delta = factors.scale * (_whole(factors.B) @ _whole(factors.A))
    return weight + (delta.T if _kind(module.base) == "Conv1D" else delta)


def _bias(module: nn.Module) -> Tensor | None:
    bias = (module.base if _has_paths(module) else module).bias
    return None if bias is None else _whole(bias)


def _whole(parameter: Tensor) -> Tensor:
    """The parameter itself; put together from all processes where FSDP2 shares it out."""
    parameter = parameter.detach()
    return parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter


def _put(mine: dict[str, Tensor | None], name: str, weight: Tensor | None, dtype: torch.dtype, copied: bool) -> None:
    """In place where it stands already: a captured CUDA graph knows the address, not the name."""
    if mine.get(name) is not None and weight is not None:
        mine[name].copy_(weight)
    else:
        mine[name] = None if weight is None else weight.to(dtype, copy=copied, memory_format=torch.contiguous_format)
