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

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ptlearn.lm.joined_weights import FAMILIES, PLAIN, JoinedWeights, can_join, rotate, split_heads

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
    columns = torch.arange(longest, device=device)
    # without padding the mask says nothing, and attention is faster without one
    visible = (columns >= hidden[:, None]).long() if bool(hidden.any()) else None
    positions = (columns - hidden[:, None]).clamp(min=0)
    output = model(tokens, attention_mask=visible, position_ids=positions, use_cache=True, logits_to_keep=1)
    return _decoder(model)(model, output.past_key_values, hidden, max_new_tokens), output.logits[:, -1]


def _decoder(model: nn.Module) -> type:
    if not has_llama_layout(model):
        return CacheDecoder
    small = sum(parameter.numel() for parameter in model.parameters()) <= _COPIED
    on_cpu = model.get_input_embeddings().weight.device.type == "cpu"
    return JoinedDecoder if small and on_cpu and not _is_hooked(model) and can_join(model) else LlamaDecoder


def _is_hooked(model: nn.Module) -> bool:
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
    """Steps a Llama layout on plain tensors. State: per layer keys and values (n, key heads, columns, size) with room
    for more columns, and what is added to the scores, (n, key heads, 1, columns): -inf at padding and empty columns.

    On a CPU, in full precision, attention is two plain products over all columns, the empty ones hidden: memory is read
    up to twice as fast where nothing is left out between one head's columns and the next one's. Elsewhere it is the
    fused kernel.
    """

    def __init__(self, model: nn.Module, cache, hidden: Tensor, max_new_tokens: int):
        self.model, self.hidden = model, hidden
        self.used = cache.get_seq_length()
        self.most = self.used + max_new_tokens
        self.cache = [(layer.keys, layer.values) for layer in cache.layers]
        keys, _ = self.cache[0]
        padding = torch.arange(self.used, device=hidden.device) < hidden[:, None]
        bias = keys.new_zeros(padding.shape).masked_fill(padding, -torch.inf)
        self.bias = bias[:, None, None].repeat(1, keys.shape[1], 1, 1)
        self.fused = keys.device.type != "cpu" or keys.dtype.itemsize < 4

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
        self.cache = [(keys[rows], values[rows]) for keys, values in self.cache]
        self.bias, self.hidden = self.bias[rows], self.hidden[rows]

    def _open_column(self) -> None:
        """Let the next column be seen; where there is none, make room for some more."""
        if self.used == self.bias.shape[-1]:
            columns = max(1, min(max(_MORE, self.used // 8), self.most - self.used))
            rows, heads, _, size = self.cache[0][0].shape
            room = self.bias.new_zeros(rows, heads, columns, size)
            self.cache = [tuple(torch.cat((part, room), 2) for part in layer) for layer in self.cache]
            self.bias = nn.functional.pad(self.bias, (0, columns), value=-torch.inf)
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
        return attention.o_proj(mixed.flatten(1))

    def _look(self, index: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Write the new column of one layer and attend to all: three (n, their heads, size) to (n, key heads, q, size),
        the q query heads together that share a key head."""
        keys, values = self.cache[index]
        keys[:, :, self.used], values[:, :, self.used] = key, value
        # the query heads that share a key head stand where positions usually stand
        query = query.unflatten(1, (keys.shape[1], -1))
        attend = nn.functional.scaled_dot_product_attention if self.fused else _attend_plainly
        return attend(query, keys, values, attn_mask=self.bias, scale=scaling)


class JoinedDecoder(LlamaDecoder):
    """The same from a copy of the weights, in few large products: a tenth faster with 64 rows, a third with one."""

    def __init__(self, model: nn.Module, cache, hidden: Tensor, max_new_tokens: int):
        super().__init__(model, cache, hidden, max_new_tokens)
        self.weights = JoinedWeights(model, self.bias.dtype, copied=False)

    def step(self, tokens: Tensor) -> Tensor:
        """Append one token (n,) to every row; return the logits (n, V) for the next."""
        self._open_column()
        weights = self.weights
        rotation = weights.rotation(self.used - self.hidden)

        def attend(index: int, layer: dict, joined: Tensor) -> Tensor:
            norms = layer["q_norm"], layer["k_norm"]
            heads = split_heads(joined, norms, rotation, weights.key_heads, weights.eps)
            # the copy wants the first query heads of all key heads before the second ones
            return self._look(index, *heads, weights.scaling).transpose(1, 2).flatten(1)

        states = weights.forward(tokens, attend, PLAIN)
        self.used += 1
        return nn.functional.linear(states, weights.head)


def _attend_plainly(query: Tensor, keys: Tensor, values: Tensor, *, attn_mask: Tensor, scale: float) -> Tensor:
    """What `scaled_dot_product_attention` says of few queries (n, heads, q, size), by one product before the softmax
    and one behind it. The mask (n, heads, 1, columns) is added to the scores."""
    bias = attn_mask.expand(-1, -1, query.shape[2], -1).flatten(0, 1)
    scores = torch.baddbmm(bias, query.flatten(0, 1), keys.flatten(0, 1).transpose(1, 2), alpha=scale)
    return torch.bmm(scores.softmax(-1), values.flatten(0, 1)).view(query.shape)
