"""Sampling kept apart from learning, as real systems do: a copy of the weights, a fixed cache, one CUDA graph per step.

Here: `FastSampler`, called as `text.sample_text`; the room that its graphs run in; `draw`, a vocabulary read once.
Deliberately not here: the copy itself (joined_weights.py), the kernel of a GPU's attention (decode_attention.py) and
the same call to vLLM (vllm_sampling.py).

On a GPU the copy is in bfloat16, so what is recorded is the log-probability of a policy that is not quite the learner:
`policy_gradient.truncated_ratio` corrects for it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ptlearn.lm import decode_attention
from ptlearn.lm.joined_weights import PLAIN, JoinedWeights, can_join, causal_bias, split_heads
from ptlearn.lm.text import (
    check_finite,
    check_stop,
    encode_prompts,
    invert_cdf,
    record,
    sample_text,
    stop_detector,
    uniform_numbers,
)
from ptlearn.rollout import Rollout, check_sampling, sampling_probabilities, upcast

_LOOK = 16  # steps between two looks at what has ended
_ROWS = 32  # rows are rounded up to a multiple: fewer shapes to compile and capture for
_COLUMNS = 64  # the room's columns are rounded up to a multiple, and what a step without the kernel looks back on
_READ = 2**15  # tokens of prompts that are read at a time
_BLOCK = 128  # words of the vocabulary that are summed before one of them is looked for
_BELOW = 1 - 1e-6  # nothing is found behind the last sum, however it was rounded
_SHAPES = 64  # how many shapes of one function torch.compile may keep


class FastSampler:
    """Samples as `text.sample_text`, from its own copy of the weights, which it brings up to date at every call.

    Llama, Qwen2 and Qwen3 layouts, with LoRA, under DDP or FSDP2 (where all processes must call it together) go through
    the copy; any other model is sampled by `sample_text` itself.

    Args: dtype of the copy (default: bfloat16 on a GPU, elsewhere that of the model); compile, whether a step is fused
          by torch.compile and captured in CUDA graphs (on a GPU alone); switch it off to look for an error.
    >>> from ptlearn.lm.models import toy_lm
    >>> lm = toy_lm(["end", "a", "b"])
    >>> FastSampler()(lm, ["a b"], seed=1).actions.tolist() == sample_text(lm, ["a b"], seed=1).actions.tolist()
    True
    """

    def __init__(self, *, dtype: torch.dtype | None = None, compile: bool = True):
        self.dtype, self.compile = dtype, compile
        self._model = lambda: None  # the model whose copy this is, held by a weak reference
        self._weights: JoinedWeights | None = None
        self._room: _Room | None = None

    def __call__(
        self, lm, prompts: Sequence[str], *, max_new_tokens: int = 32, temperature: float = 1.0,
        top_k: int | None = None, top_p: float | None = None, stop: str | Sequence[str] = (), seed: int | Tensor = 0,
    ) -> Rollout:  # fmt: skip
        """Args, Returns and Raises as `text.sample_text`; in float32 it draws the same tokens."""
        check_sampling(temperature, top_k, top_p)
        model = getattr(lm.model, "_orig_mod", lm.model)  # inside torch.compile
        if not can_join(model):
            options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "stop": stop, "seed": seed}
            return sample_text(lm, prompts, max_new_tokens=max_new_tokens, **options)
        stop = check_stop(lm, stop)
        tokens = encode_prompts(lm, prompts, max_new_tokens)
        uniforms = uniform_numbers(len(tokens), max_new_tokens, seed)
        with torch.no_grad():
            self._take_over(model, lm.device)
            room = self._room_for(len(tokens), max(map(len, tokens)) + max_new_tokens)
            room.begin(tokens, uniforms, (temperature, top_k, top_p))
            sampled, ended = _run(room, lm, stop, *uniforms.shape)
            recorded = room.logprobs.cpu()
        logprobs = [row[: len(ids)] for row, ids in zip(recorded, sampled, strict=False)]
        check_finite(lm, *logprobs)
        return record(lm, tokens, sampled, logprobs, ended)

    def _take_over(self, model: nn.Module, device: torch.device) -> None:
        if self._model() is model:
            return self._weights.take_over(model)
        dtype = torch.bfloat16 if device.type == "cuda" else model.get_input_embeddings().weight.dtype
        self._weights, self._room = JoinedWeights(model, self.dtype or dtype), None
        self._model = weakref.ref(model)

    def _room_for(self, rows: int, columns: int) -> _Room:
        """The room of the last call where it fits, so that its graphs stay of use."""
        rows, columns = -(-rows // _ROWS) * _ROWS, -(-columns // _COLUMNS) * _COLUMNS
        if self._room is None or self._room.keys.shape[1] != rows or self._room.keys.shape[3] < columns:
            self._room = None  # its memory first
            graphs = self.compile and self._weights.embedding.device.type == "cuda"
            self._room = _Room(self._weights, rows, columns, graphs)
        return self._room


class _Room:
    """Tensors of fixed shape in which rows are continued, a token a step, and the graphs that do it.

    Holds: keys and values (layers, rows, key heads, columns, size); tokens, logprobs, uniforms (rows, columns), one
    a step; latest (rows,), the token that is read next, into `column` (1,); step (1,), what is drawn next; span (rows,
    2), the first column that a row sees, behind its padding, and `column`; bias (rows, 1, 1, columns), -inf where it
    sees nothing.
    """

    def __init__(self, weights: JoinedWeights, rows: int, columns: int, graphs: bool):
        self.weights = weights
        device, dtype = weights.embedding.device, weights.dtype
        shape = (len(weights.layers), rows, weights.key_heads, columns, weights.size)
        self.keys, self.values = (torch.zeros(shape, device=device, dtype=dtype) for _ in range(2))
        self.bias = torch.zeros(rows, 1, 1, columns, device=device, dtype=dtype)
        self.tokens = torch.zeros(rows, columns, device=device, dtype=torch.long)
        self.logprobs, self.uniforms = (torch.zeros(rows, columns, device=device) for _ in range(2))
        self.temperature = upcast(torch.ones((), device=device, dtype=dtype))
        self.span, self.latest = self.tokens.new_zeros(rows, 2), self.tokens.new_zeros(rows)
        self.column, self.step = (self.tokens.new_zeros(1) for _ in range(2))
        self.sampling, self.used = (1.0, None, None), 0
        self.pointwise, self.draw = (PLAIN.compiled(), torch.compile(draw, dynamic=False)) if graphs else (PLAIN, draw)
        self.kernel = graphs and decode_attention.usable(dtype, device, weights.size)
        self.graphs: dict[int, torch.cuda.CUDAGraph] | None = {} if graphs else None
        self.pool = torch.cuda.graph_pool_handle() if graphs else None  # graphs run in turn: they share their memory

    def begin(self, prompts: list[list[int]], uniforms: Tensor, sampling: tuple) -> None:
        """Read the prompts, aligned at their right end, and draw the first token of every row."""
        truncated = {sampling[1:], self.sampling[1:]} != {(None, None)}
        if self.graphs and truncated and sampling != self.sampling:
            self.graphs.clear()  # a truncation is captured as it was; a temperature stands in a tensor
        self.sampling = sampling
        self.temperature.fill_(sampling[0])
        self.uniforms.zero_()[: len(prompts), : uniforms.shape[1]].copy_(uniforms)
        unique = {prompt: index for index, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
        which = [unique[tuple(prompt)] for prompt in prompts]
        which += which[-1:] * (len(self.latest) - len(which))  # the rows that round up repeat the last
        states = self._read(list(unique), which)
        self.column.fill_(self.used)
        self.span[:, 1] = self.used
        self.step.zero_()
        self._record(*self._drawn(wide(states, self.weights.head)[which], draw))

    def advance(self) -> None:
        """Read the latest token of every row and draw the next."""
        # the kernel looks no further than it has to; without it a step has a graph of its own every _COLUMNS
        columns = self.keys.shape[3] if self.kernel else -(-(self.used + 1) // _COLUMNS) * _COLUMNS
        if self.graphs is None:
            self._step(columns)
        else:
            if columns not in self.graphs:
                self.graphs[columns] = self._captured(columns)
            self.graphs[columns].replay()
        self.used += 1

    def _captured(self, columns: int) -> torch.cuda.CUDAGraph:
        """A graph of one step, compiled by a step that is taken back."""
        moving = (self.latest, self.span, self.column, self.step)
        before = [state.clone() for state in moving]
        with torch.cuda.device(self.latest.device):
            side, here = torch.cuda.Stream(), torch.cuda.current_stream()
            side.wait_stream(here)
            with torch.cuda.stream(side), torch._dynamo.config.patch(cache_size_limit=_SHAPES):
                self._step(columns)
            here.wait_stream(side)
            for state, value in zip(moving, before, strict=True):
                state.copy_(value)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self.pool):
                self._step(columns)
        return graph

    def _step(self, columns: int) -> None:
        """One step that looks back on the first `columns` of the cache; no shape and no address depends on the data."""
        weights, rows = self.weights, len(self.latest)
        rotation = weights.rotation(self.column - self.span[:, 0])
        self.bias.index_fill_(3, self.column, 0)

        def attend(index: int, layer: dict, joined: Tensor) -> Tensor:
            keys, values = self.keys[index], self.values[index]
            norms = layer["q_norm"], layer["k_norm"]
            if self.kernel:
                options = {"scaling": weights.scaling, "eps": weights.eps}
                return decode_attention.attend(joined, norms, rotation, keys, values, self.span, **options)
            query = self.pointwise.store_heads(joined, norms, rotation, keys, values, self.column, weights.eps)
            # the query heads that share a key head stand where positions usually stand
            query = query.view(rows, weights.key_heads, -1, weights.size)
            seen = keys[:, :, :columns], values[:, :, :columns], self.bias[..., :columns]
            mixed = nn.functional.scaled_dot_product_attention(query, *seen, scale=weights.scaling)
            # that is how the kernels of a GPU leave it: no copy there
            return mixed.transpose(1, 2).reshape(rows, -1)

        states = weights.forward(self.latest, attend, self.pointwise)
        self.column += 1
        self.span[:, 1].add_(1)
        self._record(*self._drawn(wide(states, weights.head), self.draw))

    def _drawn(self, logits: Tensor, draw: Callable) -> tuple[Tensor, Tensor]:
        uniforms = self.uniforms.index_select(1, self.step)[:, 0]
        if self.sampling[1:] == (None, None):
            return draw(logits, uniforms, self.temperature)
        probabilities = sampling_probabilities(logits, *self.sampling)
        tokens = invert_cdf(probabilities, uniforms)
        return tokens, probabilities.gather(1, tokens[:, None])[:, 0].log()

    def _record(self, tokens: Tensor, logprobs: Tensor) -> None:
        self.latest.copy_(tokens)
        self.tokens.index_copy_(1, self.step, tokens[:, None])
        self.logprobs.index_copy_(1, self.step, logprobs[:, None].float())
        self.step += 1

    def _read(self, prompts: list[tuple[int, ...]], which: list[int]) -> Tensor:
        """Fill the cache of every row with the prompt of its number; the states (prompts, width) behind each."""
        device, self.used = self.latest.device, max(map(len, prompts))
        tokens = torch.tensor([[0] * (self.used - len(prompt)) + list(prompt) for prompt in prompts], device=device)
        hidden = torch.tensor([self.used - len(prompt) for prompt in prompts], device=device)
        self.span[:, 0] = hidden[which]
        columns = torch.arange(self.bias.shape[3], device=device)
        unseen = (columns < self.span[:, :1]) | (columns >= self.used)
        self.bias.zero_().masked_fill_(unseen[:, None, None], -torch.inf)
        for cache in (self.keys, self.values):
            cache.zero_()  # what is never seen still counts times 0, and must not be NaN
        size = max(1, _READ // self.used)
        parts = range(0, len(prompts), size)
        return torch.cat([self._read_part(tokens, hidden, which, slice(first, first + size)) for first in parts])

    def _read_part(self, tokens: Tensor, hidden: Tensor, which: list[int], part: slice) -> Tensor:
        weights, tokens, hidden = self.weights, tokens[part], hidden[part]
        columns = torch.arange(self.used, device=tokens.device)
        rotation = weights.rotation((columns - hidden[:, None]).clamp(min=0))
        bias = causal_bias(columns, hidden, weights.dtype)
        pairs = [(row, number - part.start) for row, number in enumerate(which) if part.start <= number < part.stop]
        rows, numbers = torch.tensor(pairs, device=tokens.device).T
        groups = weights.heads // weights.key_heads

        def attend(index: int, layer: dict, joined: Tensor) -> Tensor:
            heads = split_heads(joined, (layer["q_norm"], layer["k_norm"]), rotation, weights.key_heads, weights.eps)
            query, key, value = (each.transpose(1, 2) for each in heads)
            self.keys[index][rows, :, : self.used] = key[numbers]
            self.values[index][rows, :, : self.used] = value[numbers]
            key, value = (each.repeat_interleave(groups, 1) for each in (key, value))
            options = {"attn_mask": bias, "scale": weights.scaling}
            mixed = nn.functional.scaled_dot_product_attention(query, key, value, **options)
            return mixed.unflatten(1, (-1, groups)).permute(0, 3, 2, 1, 4).flatten(2)

        return weights.forward(tokens, attend, PLAIN)[:, -1]


class _Ends:
    """Where rows end, found on the CPU: with an end token or a stop string, as `sample_text` ends them."""

    def __init__(self, lm, stop: tuple[str, ...], rows: int, steps: int):
        self.tokens = torch.zeros(rows, 0, dtype=torch.long)
        self.lengths, self.ended = torch.full((rows,), steps), torch.zeros(rows, dtype=torch.bool)
        self.end_tokens = torch.tensor(lm.end_tokens, dtype=torch.long)
        self.holds_stop = stop_detector(lm, stop)

    def look(self, block: Tensor) -> bool:
        """Go through the next tokens (rows, n) of every row; say whether all rows have ended."""
        seen = self.tokens.shape[1]
        self.tokens = torch.cat((self.tokens, block), 1)
        for length in range(seen + 1, self.tokens.shape[1] + 1):
            going = (~self.ended).nonzero()[:, 0]
            if not len(going):
                break
            tokens = self.tokens[going, :length]
            ends = torch.isin(tokens[:, -1], self.end_tokens) | self.holds_stop(tokens)
            self.ended[going[ends]], self.lengths[going[ends]] = True, length
        return bool(self.ended.all())


def _run(room: _Room, lm, stop: tuple[str, ...], rows: int, steps: int) -> tuple[list[list[int]], list[bool]]:
    """Advance until every row has ended: (ids per row, whether it ended)."""
    ends, ahead = _Ends(lm, stop, rows, steps), None
    for first in range(0, steps, _LOOK):
        last = min(first + _LOOK, steps)
        for _ in range(max(first, 1), last):
            room.advance()
        block = _copied(room.tokens[:rows, first:last])
        # the steps before these are looked at while the GPU is busy with these
        if ahead is not None and ends.look(ahead()):
            break
        ahead = block
    else:
        ends.look(ahead())
    ids = zip(ends.tokens.tolist(), ends.lengths.tolist(), strict=True)
    return [tokens[:length] for tokens, length in ids], ends.ended.tolist()


def _copied(tokens: Tensor) -> Callable[[], Tensor]:
    """Begin to copy to the CPU what stands there now; the function that is returned waits for it."""
    if tokens.device.type != "cuda":
        copy = tokens.cpu()
        return lambda: copy
    copy, done = tokens.to("cpu", non_blocking=True), torch.cuda.Event()
    done.record(torch.cuda.current_stream(tokens.device))

    def wait() -> Tensor:
        done.synchronize()
        return copy

    return wait


# ---------------------------------------------------------------- drawing


def wide(states: Tensor, head: Tensor) -> Tensor:
    """The logits (n, V) in at least float32: rounded to bfloat16, one of 10 is off by 0.016 on average."""
    half = states.dtype in (torch.bfloat16, torch.float16)
    if half and states.is_cuda and hasattr(torch.ops.aten.mm, "dtype"):  # torch from 2.8 on
        return torch.mm(states, head.T, out_dtype=torch.float32)
    return linear(upcast(states), upcast(head))


def draw(logits: Tensor, uniforms: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
    """Draw one index per row as `text.invert_cdf` does, by first finding the block that it falls into.

    The whole vocabulary is read once, for the sum of each block; then only the block that was found.

    Args:    logits (n, V); uniforms (n,) in [0, 1); temperature, scalar, by which logits are divided.
    Returns: (n,) int, and the log-probabilities (n,) they were drawn with, in at least float32; NaN where logits are
             not finite.
    >>> logits = torch.tensor([[0.25, 0.0, 0.75]] * 3).log()
    >>> draw(logits, torch.tensor([0.0, 0.24, 0.26]), torch.tensor(1.0))[0]
    tensor([0, 0, 2])
    """
    scaled = upcast(logits) / temperature
    missing = -scaled.shape[-1] % _BLOCK
    blocks = nn.functional.pad(scaled, (0, missing), value=-torch.inf).unflatten(-1, (-1, _BLOCK))
    largest = blocks.amax(-1)
    sums = (blocks - _finite(largest)[..., None]).exp().sum(-1)
    overall = largest.amax(-1, keepdim=True)
    sums = sums * (largest - overall).exp()
    total = sums.sum(-1)
    block, before = _first_above(sums, uniforms.to(total) * total)
    found = blocks.gather(1, block[:, None, None].expand(-1, 1, _BLOCK))[:, 0]
    inside, _ = _first_above((found - overall).exp(), uniforms.to(total) * total - before)
    logprob = found.gather(1, inside[:, None])[:, 0] - overall[:, 0] - total.log()
    # without a number to find, the last word is found, and its NaN shows
    return (block * _BLOCK + inside).clamp(max=logits.shape[-1] - 1), logprob


def _first_above(weights: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The first index whose running sum of weights (n, k) is above the target (n,), and the sum before it."""
    sums = weights.cumsum(-1)
    # rounding must not leave a target behind the last sum, nor let a weight of 0 be found
    targets = torch.minimum(targets, sums[:, -1] * _BELOW)
    indices = torch.arange(weights.shape[-1], device=weights.device)
    above = (sums > targets[:, None]) & (weights > 0)
    index = torch.where(above, indices, weights.shape[-1] - 1).amin(-1)
    return index, (sums - weights).gather(1, index[:, None])[:, 0]


def _finite(largest: Tensor) -> Tensor:
    """What is subtracted before exp: 0 in a block where everything is ruled out, since -inf - -inf is no number."""
    return torch.where(largest == -torch.inf, 0, largest)
