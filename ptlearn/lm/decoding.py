"""One token at a time: read a batch of prompts once, then step every row forward from its cache of keys and values.

Here: `start`, which reads the prompts, and two decoders with the same two verbs, `step` (one token per row in, the
next logits out) and `keep` (drop rows, or copy them). `LlamaDecoder` runs Llama, Qwen2 and Qwen3 layouts on plain
tensors; `CacheDecoder` runs any other causal model of `transformers` through its own
forward.
Deliberately not here: choosing the next token (text.py) and gradients.

Prompts of different lengths are aligned at their right end, so that every row writes the same column of the cache;
the columns to the left of a short prompt are hidden from it and its positions start at 0 behind them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_PAGE = 16  # columns at least by which a full cache grows
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
    """Steps a Llama layout on plain tensors. State: pages of keys and values, (layers, n, key heads, columns, size).

    On a CPU, in full precision, columns are spread over pages that are filled one after the other, and a page is always
    read whole, its empty columns hidden: memory is read up to twice as fast where nothing is left out between one
    head's columns and the next one's. Elsewhere a single page grows, for the fused kernel.
    """

    def __init__(self, model: nn.Module, cache, hidden: Tensor, max_new_tokens: int):
        self.model, self.hidden = model, hidden
        self.used = self.filled = cache.get_seq_length()  # in all pages, and in the last one
        self.most = self.used + max_new_tokens
        read = [torch.stack([getattr(layer, name) for layer in cache.layers]) for name in ("keys", "values")]
        self.pages = [tuple(read)]
        self.fused = read[0].device.type != "cpu" or read[0].dtype.itemsize < 4

    def step(self, tokens: Tensor) -> Tensor:
        """Append one token (n,) to every row; return the logits (n, V) for the next."""
        if self.filled == self.pages[-1][0].shape[3]:
            self._make_room()
        body = self.model.model
        states = body.embed_tokens(tokens)
        rotation = body.rotary_emb(states, (self.used - self.hidden)[:, None])
        bias = self._padding_bias(states.dtype)
        for index, layer in enumerate(body.layers):
            states = states + self._attend(index, layer.self_attn, layer.input_layernorm(states), rotation, bias)
            states = states + layer.mlp(layer.post_attention_layernorm(states))
        self.used, self.filled = self.used + 1, self.filled + 1
        return self.model.lm_head(body.norm(states))

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows (n,) alone, in this order; one that is named twice is copied."""
        self.pages = [(keys[:, rows], values[:, rows]) for keys, values in self.pages]
        self.hidden = self.hidden[rows]

    def _make_room(self) -> None:
        columns = max(1, min(max(_PAGE, self.used // 4), self.most - self.used))
        if self.fused:
            self.pages = [tuple(nn.functional.pad(part, (0, 0, 0, columns)) for part in self.pages[0])]
        else:
            layers, rows, heads, _, size = self.pages[0][0].shape
            self.pages.append(tuple(part.new_zeros(layers, rows, heads, columns, size) for part in self.pages[0]))
            self.filled = 0

    def _padding_bias(self, dtype: torch.dtype) -> Tensor | None:
        """What is added to the scores, (n, 1, 1, columns): -inf at a row's padding. None where nothing is padded."""
        if not bool(self.hidden.any()):
            return None
        padding = torch.arange(self.used + 1, device=self.hidden.device) < self.hidden[:, None]
        bias = torch.zeros(padding.shape, dtype=dtype, device=padding.device).masked_fill(padding, -torch.inf)
        return bias[:, None, None]

    def _attend(self, index: int, attention: nn.Module, states: Tensor, rotation, bias: Tensor | None) -> Tensor:
        """Write each row's new key and value, then let its one query look at all of them: (n, width) to (n, width)."""
        pages = [(keys[index], values[index]) for keys, values in self.pages]
        keys, values = pages[-1]
        rows, heads, _, size = keys.shape
        query, key = (project(states).view(rows, -1, size) for project in (attention.q_proj, attention.k_proj))
        if hasattr(attention, "q_norm"):
            query, key = attention.q_norm(query), attention.k_norm(key)
        keys[:, :, self.filled] = _rotate(key, rotation)
        values[:, :, self.filled] = attention.v_proj(states).view(rows, heads, size)
        # the query heads that share a key head stand where positions usually stand
        query = _rotate(query, rotation).view(rows, heads, -1, size)
        if self.fused:
            page = (part[:, :, : self.filled + 1] for part in pages[0])
            options = {"attn_mask": bias, "scale": attention.scaling}
            mixed = nn.functional.scaled_dot_product_attention(query, *page, **options)
        else:
            mixed = _look(query * attention.scaling, pages, self.used + 1, bias)
        return attention.o_proj(mixed.reshape(rows, -1))


def _look(query: Tensor, pages: list[tuple[Tensor, Tensor]], used: int, bias: Tensor | None) -> Tensor:
    """Attention of few queries (n, heads, q, size) on the first `used` columns of all pages, by plain products."""
    shape, query = query.shape, query.flatten(0, 1)
    keys, values = zip(*((keys.flatten(0, 1), values.flatten(0, 1)) for keys, values in pages), strict=True)
    scores = torch.cat([torch.bmm(query, part.transpose(1, 2)) for part in keys], -1)
    scores[..., used:] = -torch.inf
    if bias is not None:
        scores[..., :used].unflatten(0, shape[:2]).add_(bias)
    shares = scores.softmax(-1).split([part.shape[1] for part in values], -1)
    return sum(torch.bmm(*pair) for pair in zip(shares, values, strict=True)).view(shape)


def _rotate(heads: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turn (n, heads, size) by the angle of each row's position (rotary embedding, the halves paired)."""
    cosine, sine = rotation
    left, right = heads.chunk(2, -1)
    return torch.addcmul(heads * cosine, torch.cat((-right, left), -1), sine)
