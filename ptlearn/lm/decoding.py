"""One token at a time: read a batch of prompts once, then step every row forward from its cache of keys and values.

Here: `start`, which reads the prompts, and two decoders with the same two verbs, `step` (one token per row in, the
next logits out) and `keep` (drop rows, or copy them). `LlamaDecoder` runs Llama, Qwen2 and Qwen3 layouts on plain
tensors, into buffers allocated ahead; `CacheDecoder` runs any other causal model of `transformers` through its own
forward.
Deliberately not here: choosing the next token (text.py) and gradients.

Prompts of different lengths are aligned at their right end, so that every row writes the same column of the cache;
the columns to the left of a short prompt are hidden from it and its positions start at 0 behind them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_GROWTH = 64  # columns by which a full cache grows: few copies, and few empty columns to attend over
_FAMILIES = ("Llama", "Qwen2", "Qwen3")


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
    decoder = LlamaDecoder if has_llama_layout(model) else CacheDecoder
    return decoder(model, output.past_key_values, hidden, max_new_tokens), output.logits[:, -1]


def has_llama_layout(model: nn.Module) -> bool:
    """Whether LlamaDecoder computes what the model computes.

    Layers and attention must be those of a known family, without sliding windows. What stands at the place of a norm,
    a projection or an MLP may be anything (LoRA, an adapter), because it is called as it is.
    """
    family = type(model).__name__.removesuffix("ForCausalLM")
    return family in _FAMILIES and all(
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
    """Steps a Llama layout on plain tensors. State: keys and values, (layers, n, key heads, columns, head size)."""

    def __init__(self, model: nn.Module, cache, hidden: Tensor, max_new_tokens: int):
        self.model, self.hidden = model, hidden
        self.used = cache.get_seq_length()
        capacity = self.used + min(max_new_tokens, _GROWTH)
        first = cache.layers[0].keys
        shape = (len(cache.layers), *first.shape[:2], capacity, first.shape[3])
        self.keys, self.values = first.new_empty(shape), first.new_empty(shape)
        for index, layer in enumerate(cache.layers):
            self.keys[index, :, :, : self.used] = layer.keys
            self.values[index, :, :, : self.used] = layer.values

    def step(self, tokens: Tensor) -> Tensor:
        """Append one token (n,) to every row; return the logits (n, V) for the next."""
        if self.used == self.keys.shape[3]:
            self.keys = nn.functional.pad(self.keys, (0, 0, 0, _GROWTH))
            self.values = nn.functional.pad(self.values, (0, 0, 0, _GROWTH))
        body = self.model.model
        states = body.embed_tokens(tokens)
        rotation = body.rotary_emb(states, (self.used - self.hidden)[:, None])
        bias = self._padding_bias(states.dtype)
        for index, layer in enumerate(body.layers):
            states = states + self._attend(index, layer.self_attn, layer.input_layernorm(states), rotation, bias)
            states = states + layer.mlp(layer.post_attention_layernorm(states))
        self.used += 1
        return self.model.lm_head(body.norm(states))

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows (n,) alone, in this order; one that is named twice is copied."""
        self.keys, self.values, self.hidden = self.keys[:, rows], self.values[:, rows], self.hidden[rows]

    def _padding_bias(self, dtype: torch.dtype) -> Tensor | None:
        """What is added to the scores, (n, 1, 1, columns): -inf at a row's padding. None where nothing is padded."""
        if not bool(self.hidden.any()):
            return None
        padding = torch.arange(self.used + 1, device=self.hidden.device) < self.hidden[:, None]
        bias = torch.zeros(padding.shape, dtype=dtype, device=padding.device).masked_fill(padding, -torch.inf)
        return bias[:, None, None]

    def _attend(self, index: int, attention: nn.Module, states: Tensor, rotation, bias: Tensor | None) -> Tensor:
        """Write each row's new key and value, then let its one query look at all of them: (n, width) to (n, width)."""
        keys, values = self.keys[index], self.values[index]
        rows, heads, _, size = keys.shape
        query, key = (project(states).view(rows, -1, size) for project in (attention.q_proj, attention.k_proj))
        if hasattr(attention, "q_norm"):
            query, key = attention.q_norm(query), attention.k_norm(key)
        keys[:, :, self.used] = _rotate(key, rotation)
        values[:, :, self.used] = attention.v_proj(states).view(rows, heads, size)
        # the query heads that share a key head stand where positions usually stand
        query = _rotate(query, rotation).view(rows, heads, -1, size)
        columns = slice(0, self.used + 1)
        mixed = _look(query, keys[:, :, columns], values[:, :, columns], bias, attention.scaling)
        return attention.o_proj(mixed.reshape(rows, -1))


def _look(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, scaling: float) -> Tensor:
    """Attention of few queries on many keys; in float32 on a CPU two products beat the fused kernel."""
    if query.dtype != torch.float32 or query.device.type != "cpu":
        return nn.functional.scaled_dot_product_attention(query, keys, values, attn_mask=bias, scale=scaling)
    scores = (query * scaling) @ keys.transpose(2, 3)
    return (scores if bias is None else scores + bias).softmax(-1) @ values


def _rotate(heads: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turn (n, heads, size) by the angle of each row's position (rotary embedding, the halves paired)."""
    cosine, sine = rotation
    left, right = heads.chunk(2, -1)
    return torch.addcmul(heads * cosine, torch.cat((-right, left), -1), sine)
