"""One token at a time: read a batch of prompts once, then step every row forward from its cache of keys and values.

Here: `start`, which reads the prompts, and three decoders with the same two verbs, `step` (one token per row in, the
next logits out) and `keep` (drop rows, or copy them). `JoinedDecoder` runs small Llama, Qwen2 and Qwen3 layouts from a
copy of their weights, `LlamaDecoder` those whose modules have to be called, `CacheDecoder` any other causal model of
`transformers` through its own forward.
Deliberately not here: choosing the next token (text.py), the copy of the weights (joined_weights.py) and gradients.

Prompts of different lengths are aligned at their right end, so that every row writes the same column of the cache;
the columns to the left of a short prompt are hidden from it and its positions start at 0 behind them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ptlearn.lm.joined_weights import FAMILIES, JoinedWeights, can_join, causal_bias, rotate, split_heads

_MORE = 16  # columns at least by which a full cache grows
_COPIED = 2**26  # parameters up to which a model's weights are copied: 256 MB in float32
# hooks from there do nothing here: one chooses the positions of a loss, one records attention where it was asked for
_IDLE = ("ptlearn.lm.models", "transformers.utils.output_capturing")


def start(model: nn.Module, prompts: Sequence[Sequence[int]], *, max_new_tokens: int):
    """Read the prompts and return (decoder, logits (B, V) for the token after each prompt).

    Args:    model, a causal LM of `transformers` in eval mode; prompts, B lists of token ids, none empty;
             max_new_tokens, for how many tokens to make room.
    """
    device = model.get_input_embeddings().weight.device
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    longest = int(lengths.max())
    tokens = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    hidden = longest - lengths
    if _joins(model):
        decoder = JoinedDecoder(model)
        return decoder, decoder.read(tokens, hidden, max_new_tokens)
    columns = torch.arange(longest, device=device)
    # without padding the mask says nothing, and attention is faster without one
    visible = (columns >= hidden[:, None]).long() if bool(hidden.any()) else None
    positions = (columns - hidden[:, None]).clamp(min=0)
    output = model(tokens, attention_mask=visible, position_ids=positions, use_cache=True, logits_to_keep=1)
    decoder = LlamaDecoder if has_llama_layout(model) else CacheDecoder
    return decoder(model, output.past_key_values, hidden, max_new_tokens), output.logits[:, -1]


def _joins(model: nn.Module) -> bool:
    """Whether JoinedDecoder takes the model: small, on a CPU, and nothing in it has to be called."""
    small = sum(parameter.numel() for parameter in model.parameters()) <= _COPIED
    on_cpu = model.get_input_embeddings().weight.device.type == "cpu"
    return small and on_cpu and has_llama_layout(model) and can_join(model) and not is_hooked(model)


def is_hooked(model: nn.Module) -> bool:
    """Whether a hook wants to see or change what passes through a module."""
    hooks = (each for m in model.modules() for each in (*m._forward_hooks.values(), *m._forward_pre_hooks.values()))
    return any(hook.__module__ not in _IDLE for hook in hooks)


def has_llama_layout(model: nn.Module) -> bool:
    """Whether LlamaDecoder computes what the model computes.

    Layers and attention must be those of a known family, without sliding windows. What stands at the place of a norm,
    a projection or an MLP may be anything (LoRA, an adapter), because it is called as it is.
    """
    family = type(model).__name__.removesuffix("ForCausalLM")
    return family in FAMILIES and all(
        type(layer).__name__ == f"{family}DecoderLayer"
        and type(layer.self_attn).__name__ == f"{family}Attention"
        and getattr(layer.self_attn, "sliding_window", None) is None
        for layer in model.model.layers
    )


class CacheDecoder:
    """Steps any causal LM of `transformers` through its own forward and cache. State: the cache and the padding."""

    def __init__(self, model: nn.Module, cache, hidden: Tensor, max_new_tokens: int):
        self.model, self.cache, self.hidden = model, cache, hidden
        self.used = cache.get_seq_length()

    def step(self, tokens: Tensor) -> Tensor:
        """Append one token (n,) to every row; return the logits (n, V) for the next."""
        columns = torch.arange(self.used + 1, device=tokens.device)
        visible = (columns >= self.hidden[:, None]).long() if bool(self.hidden.any()) else None
        state = {"position_ids": (self.used - self.hidden)[:, None], "past_key_values": self.cache, "use_cache": True}
        output = self.model(tokens[:, None], attention_mask=visible, **state)
        self.used += 1
        return output.logits[:, -1]

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows (n,) alone, in this order; one that is named twice is copied."""
        self.cache.batch_select_indices(rows)
        self.hidden = self.hidden[rows]


class LlamaDecoder:
    """Steps a Llama layout on plain tensors. State: per layer keys and values, (2, n, key heads, columns, size), with
    room for more columns; what is added to the scores, (n, key heads, 1, columns), -inf at padding and empty columns.

    On a CPU, in full precision, attention is two plain products over all columns, the empty ones hidden: memory is read
    up to twice as fast where nothing is left out between one head's columns and the next one's. Elsewhere it is the
    fused kernel.
    """

    def __init__(self, model: nn.Module, cache, hidden: Tensor, max_new_tokens: int):
        self.model = model
        self._begin([torch.stack((layer.keys, layer.values)) for layer in cache.layers], hidden, max_new_tokens)

    def _begin(self, cache: list[Tensor], hidden: Tensor, max_new_tokens: int) -> None:
        """Go on from these caches, whose first columns, `hidden` (n,) of them, are padding."""
        self.cache, self.hidden = cache, hidden
        _, _, heads, self.used, _ = cache[0].shape
        self.most = self.used + max_new_tokens
        padding = torch.arange(self.used, device=hidden.device) < hidden[:, None]
        bias = cache[0].new_zeros(padding.shape).masked_fill(padding, -torch.inf)
        self.bias = bias[:, None, None].repeat(1, heads, 1, 1)
        self.fused = bias.device.type != "cpu" or bias.dtype.itemsize < 4
        self.flat = None

    def step(self, tokens: Tensor) -> Tensor:
        """Append one token (n,) to every row; return the logits (n, V) for the next."""
        self._open_column()
        body = self.model.model
        states = body.embed_tokens(tokens)
        rotation = body.rotary_emb(states, (self.used - self.hidden)[:, None])
        for index, layer in enumerate(body.layers):
            states = states + self._attend(index, layer.self_attn, layer.input_layernorm(states), rotation)
            states = states + layer.mlp(layer.post_attention_layernorm(states))
        self.used += 1
        return self.model.lm_head(body.norm(states))

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows (n,) alone, in this order; one that is named twice is copied."""
        self.cache = [layer.index_select(1, rows) for layer in self.cache]
        self.bias, self.hidden, self.flat = self.bias[rows], self.hidden[rows], None

    def _open_column(self) -> None:
        """Let the next column be seen; where there is none, make room for some more."""
        if self.used == self.bias.shape[-1]:
            columns = max(1, min(max(_MORE, self.used // 8), self.most - self.used))
            _, rows, heads, _, size = self.cache[0].shape
            room = self.bias.new_zeros(2, rows, heads, columns, size)
            self.cache = [torch.cat((layer, room), 3) for layer in self.cache]
            self.bias, self.flat = nn.functional.pad(self.bias, (0, columns), value=-torch.inf), None
        if self.flat is None and not self.fused:  # views for the plain products, rows and heads as one
            shape = -1, *self.cache[0].shape[3:]
            self.flat = [(keys.view(shape).mT, values.view(shape)) for keys, values in self.cache]
            self.flat_bias = self.bias.view(-1, 1, self.bias.shape[-1])
        self.bias[..., self.used] = 0

    def _attend(self, index: int, attention: nn.Module, states: Tensor, rotation) -> Tensor:
        """Write each row's new key and value, then let its one query look at all of them: (n, width) to (n, width)."""
        query, key, value = (
            project(states).unflatten(-1, (-1, attention.head_dim))
            for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        if hasattr(attention, "q_norm"):
            query, key = attention.q_norm(query), attention.k_norm(key)
        mixed = self._look(index, rotate(query, rotation), rotate(key, rotation), value, attention.scaling)
        return attention.o_proj(mixed)

    def _look(self, index: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Write the new column of one layer and attend to all: three (n, their heads, size) to (n, heads * size)."""
        column = self.cache[index].select(3, self.used)
        column[0].copy_(key)
        column[1].copy_(value)
        # the query heads that share a key head stand where positions usually stand
        if self.fused:
            keys, values = self.cache[index]
            query = query.unflatten(1, (keys.shape[1], -1))
            options = {"attn_mask": self.bias, "scale": scaling}
            return nn.functional.scaled_dot_product_attention(query, keys, values, **options).flatten(1)
        keys, values = self.flat[index]
        query = query.reshape(len(keys), -1, query.shape[-1])
        scores = torch.baddbmm(self.flat_bias, query, keys, alpha=scaling)
        return torch.bmm(scores.softmax(-1), values).view(len(key), -1)


class JoinedDecoder(LlamaDecoder):
    """The same from a copy of the weights, prompts included: few large products, and what can be done in place is.

    A step of a small model is some hundred operations, most of which take longer to begin than to do. So the layers are
    written once more here: `JoinedWeights.forward` changes nothing in place, for compiled functions and CUDA graphs.
    """

    def __init__(self, model: nn.Module):
        weights = self.weights = JoinedWeights(model, model.get_input_embeddings().weight.dtype, copied=False)
        width, wide = weights.embedding.shape[1], torch.promote_types(weights.dtype, torch.float32)
        self.floor = torch.tensor((width * weights.eps) ** 0.5, dtype=wide)
        # as `_norm` wants them; and the heads in their own order
        norms = [[layer["attention_norm"], layer["mlp_norm"]] for layer in weights.layers]
        self.norms = [[norm.to(wide) * width**0.5 for norm in pair] for pair in norms]
        self.last_norm = weights.last_norm.to(wide) * width**0.5
        groups = weights.heads // weights.key_heads, weights.key_heads, weights.size
        self.out = [layer["out"].unflatten(1, groups).transpose(1, 2).flatten(1) for layer in weights.layers]

    def read(self, tokens: Tensor, hidden: Tensor, max_new_tokens: int) -> Tensor:
        """Read prompts (n, T), of whose tokens the first `hidden` (n,) are padding: the logits (n, V) behind them."""
        weights, cache = self.weights, []
        columns = torch.arange(tokens.shape[1], device=tokens.device)
        rotation = weights.rotation((columns - hidden[:, None]).clamp(min=0))
        # without padding there is nothing to be said, and attention is faster
        bias = causal_bias(columns, hidden, weights.dtype) if bool(hidden.any()) else None
        options = {"attn_mask": bias, "is_causal": bias is None, "scale": weights.scaling}
        group = weights.heads // weights.key_heads

        def attend(index: int, joined: Tensor) -> Tensor:
            heads = self._split(index, joined.unflatten(0, tokens.shape), rotation)
            query, key, value = (each.transpose(1, 2) for each in heads)
            cache.append(torch.stack((key, value)))
            key, value = (each.repeat_interleave(group, 1) for each in (key, value)) if group > 1 else (key, value)
            mixed = nn.functional.scaled_dot_product_attention(query, key, value, **options)
            return mixed.transpose(1, 2).reshape(tokens.numel(), -1)

        stream = self._forward(tokens.flatten(), attend).unflatten(0, tokens.shape)
        self._begin(cache, hidden, max_new_tokens)
        return self._head(stream[:, -1])

    def step(self, tokens: Tensor) -> Tensor:
        """Append one token (n,) to every row; return the logits (n, V) for the next."""
        self._open_column()
        rotation = self.weights.rotation(self.used - self.hidden)

        def attend(index: int, joined: Tensor) -> Tensor:
            return self._look(index, *self._split(index, joined, rotation), self.weights.scaling)

        stream = self._forward(tokens, attend)
        self.used += 1
        return self._head(stream)

    def _forward(self, tokens: Tensor, attend: Callable) -> Tensor:
        """The residual stream (m, width) behind the last layer, of tokens (m,)."""
        stream = nn.functional.embedding(tokens, self.weights.embedding)
        layers = zip(self.weights.layers, self.norms, self.out, strict=True)
        for index, (layer, (attention_norm, mlp_norm), out) in enumerate(layers):
            joined = _product(self._norm(stream, attention_norm), layer["in"], layer["in_bias"])
            _add_product(stream, attend(index, joined), out, layer["out_bias"])
            joined = _product(self._norm(stream, mlp_norm), layer["gate_up"], layer["gate_up_bias"])
            gates, ups = joined.chunk(2, -1)
            gated = nn.functional.silu(gates, inplace=True).mul_(ups)
            _add_product(stream, gated, layer["down"], layer["down_bias"])
        return stream

    def _head(self, stream: Tensor) -> Tensor:
        return nn.functional.linear(self._norm(stream, self.last_norm), self.weights.head)

    def _norm(self, states: Tensor, weight: Tensor) -> Tensor:
        """RMSNorm by lengths, x / sqrt(|x|^2 + width eps); the sqrt(width) above it stands in the weight."""
        length = torch.linalg.vector_norm(states, dim=-1, keepdim=True, dtype=weight.dtype).hypot_(self.floor)
        return torch.div(states, length).mul_(weight).to(states.dtype)

    def _split(self, index: int, joined: Tensor, rotation: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        layer, weights = self.weights.layers[index], self.weights
        return split_heads(joined, (layer["q_norm"], layer["k_norm"]), rotation, weights.key_heads, weights.eps)


def _product(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What `linear` says, the bias added behind the product: `linear` on a CPU copies it first, which is slower."""
    product = torch.mm(states, weight.mT)
    return product if bias is None else product.add_(bias)


def _add_product(stream: Tensor, states: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Add a linear layer's output to the stream, in place."""
    (stream if bias is None else stream.add_(bias)).addmm_(states, weight.mT)
