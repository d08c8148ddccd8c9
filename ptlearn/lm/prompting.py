"""Prompting: few-shot prompts, scores of choices, verbalizers, calibration, and the metrics that judge answers.

Read downwards. Not here: generation (`ptlearn.lm.text.complete`) and the tasks themselves (`ptlearn.rl.tasks`).
"""

import random
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import NamedTuple

import torch

from ptlearn.lm.chat import Example, as_rollout, response_logprobs
from ptlearn.lm.text import check_finite, encode, evaluation
from ptlearn.rollout import Rollout, pad_and_stack


class ChoiceScores(NamedTuple):
    logprobs: torch.Tensor  # (B, C) in nats, summed over the choice's tokens
    lengths: torch.Tensor  # (B, C) in tokens


Pairs = Sequence[tuple[str, str]]  # inputs and outputs


def few_shot_prompt(demonstrations: Pairs, query: str, *, template="{input} = {output}", separator="\n") -> str:
    """Write demonstrations by the template, then the query up to where its output would start.

    Raises: ValueError when the template lacks {input}, or {output} as its last field.
    Source: Brown et al. 2020, figure 2.1; claims C05, C06.

    >>> few_shot_prompt([("chat", "cat")], "chien")
    'chat = cat\\nchien ='
    """
    stem, output, tail = template.rpartition("{output}")
    if not output or "{input}" not in stem or "{output}" in stem or "{input}" in tail:
        raise ValueError(f"template {template!r} must contain {{input}}, and {{output}} once, as the last field")
    shown = [stem.replace("{input}", given) + answer + tail for given, answer in demonstrations]
    # BPE puts the space into the first token of the answer, so the prompt must not end in one
    return separator.join([*shown, stem.replace("{input}", query).rstrip(" ")])


def sample_demonstrations(pool: Pairs, k: int, rng: random.Random, *, exclude: str | Iterable[str] = ()) -> Pairs:
    """Draw k demonstrations without replacement, in random order, leaving out the inputs named in `exclude`.

    >>> sample_demonstrations([("a", "b"), ("c", "d")], 1, random.Random(0), exclude="a")
    [('c', 'd')]
    """
    excluded = {exclude} if isinstance(exclude, str) else set(exclude)
    remaining = [pair for pair in pool if pair[0] not in excluded]
    if not 0 <= k <= len(remaining):
        raise ValueError(f"k={k} demonstrations cannot be drawn from the {len(remaining)} in the pool")
    return rng.sample(remaining, k)


def score_choices(lm, prompts: Sequence[str], choices: Sequence[str], *, batch_size: int = 64) -> ChoiceScores:
    """Score each choice as a continuation of each prompt: log p(choice | prompt) = sum of its tokens' log p.

    A space joins the two, unless the prompt is empty or ends in a line break, or the choice starts with white space.
    The joint text is tokenised; a token across the boundary counts to the choice, for all choices of the prompt alike.

    Args: batch_size: rows (prompt, choice) held in memory at once.
    Raises: ValueError for no prompts, no choices, a blank choice, a prompt that does not fit the context, or logits
            that are not finite.
    Source: Brown et al. 2020, section 2.4; claims C03, C06.
    """
    _require_texts(prompts=prompts, choices=choices)
    if blank := [choice for choice in choices if not choice.strip(" ")]:
        raise ValueError(f"choices: {blank[0]!r} is blank, expected some text to score")
    splits = [_split(lm, prompt, choices) for prompt in prompts]
    step = max(1, batch_size // len(choices))
    read = max(len(prefix) for prefix, _ in splits) + max(len(tokens) for _, pieces in splits for tokens in pieces) - 1
    score = _score_batch if lm.window is None or read <= lm.window else _score_whole
    with evaluation(lm), torch.inference_mode():
        logprobs = torch.cat([score(lm, splits[start : start + step]) for start in range(0, len(splits), step)])
    check_finite(lm, logprobs)
    return ChoiceScores(logprobs, torch.tensor([[len(tokens) for tokens in pieces] for _, pieces in splits]))


def per_token(scores: ChoiceScores) -> torch.Tensor:
    """Divide each log-probability by the choice's number of tokens, so that long choices are not punished: (B, C)."""
    return scores.logprobs / scores.lengths


def verbalizer_ids(lm, words: Sequence[str]) -> list[int]:
    """Look up the one token, leading space included, that stands for each label word; ValueError where there is none.

    Source: Schick and Schütze 2021; claim C03.
    """
    _require_texts(words=words)
    tokens = encode(lm, [" " + word.strip() for word in words], bos=False)
    for word, ids in zip(words, tokens, strict=True):
        if not word.strip() or len(ids) != 1:
            raise ValueError(f"words: {word!r} is {len(ids)} tokens of the vocabulary, expected exactly one")
    return [ids[0] for ids in tokens]


def verbalizer_probabilities(lm, prompts: Sequence[str], words: Sequence[str]) -> torch.Tensor:
    """Give p(word | prompt), normalised over the label words: (B, C)."""
    verbalizer_ids(lm, words)
    return score_choices(lm, prompts, [" " + word.strip() for word in words]).logprobs.softmax(-1)


def contextual_calibration(probabilities: torch.Tensor, content_free: torch.Tensor) -> torch.Tensor:
    """Divide out the bias that a content-free input ("N/A") reveals: q = W p + b, W = diag(p_cf)^-1, b = 0, sum q = 1.

    Args: probabilities (B, C); content_free (C,), or (N, C) for N content-free inputs, which are averaged.
    Raises: ValueError when shapes do not match, or a probability to divide by is zero.
    Source: Zhao et al. 2021, section 5; claim C07.

    >>> contextual_calibration(torch.tensor([[0.8, 0.2], [0.6, 0.4]]), torch.tensor([0.8, 0.2])).argmax(-1).tolist()
    [0, 1]
    """
    shapes = tuple(probabilities.shape), tuple(content_free.shape)
    if len(shapes[0]) != 2 or len(shapes[1]) not in (1, 2) or shapes[0][1] != shapes[1][-1] or 0 in shapes[1]:
        raise ValueError(f"probabilities {shapes[0]} and content_free {shapes[1]}: expected (B, C) and (C,) or (N, C)")
    bias = content_free.reshape(-1, shapes[0][1]).mean(0)
    if not (bias > 0).all():
        raise ValueError(f"content_free must be positive, got {bias.tolist()}")
    weighted = probabilities / bias
    if not ((weighted >= 0).all() and (weighted.sum(-1) > 0).all()):
        raise ValueError(f"probabilities must be non-negative with a positive sum, got {probabilities.tolist()}")
    return weighted / weighted.sum(-1, keepdim=True)


def exact_match(predictions: Sequence[str], references: Sequence[str]) -> list[bool]:
    """Compare pairwise, white space aside; case and punctuation count.

    >>> exact_match([" New   Delhi", "paris"], ["New Delhi", "Paris"])
    [True, False]
    """
    _require_texts(predictions=predictions, references=references)
    return [given.split() == wanted.split() for given, wanted in zip(predictions, references, strict=True)]


def corpus_bleu(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Corpus BLEU, 0 to 100 (Post 2018; C05). It counts up to 4-grams: a corpus of one-word answers scores 0."""
    import sacrebleu

    _require_texts(predictions=predictions, references=references)
    return sacrebleu.corpus_bleu(list(predictions), [list(references)]).score


def rouge_l(prediction: str, reference: str) -> float:
    """F-measure of the longest common subsequence of words, 0 to 1 (Lin 2004; C03)."""
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"]).score(reference, prediction)["rougeL"].fmeasure


def first_line(text: str) -> str:
    """Keep what stands before the first line break: a base model goes on with the next item of its list."""
    return text.partition("\n")[0].strip()


def _split(lm, prompt: str, choices: Sequence[str]) -> tuple[list[int], list[list[int]]]:
    """Tokenise the joint texts and cut them where the first of them leaves the prompt's tokens."""
    stem = prompt.rstrip(" ")
    glue = "" if not stem or stem[-1].isspace() else " "
    tokens = encode(lm, [stem, *(stem + ("" if choice[0].isspace() else glue) + choice for choice in choices)])
    boundary = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*tokens, strict=False)))
    longest = max(map(len, tokens[1:])) - 1  # the last token is predicted, never read
    if longest > lm.context:
        raise ValueError(f"prompts: {longest} tokens do not fit the context of {lm.context}: {prompt[:60]!r}")
    if not boundary:
        raise ValueError(f"prompts: {prompt!r} leaves no token to start from, expected text before the choices")
    return tokens[0][:boundary], [joint[boundary:] for joint in tokens[1:]]


def _right_pad(lm, sequences: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack sequences to (B, T), padded on the right, and their lengths (B,), on the model's device."""
    ids, mask = pad_and_stack(sequences)
    return ids.to(lm.device), mask.sum(1).to(lm.device)


def _score_batch(lm, splits: Sequence[tuple[list[int], list[list[int]]]]) -> torch.Tensor:
    """Read every prompt once, then all its choices from the cached keys and values: (B, C)."""
    count = len(splits[0][1])
    ids, lengths = _right_pad(lm, [prefix for prefix, _ in splits])
    targets, target_lengths = _right_pad(lm, [tokens for _, continuations in splits for tokens in continuations])
    # logits at the prompts' ends alone: all of them, over a vocabulary of 150k, would be gigabytes
    ends, column = (lengths - 1).unique(return_inverse=True)
    prefill = lm.model(ids, use_cache=True, logits_to_keep=ends)
    logits = prefill.logits[range(len(ids)), column].repeat_interleave(count, 0)[:, None]  # (B*C, 1, V)
    steps = torch.arange(targets.shape[1], device=ids.device)
    if len(steps) > 1:
        cache = prefill.past_key_values
        cache.batch_repeat_interleave(count)
        lengths = lengths.repeat_interleave(count)[:, None]
        # padding sits between prompt and choice in the cache: it must be hidden and must not count as a position
        slots = torch.arange(ids.shape[1] + len(steps) - 1, device=ids.device)
        mask = ((slots < lengths) | (slots >= ids.shape[1])).long()
        positions = (lengths + steps[:-1]).clamp(max=lm.context - 1)  # only padding can lie beyond the context
        rest = lm.model(targets[:, :-1], past_key_values=cache, attention_mask=mask, position_ids=positions)
        logits = torch.cat([logits, rest.logits], 1)
    logprobs = logits.float().log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    # where, not a product: padding may be impossible, and 0 * -inf is no number
    return torch.where(steps < target_lengths[:, None], logprobs, 0).sum(-1).view(-1, count).cpu()


def _score_whole(lm, splits: Sequence[tuple[list[int], list[list[int]]]]) -> torch.Tensor:
    """Read the prompt anew with each of its choices, under the masks of the model's own, such as windows: (B, C)."""
    pairs = [(prefix, tokens) for prefix, continuations in splits for tokens in continuations]
    examples = [Example(prefix + tokens, [False] * len(prefix) + [True] * len(tokens)) for prefix, tokens in pairs]
    joint = Rollout(*(field.to(lm.device) for field in vars(as_rollout(examples)).values()))
    return response_logprobs(lm, joint).sum(-1).view(len(splits), -1).cpu()


def _require_texts(**arguments: Sequence[str]) -> None:
    for name, texts in arguments.items():
        if isinstance(texts, str) or not len(texts):
            raise ValueError(f"{name} must be a non-empty list of texts, got {texts!r}")
    if "references" in arguments and len({len(texts) for texts in arguments.values()}) > 1:
        raise ValueError(f"predictions and references must pair, got {[len(texts) for texts in arguments.values()]}")
