"""Attention of one new token per row, for a GPU: rotate, store and look back in one Triton kernel.

Here: `usable`, whether it runs here on these shapes, and `attend`. Deliberately not here: the same in plain torch,
which is joined_weights.store_heads and scaled_dot_product_attention.

One program takes one row and one key head with all query heads that share it, and goes once over the columns that the
row has filled: nothing is read that is hidden or still empty, and how much there is stands in memory, not in a shape,
so that one captured graph serves every step. Where Triton is not installed, as beside a CPU's torch, `usable` says no.
"""

from __future__ import annotations

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None

_COLUMNS = 64  # of the cache, that a program reads at a time
_HALF = (torch.bfloat16, torch.float16)


def usable(dtype: torch.dtype, device: torch.device, size: int) -> bool:
    """Whether the kernel runs: Triton is there, a GPU, half precision, heads of 16 to 128 numbers, a power of 2."""
    return triton is not None and device.type == "cuda" and dtype in _HALF and size in (16, 32, 64, 128)


def attend(
    joined: Tensor, norms: tuple, rotation: tuple[Tensor, Tensor], keys: Tensor, values: Tensor, span: Tensor, *,
    scaling: float, eps: float,
) -> Tensor:  # fmt: skip
    """Write each row's new key and value into its cache, then let its queries look at all that the row has seen.

    Args:    joined (n, (heads + 2 key heads) * size), the product before the heads are split; norms, weights (size,) of
             query and key, or None twice; rotation, cosine and sine (n, 1, size); keys, values (n, key heads,
             columns, size), contiguous; span (n, 2) int, the first column that a row sees and the one to be written.
    Returns: (n, heads * size), the heads interleaved: the first of each group, then the seconds.
    """
    rows, key_heads, columns, size = keys.shape
    group = (joined.shape[1] // size - 2 * key_heads) // key_heads
    mixed = joined.new_empty(rows, key_heads * group * size)
    query_norm, key_norm = (joined if norm is None else norm for norm in norms)
    _attend[(rows, key_heads)](
        joined, query_norm, key_norm, *rotation, keys, values, span, mixed, columns, scaling, eps,
        KEY_HEADS=key_heads, GROUP=group, QUERIES=max(16, triton.next_power_of_2(group)), SIZE=size,
        COLUMNS=_COLUMNS, NORMED=norms[0] is not None, num_warps=4, num_stages=3,
    )  # fmt: skip
    return mixed


if triton is not None:

    @triton.jit
    def _rotated(heads, norm, cosine, sine, turn, eps, SIZE: tl.constexpr, NORMED: tl.constexpr):
        """Heads (q, SIZE) at these addresses in float32, normed and rotated; `turn` pairs the halves."""
        index = tl.arange(0, SIZE)[None, :]
        straight = tl.load(heads + index).to(tl.float32)
        turned = tl.load(heads + turn).to(tl.float32)
        if NORMED:
            scale = tl.rsqrt(tl.sum(straight * straight, 1) / SIZE + eps)[:, None]
            straight = straight * scale * tl.load(norm + index).to(tl.float32)
            turned = turned * scale * tl.load(norm + turn).to(tl.float32)
        turned = tl.where(index < SIZE // 2, -turned, turned)
        return straight * tl.load(cosine + index).to(tl.float32) + turned * tl.load(sine + index).to(tl.float32)

    @triton.jit
    def _attend(
        joined, query_norm, key_norm, cosine, sine, keys, values, span, mixed, columns, scaling, eps,
        KEY_HEADS: tl.constexpr, GROUP: tl.constexpr, QUERIES: tl.constexpr, SIZE: tl.constexpr, COLUMNS: tl.constexpr,
        NORMED: tl.constexpr,
    ):  # fmt: skip
        row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
        index = tl.arange(0, SIZE)[None, :]
        turn = (index + SIZE // 2) % SIZE
        queries = tl.arange(0, QUERIES)[:, None]
        heads = joined + row * (KEY_HEADS * (GROUP + 2) * SIZE)
        cosine, sine = cosine + row * SIZE, sine + row * SIZE
        first, column = tl.load(span + 2 * row).to(tl.int32), tl.load(span + 2 * row + 1).to(tl.int32)
        cache = (row * KEY_HEADS + head) * columns * SIZE
        kind = keys.dtype.element_ty
        keys, values = keys + cache, values + cache

        # places beyond the group repeat its last head; nobody reads what comes of them
        query_heads = heads + (head * GROUP + tl.minimum(queries, GROUP - 1)) * SIZE
        query = _rotated(query_heads, query_norm, cosine, sine, turn, eps, SIZE, NORMED).to(kind)
        key_head = heads + (KEY_HEADS * GROUP + head) * SIZE + tl.zeros((1, 1), tl.int32)
        key = _rotated(key_head, key_norm, cosine, sine, turn, eps, SIZE, NORMED).to(kind)
        value = tl.load(heads + (KEY_HEADS * (GROUP + 1) + head) * SIZE + index)
        tl.store(keys + column * SIZE + index, key)
        tl.store(values + column * SIZE + index, value)

        # the new column first, from registers, then those before it; softmax on the way, in float32
        largest = tl.sum(query.to(tl.float32) * key.to(tl.float32), 1) * scaling
        total = tl.full((QUERIES,), 1.0, tl.float32)
        sums = tl.zeros((QUERIES, SIZE), tl.float32) + value.to(tl.float32)
        for start in range(first, column, COLUMNS):
            places = start + tl.arange(0, COLUMNS)
            seen = places < column
            block = places[:, None] * SIZE + index
            past = tl.load(keys + block, mask=seen[:, None], other=0.0)
            scores = tl.where(seen[None, :], tl.dot(query, tl.trans(past)) * scaling, -float("inf"))
            larger = tl.maximum(largest, tl.max(scores, 1))
            shares, shrink = tl.exp(scores - larger[:, None]), tl.exp(largest - larger)
            past = tl.load(values + block, mask=seen[:, None], other=0.0)
            sums = sums * shrink[:, None] + tl.dot(shares.to(kind), past)
            total = total * shrink + tl.sum(shares, 1)
            largest = larger
        place = mixed + row * (KEY_HEADS * GROUP * SIZE) + (queries * KEY_HEADS + head) * SIZE + index
        tl.store(place, (sums / total[:, None]).to(kind), mask=queries < GROUP)
