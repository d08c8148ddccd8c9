"""The logits that a loss asks for, and little else: the forward pass of a Llama layout on a CPU, without padding.

    rows (B, T), mask -> one line of n tokens (n, width): each row up to its last masked position
    products, norms and rotations read the line; attention alone lays it out as rows again
    the last layer asks at the m masked positions; the others give it keys and values
    -> logits (m, V)

On a small model what stands between the products takes as long as they do. So norm, rotation and the way between line
and rows are one node each of the gradient's graph, with the gradient written out: few passes over the memory.

Here: `can_leave_out_padding`, whether a model may be read so, and `masked_logits`. Deliberately not here: sampling
(decoding, fast_sampling), and rows that begin alike (shared_prefixes), which may be read in this way, too.
Source: texts in one line without padding, Zeng et al. 2022, "Boosting Distributed Training Performance of the Unpadded
BERT Model"; the gradient of the norm, Zhang and Sennrich 2019, "Root Mean Square Layer Normalization", section 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ptlearn.lm.decoding import has_llama_layout, is_hooked
from ptlearn.lm.joined_weights import is_norm, norm_eps, rotate


def can_leave_out_padding(model: nn.Module) -> bool:
    """Whether `masked_logits` computes what the model computes: a Llama layout on a CPU in full precision, with nothing
    that wants its layers to be called as they are: hooks, compilation, layers that are run again, dropout of attention.

    What stands at the place of a projection, a norm or an MLP may be anything that reads tokens one by one (LoRA).
    """
    if not has_llama_layout(model) or model.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return False
    if model.dtype not in (torch.float32, torch.float64) or model.config._attn_implementation not in ("sdpa", "eager"):
        return False
    as_they_are = is_hooked(model) or any(module._compiled_call_impl is not None for module in model.modules())
    return not as_they_are and not any(
        getattr(layer, "gradient_checkpointing", False) or (layer.training and layer.self_attn.attention_dropout > 0)
        for layer in model.model.layers
    )


def masked_logits(
    model: nn.Module, tokens: Tensor, mask: Tensor, attention_mask: Tensor | None = None,
    position_ids: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The logits (m, V) of the m positions where the mask is True, row by row, with gradient.

    Args: model, one that `can_leave_out_padding`; tokens (B, T), each seeing those before it; mask (B, T), True at
          least once; attention_mask (B, 1, T, T), added to the scores in place of that; position_ids (B, T).
    """
    body, (rows, columns) = model.model, tokens.shape
    # who sees what is not known where the mask is not the causal one: then padding stays
    read = _Line(_until_last(mask) if attention_mask is None else torch.ones_like(mask))
    stream = body.embed_tokens(tokens.flatten().index_select(0, read.cells))
    positions = torch.arange(columns)[None] if position_ids is None else position_ids
    rotation = [part.expand(rows, -1, -1).flatten(0, 1).index_select(0, read.cells).unsqueeze(1)
                for part in body.rotary_emb(stream, positions)]  # fmt: skip
    everywhere, masked = _Asking(read, None, attention_mask), _asking_where(mask, read, attention_mask, stream.dtype)
    for number, layer in enumerate(body.layers, start=1):
        asking = masked if number == len(body.layers) else everywhere
        states = _norm(layer.input_layernorm, stream)
        update = _attention(layer.self_attn, states, rotation, read, asking)
        stream = asking.of(stream) + update
        stream = stream + layer.mlp(_norm(layer.post_attention_layernorm, stream))
    return model.lm_head(_norm(body.norm, stream))


def _attention(attention: nn.Module, states: Tensor, rotation: list[Tensor], read: _Line, asking: _Asking) -> Tensor:
    """From the states (n, width) behind the norm to what attention adds to those that ask, (m, width)."""
    size = attention.head_dim

    def heads(name: str, states: Tensor) -> Tensor:
        found = getattr(attention, f"{name}_proj")(states).unflatten(-1, (-1, size))
        norm = getattr(attention, f"{name}_norm", None)  # Qwen3
        return found if norm is None else _norm(norm, found)

    query = _turned(heads("q", asking.of(states)), *map(asking.of, rotation))
    key, value = _turned(heads("k", states), *rotation), heads("v", states)
    query, key, value = asking.line.rows(query), read.rows(key), read.rows(value)
    mixed = nn.functional.scaled_dot_product_attention(
        *(part.transpose(1, 2) for part in (query, key, value)), attn_mask=asking.bias, is_causal=asking.bias is None,
        scale=attention.scaling, enable_gqa=attention.num_key_value_groups > 1,
    )  # fmt: skip
    return attention.o_proj(asking.line.of(mixed.transpose(1, 2).flatten(2)))


# ---------------------------------------------------------------- a line of tokens, and rows of them


class _Line:
    """Where the True cells of a table (B, T) stand once they form a line (n,), row by row."""

    def __init__(self, table: Tensor):
        flat = table.flatten()
        self.shape = table.shape
        self.cells = flat.nonzero()[:, 0]  # (n,) the cell that each one had
        self.holes = (~flat).nonzero()[:, 0]  # the cells that are left out
        self.places = (flat.cumsum(0) - 1).clamp_(min=0)  # (B T,) what of the line stands in a cell; holes: anything

    def rows(self, line: Tensor) -> Tensor:
        """(n, ...) to (B, T, ...), 0 in the holes."""
        return _LinearMap.apply(line, self.spread, self.gather).unflatten(0, self.shape)

    def of(self, rows: Tensor) -> Tensor:
        """(B, T, ...) to (n, ...)."""
        return _LinearMap.apply(rows.flatten(0, 1), self.gather, self.spread)

    def spread(self, line: Tensor) -> Tensor:
        return line.index_select(0, self.places).index_fill_(0, self.holes, 0) if len(self.holes) else line

    def gather(self, cells: Tensor) -> Tensor:
        return cells.index_select(0, self.cells) if len(self.holes) else cells


@dataclass(frozen=True)
class _Asking:
    """The positions whose queries a layer computes: m of the n tokens that are read."""

    line: _Line  # of the table (B, M) that they form
    chosen: Tensor | None  # (m,) their numbers among those that are read; None: all
    bias: Tensor | None  # (B, 1, M, T) what is added to their scores; None: nothing, and each sees those before it

    def of(self, tokens: Tensor) -> Tensor:
        return tokens if self.chosen is None else tokens.index_select(0, self.chosen)


def _asking_where(mask: Tensor, read: _Line, attention_mask: Tensor | None, dtype: torch.dtype) -> _Asking:
    counts, cells, columns = mask.sum(1), mask.flatten().nonzero()[:, 0], mask.shape[1]
    line = _Line(torch.arange(int(counts.max())) < counts[:, None])
    if attention_mask is None:
        hidden = torch.arange(columns) > cells[:, None] % columns
        bias = torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, -torch.inf)
    else:
        bias = attention_mask.expand(len(mask), 1, columns, columns).flatten(0, 2).index_select(0, cells)
    return _Asking(line, read.places[cells], line.spread(bias).unflatten(0, line.shape).unsqueeze(1))


def _until_last(mask: Tensor) -> Tensor:
    """True up to the last True of each row."""
    return mask.flip(1).cummax(1).values.flip(1)


# ---------------------------------------------------------------- nodes with their gradients


class _LinearMap(Function):
    """A linear map of a tensor; the gradient goes back through its transpose."""

    @staticmethod
    def forward(ctx, tensor: Tensor, there: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.back = back
        return there(tensor)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.back(gradient), None, None


def _turned(heads: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """The rotary embedding; the gradient turns back."""
    ahead, back = (cosine, sine), (cosine, -sine)
    return _LinearMap.apply(heads, lambda heads: rotate(heads, ahead), lambda gradient: rotate(gradient, back))


class _Norm(Function):
    """RMSNorm: with r = 1 / sqrt(mean x² + eps) and y = r x, weight * y.

    The gradient g of weight * y becomes, with u = weight * g, r (u - y mean(u y)).
    """

    @staticmethod
    def forward(ctx, states: Tensor, weight: Tensor, eps: float) -> Tensor:
        length = torch.linalg.vector_norm(states, dim=-1, keepdim=True)
        rate = length.mul_(states.shape[-1] ** -0.5).hypot_(length.new_tensor(eps**0.5)).reciprocal_()
        normed = states * rate
        ctx.save_for_backward(normed, rate, weight)
        return normed * weight

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:
        normed, rate, weight = ctx.saved_tensors
        of_weight = (gradient * normed).flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        scaled = gradient * weight
        mean = torch.linalg.vecdot(scaled, normed).unsqueeze(-1).div_(scaled.shape[-1])
        return scaled.addcmul_(normed, mean, value=-1).mul_(rate), of_weight, None


def _norm(module: nn.Module, states: Tensor) -> Tensor:
    return _Norm.apply(states, module.weight, norm_eps(module)) if is_norm(module) else module(states)
