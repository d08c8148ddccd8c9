"""Text in, text out: encode prompts, sample into a Rollout, complete greedily, score.

Here: `encode`; `sample_text`, `completions` and `complete`; `token_logprobs` and `perplexity`; and what other
samplers and the rooms above need for more of the kind: `uniform_numbers`, `encode_prompts`, `check_stop`,
`stop_detector`, `record`, `evaluation`, `check_finite`, `check_utf8`. Deliberately not here:
the fast step behind the sampling (decoding.py), few-shot prompts and their scoring (prompting.py), rewards (tasks.py).

Every function that takes `lm` wants a `ptlearn.lm.models.LanguageModel`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from ptlearn.lm import decoding
from ptlearn.processes import gathered
from ptlearn.rollout import (
    Rollout,
    check_counts,
    check_sampling,
    check_seed,
    pad_and_stack,
    sampling_logprobs,
    sampling_probabilities,
)

_ROWS = 256  # prompts that are completed at a time
_CROWD = 0.75  # share of the decoder's rows still needed below which the others leave: fewer copies of the cache
_LOGITS = 2**25  # numbers, padding included, that one batch of scoring holds: 128 MB


def encode(lm, texts: Sequence[str], *, bos: bool = True) -> list[list[int]]:
    """Turn texts into lists of token ids.

    Args:    texts; bos, whether to start each with `lm.document_start`, if there is one. The pocket LMs saw
             <|endoftext|> before every document, so their prompts start with it, as those of GPT-2; Llama's start with
             a token of their own, Qwen's start bare. A text that begins with that token, or with the tokenizer's
             bos_token as some chat templates do, is given no second one.
    Returns: one list of ids per text.
    Raises:  ValueError if one of the texts is not a string, or not one that UTF-8 can write.
    """
    _check_texts("texts", texts)
    if not len(texts):
        return []
    # special tokens by hand: tokenizers differ in which of them they add on their own
    tokens = lm.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    for index, ids in enumerate(tokens):
        if ids and max(ids) >= lm.rows:
            raise ValueError(f"texts[{index}] has token {max(ids)}: expected those of the embedding, below {lm.rows}")
    start = lm.document_start if bos else None
    begun = ([start], [lm.tokenizer.bos_token_id])
    return [ids if start is None or ids[:1] in begun else [start, *ids] for ids in tokens]


def sample_text(
    lm, prompts: Sequence[str], *, max_new_tokens: int = 32, temperature: float = 1.0, top_k: int | None = None,
    top_p: float | None = None, stop: str | Sequence[str] = (), seed: int | Tensor = 0,
) -> Rollout:  # fmt: skip
    """Sample one continuation per prompt and write down what was drawn and how likely it was.

    Args:    prompts, B strings, one row each (repeat a prompt to sample it several times: what such rows
             have in common is read once);
             max_new_tokens; temperature, top_k, top_p as in `rollout.sampling_logprobs`; stop, strings that end a
             row once its sampled text contains one, also across tokens; seed of all draws, or the uniform numbers
             themselves that are drawn with, (B, max_new_tokens), such as some rows of `uniform_numbers`.
    Returns: Rollout of B rows, padded on the right: observations are the tokens but the last, actions the tokens but
             the first, mask is True on sampled tokens alone, logprobs are as sampled, rewards are zero, terminated
             is True where the end token or a stop string (both sampled, so in the record) ended the row.
    Raises:  ValueError naming the argument: no prompts, a prompt that is no string or too long for the context,
             max_new_tokens, temperature, top_k, top_p out of range, a stop string that is empty or that the tokenizer
             cannot produce, a seed of another shape; or if the model's logits are not finite.
    """
    check_sampling(temperature, top_k, top_p)
    stop = check_stop(lm, stop)
    tokens = encode_prompts(lm, prompts, max_new_tokens)
    uniforms = uniform_numbers(len(tokens), max_new_tokens, seed).to(lm.device)

    def draw(logits: Tensor, rows: Tensor, step: int) -> tuple[Tensor, Tensor]:
        probabilities = sampling_probabilities(logits, temperature, top_k, top_p)
        choices = invert_cdf(probabilities, uniforms[rows, step])
        return choices, probabilities.gather(-1, choices[:, None])[:, 0].log()

    with evaluation(lm), torch.inference_mode():
        sampled, logprobs, ended = _decode(lm, tokens, max_new_tokens, stop, draw)
    return record(lm, tokens, sampled, logprobs, ended)


def uniform_numbers(rows: int, steps: int, seed: int | Tensor) -> Tensor:
    """What `sample_text` draws its tokens with, (rows, steps) in [0, 1): all at once, so that a row's own do not depend
    on when the others end. A seed that is such numbers already is checked and handed back.
    """
    if not isinstance(seed, Tensor):
        return torch.rand(rows, steps, generator=torch.Generator().manual_seed(check_seed(seed)))
    if seed.shape != (rows, steps):
        raise ValueError(f"seed has shape {tuple(seed.shape)}: expected {(rows, steps)}, a number per prompt and token")
    # 1 would choose what has no probability, in the precision that it is compared in
    if not (seed.is_floating_point() and bool(((seed >= 0) & (seed.float() < 1)).all())):
        raise ValueError(f"seed is a tensor of {seed.dtype}: expected floating numbers in [0, 1)")
    return seed


def complete(lm, prompts: Sequence[str], *, max_new_tokens: int = 32, stop: str | Sequence[str] = ("\n",)) -> list[str]:
    """Continue each prompt with the most likely token, again and again (greedy decoding).

    Args:    prompts, any number of strings; max_new_tokens; stop, strings that end a continuation.
    Returns: the text of each continuation, before the stop string and without the end token.
    Raises:  ValueError as `sample_text`.
    """
    stop = check_stop(lm, stop)
    tokens = encode_prompts(lm, prompts, max_new_tokens)

    def most_likely(logits: Tensor, rows: Tensor, step: int) -> tuple[Tensor, Tensor]:
        choices = logits.argmax(-1)
        return choices, 0 * logits.gather(-1, choices[:, None])[:, 0]  # NaN unless the logit is finite

    texts = [""] * len(tokens)
    # prompts of similar length share a batch: less padding to read
    order = sorted(range(len(tokens)), key=lambda row: len(tokens[row]))
    with evaluation(lm), torch.inference_mode():
        for first in range(0, len(order), _ROWS):
            rows = order[first : first + _ROWS]
            sampled, _, _ = _decode(lm, [tokens[row] for row in rows], max_new_tokens, stop, most_likely)
            for row, ids in zip(rows, sampled, strict=True):
                texts[row] = _text(lm, ids, stop)
    return texts


def completions(lm, rollout: Rollout, stop: str | Sequence[str] = ()) -> list[str]:
    """The text of each row's sampled tokens, before the first stop string and without the end token."""
    stop = check_stop(lm, stop)
    rows = zip(rollout.actions, rollout.mask, strict=True)
    return [_text(lm, actions[mask].tolist(), stop) for actions, mask in rows]


def invert_cdf(probabilities: Tensor, uniforms: Tensor) -> Tensor:
    """Draw one index per row by finding a uniform number among the running sums of the probabilities.

    The same distribution as `torch.multinomial`, which draws a random number per vocabulary entry and takes 15 times
    as long on a CPU. A running sum takes a nanosecond per entry there: it is made of the sums of blocks, and then
    within the block that was found.

    Args:    probabilities (n, V); uniforms (n,) in [0, 1).
    Returns: (n,) int. An entry of probability 0 is never drawn.
    >>> invert_cdf(torch.tensor([[0.25, 0.0, 0.75]] * 3), torch.tensor([0.0, 0.24, 0.26]))
    tensor([0, 0, 2])
    """
    blocks = probabilities.unflatten(-1, (-1, _width(probabilities.shape[-1])))
    masses = blocks.sum(-1)
    sums, targets, block = _passed(masses, uniforms[:, None])
    mass = masses.gather(-1, block)
    # how far into its block a number reached is another uniform number; rounding must not make it 1
    into = ((targets - sums.gather(-1, block) + mass) / mass).clamp(0, 1 - 2**-24)
    block = block[:, 0]
    _, _, place = _passed(blocks[torch.arange(len(blocks), device=block.device), block], into)
    return block * blocks.shape[-1] + place[:, 0]


@functools.cache
def _width(size: int) -> int:
    """How many entries of so many are summed up at once: the largest divisor up to 128; 1 of a large prime number."""
    return next(width for width in range(128, 0, -1) if size % width == 0)


def _passed(masses: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The running sums (n, k) of masses, uniform numbers (n, 1) times their last one, and the first entry (n, 1) whose
    sum passes that."""
    sums = masses.cumsum(-1)
    # rounding leaves the last sum a little off 1: scale, so that no draw falls behind it
    targets = uniforms.to(sums) * sums[:, -1:]
    # sums that are NaN are all passed: the last entry, whose NaN shows, and none behind it
    found = torch.searchsorted(sums, targets, right=True).clamp_(max=sums.shape[-1] - 1)
    return sums, targets, found


def token_logprobs(lm, texts: Sequence[str]) -> list[Tensor]:
    """Log-probability of each token of each text, given the text before it.

    Args:    texts. With a document start (`encode`) every token of the text counts; without one the first token has
             nothing before it and is left out.
    Returns: one (length,) float32 tensor per text, nats, on the CPU.
    Raises:  ValueError if a text is no string or too long for the context, or logits are not finite.
    """
    tokens = encode(lm, texts)
    for index, ids in enumerate(tokens):
        if len(ids) > lm.context:
            raise ValueError(f"texts[{index}] has {len(ids)} tokens: expected at most the context, {lm.context}")
    scores = [torch.zeros(0)] * len(tokens)
    scored = [row for row, ids in enumerate(tokens) if len(ids) > 1]
    cells = _LOGITS // lm.model.config.vocab_size
    with evaluation(lm), torch.no_grad():
        for batch in _batches([len(tokens[row]) for row in scored], cells):
            rows = [scored[position] for position in batch]
            padded = pad_and_stack([tokens[row] for row in rows])[0].to(lm.device)
            logprobs = sampling_logprobs(lm(padded[:, :-1])).gather(-1, padded[:, 1:, None])[..., 0].float().cpu()
            for row, values in zip(rows, logprobs, strict=True):
                scores[row] = values[: len(tokens[row]) - 1]
    check_finite(lm, *scores)
    return scores


def perplexity(lm, texts: Sequence[str]) -> float:
    """How many equally likely tokens the model hesitates between, on average over the tokens of all texts.

        exp(-mean log p(token | tokens before it))

    Args, Raises: as `token_logprobs`; ValueError also if no text has a token to score.
    """
    scores = torch.cat([torch.zeros(0), *token_logprobs(lm, texts)]).double()
    if not len(scores):
        raise ValueError("texts have no token to score: expected at least one with something before it")
    return math.exp(-float(scores.mean()))


def _decode(
    lm, prompts: list[list[int]], max_new_tokens: int, stop: tuple[str, ...], choose: Callable
) -> tuple[list[list[int]], list[Tensor], list[bool]]:
    """Decode until every row has ended: (ids per row, their log-probabilities per row, whether each row ended).

    `choose(logits (n, V), rows (n,), step) -> tokens (n,), logprobs (n,)`; `rows` says which prompts still run.
    """
    tokens = torch.zeros(len(prompts), max_new_tokens, dtype=torch.long, device=lm.device)
    logprobs = torch.zeros(len(prompts), max_new_tokens, device=lm.device)
    lengths = torch.full((len(prompts),), max_new_tokens, device=lm.device)
    ended = torch.zeros(len(prompts), dtype=torch.bool, device=lm.device)
    end_tokens = torch.tensor(lm.end_tokens, dtype=torch.long, device=lm.device)
    holds_stop = stop_detector(lm, stop)
    unique = {prompt: index for index, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
    decoder, logits = decoding.start(lm.model, list(unique), max_new_tokens=max_new_tokens)
    # the rows that still run, and for each the row of the decoder that has read the same tokens
    rows = torch.arange(len(prompts), device=lm.device)
    states = torch.tensor([unique[tuple(prompt)] for prompt in prompts], device=lm.device)
    logits = logits[states]
    for step in range(max_new_tokens):
        latest, scores = choose(logits, rows, step)
        tokens[rows, step], logprobs[rows, step] = latest, scores.float()
        ends = torch.isin(latest, end_tokens)
        if stop:
            ends |= holds_stop(tokens[rows, : step + 1])
        if bool(ends.any()):
            ended[rows[ends]], lengths[rows[ends]] = True, step + 1
            rows, states, latest = rows[~ends], states[~ends], latest[~ends]
        if len(rows) == 0 or step + 1 == max_new_tokens:
            break
        logits, states = _advance(decoder, states, latest)
    check_finite(lm, logprobs)
    counts = lengths.tolist()
    sampled = [row[:count] for row, count in zip(tokens.tolist(), counts, strict=True)]
    return sampled, [row[:count] for row, count in zip(logprobs, counts, strict=True)], ended.tolist()


def _advance(decoder, states: Tensor, latest: Tensor) -> tuple[Tensor, Tensor]:
    """Read the newest token of every row: (the logits behind it, which row of the decoder has read it).

    Rows with the same tokens so far share one row of the decoder; where they part, it is copied.
    """
    size = len(decoder.hidden)
    if len(states) == size and torch.equal(states, torch.arange(size, device=states.device)):
        return decoder.step(latest), states  # they have parted already, and share no row again
    words = int(latest.max()) + 1
    kinds, joined = (states * words + latest).unique(return_inverse=True)  # faster than of pairs
    parents, entered = kinds // words, kinds % words
    if len(parents) > len(parents.unique()) or len(parents) <= _CROWD * size:
        decoder.keep(parents)
        return decoder.step(entered)[joined], joined
    return decoder.step(latest.new_zeros(size).scatter(0, states, latest))[states], states


def stop_detector(lm, stop: Sequence[str]) -> Callable[[Tensor], Tensor]:
    """A function from sampled tokens (n, t) to (n,) bool: does the newest token complete a stop string?"""
    # a token is at least one byte, so a stop string of b bytes that ends now began at most b tokens ago
    window = max((len(string.encode()) for string in stop), default=0)

    @functools.cache
    def holds(tail: tuple[int, ...]) -> bool:
        text = _decode_ids(lm, tail)
        return any(string in text for string in stop)

    def detect(tokens: Tensor) -> Tensor:
        if not stop:
            return torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
        tails = tokens[:, -window:].tolist()
        return torch.tensor([holds(tuple(tail)) for tail in tails], device=tokens.device)

    return detect


def record(lm, prompts: list[list[int]], sampled: list[list[int]], logprobs: list[Tensor], ended) -> Rollout:
    """Lay prompts and samples out as one Rollout: the action at t is the token at t + 1.

    Args: prompts and sampled, B lists of ids; logprobs, B tensors, one number per sampled id; ended, B booleans.
    """
    padding = lm.tokenizer.pad_token_id or 0
    tokens, _ = pad_and_stack([prompt + ids for prompt, ids in zip(prompts, sampled, strict=True)], value=padding)
    first = torch.tensor([len(prompt) - 1 for prompt in prompts])[:, None]
    count = torch.tensor([len(ids) for ids in sampled])[:, None]
    steps = torch.arange(tokens.shape[1] - 1)
    mask = (steps >= first) & (steps < first + count)
    recorded = torch.zeros(mask.shape)
    recorded[mask] = torch.cat(logprobs).cpu()
    fields = (tokens[:, :-1], tokens[:, 1:], torch.zeros(mask.shape), recorded, mask, torch.tensor(ended))
    return Rollout(*(field.to(lm.device) for field in fields))


def _text(lm, ids: Sequence[int], stop: Sequence[str]) -> str:
    """Decode sampled ids without the end token, and cut before the first stop string."""
    ids = ids[:-1] if ids and ids[-1] in lm.end_tokens else ids
    text = _decode_ids(lm, ids)
    return text[: min((text.find(string) for string in stop if string in text), default=len(text))]


def _decode_ids(lm, ids: Sequence[int]) -> str:
    return lm.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)


def encode_prompts(lm, prompts: Sequence[str], max_new_tokens: int) -> list[list[int]]:
    """`encode`, where room for max_new_tokens must be left. Raises: ValueError as `sample_text`."""
    check_counts(max_new_tokens=max_new_tokens)
    _check_texts("prompts", prompts)
    if not len(prompts):
        raise ValueError("prompts is empty: expected at least one string")
    tokens = encode(lm, prompts)
    for index, ids in enumerate(tokens):
        if not ids:
            raise ValueError(f"prompts[{index}] is empty: this tokenizer has no beginning-of-text token to start from")
        if len(ids) + max_new_tokens > lm.context:
            raise ValueError(f"prompts[{index}] has {len(ids)} tokens, with max_new_tokens={max_new_tokens} more than "
                             f"the context: expected at most {lm.context} together")  # fmt: skip
    return tokens


def _check_texts(name: str, texts: Sequence[str]) -> None:
    if isinstance(texts, str):
        raise ValueError(f"{name} is the string {texts[:40]!r}: expected a list of strings")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"{name}[{index}] is {text!r:.60}: expected a string")
        check_utf8(f"{name}[{index}]", text)


def check_utf8(name: str, text: str) -> None:
    """Raise ValueError for half of a surrogate pair, as broken JSON leaves it: no tokenizer takes it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = repr(text[error.start])
        raise ValueError(f"{name} has a lone surrogate, {half}: expected text that UTF-8 can write") from error


def check_finite(lm, *logprobs: Tensor) -> None:
    """Raise ValueError if log-probabilities are NaN, which they are where logits are not finite."""
    if any(bool(values.isnan().any()) for values in logprobs):
        raise ValueError(f"the logits of {lm.name!r} are not finite: expected a model that has not diverged")


def check_stop(lm, stop: str | Sequence[str]) -> tuple[str, ...]:
    """The stop strings as a tuple. Raises: ValueError for one that is empty or that the tokenizer cannot produce."""
    stop = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if not all(isinstance(string, str) and string for string in stop):
        raise ValueError(f"stop={stop!r}: expected strings with at least one character")
    for string in stop:
        written = _decode_ids(lm, encode(lm, [string], bos=False)[0])
        if string not in written:
            raise ValueError(f"stop={string!r} would never be met: the tokenizer of {lm.name!r} writes {written!r}, "
                             "expected a string that it can produce")  # fmt: skip
    return stop


def _batches(lengths: Sequence[int], cells: int) -> Iterator[list[int]]:
    """Row numbers in batches of similar length, longest first, each of at most `cells` tokens with its padding."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    while order:
        rows = max(1, cells // max(1, lengths[order[0]]))
        yield order[:rows]
        order = order[rows:]


@contextmanager
def evaluation(lm) -> Iterator[None]:
    """Dropout off inside, every module's own mode back afterwards; weights that FSDP2 has divided are whole inside."""
    training = [module for module in lm.modules() if module.training]
    lm.eval()
    try:
        with gathered(lm):
            yield
    finally:
        for module in training:
            module.training = True
