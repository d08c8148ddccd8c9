"""Conversations as token sequences: chat templates, response masks, batches, packing, files of instruction data.

Here: what supervised finetuning trains on, in the same record that reinforcement learning uses. A conversation is a
list of messages {"role": "system" | "user" | "assistant", "content": str}; the mask is True on what the assistant
says, the end token included.
Deliberately not here: the loop (finetuning.sft) and where conversations come from (pocket, synthetic).
Order: render, chat_prompt; batches and packing; response_logprobs; files.
"""

from __future__ import annotations

import codecs
import functools
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ptlearn.lm.models import attention_bias
from ptlearn.lm.text import check_utf8, encode
from ptlearn.rollout import Rollout, pad_and_stack

Conversation = Sequence[dict[str, str]]
ROLES = ("system", "user", "assistant")


class Example(NamedTuple):
    """One conversation as tokens, and which of them the assistant says."""

    tokens: list[int]
    mask: list[bool]


def render(lm, conversation: Conversation) -> Example:
    """The tokens of a conversation in the model's own chat template, and a mask of the assistant's.

    The text is encoded piece by piece, a turn of the assistant at a time, so that no token straddles the border between
    a prompt and its response: what is trained on is what sampling after `chat_prompt` can produce. So it also starts
    with the document start, if there is one, where the template leaves that out.

    Raises: ValueError if the conversation is malformed, empty of responses, begins with the assistant, ends with the
            user, or has a control token in its text, if the tokenizer has no chat template or that refuses the
            conversation, or if the template ends a response without one of the model's end tokens.
    """
    _check_conversation(conversation, lm.control_tokens)
    tokens, mask, written, whole = [], [], "", []
    for index, message in enumerate(conversation):
        if message["role"] != "assistant":
            continue
        prompt = _apply(lm, conversation[:index], add_generation_prompt=True)
        answered = _apply(lm, conversation[: index + 1])
        if not (prompt.startswith(written) and answered.startswith(prompt)):
            raise ValueError(f"the chat template of {lm.name!r} rewrites earlier turns: expected it to append only")
        response = _until_end(lm, answered[len(prompt) :])
        for text, said in ((prompt[len(written) :], False), (response, True)):
            written, head = written + text, whole
            whole = encode(lm, [written])[0]
            ids = whole[len(head) :] if whole[: len(head)] == head else _inside(lm, text)  # no token straddles
            tokens += ids
            mask += [said] * len(ids)
    return Example(tokens, mask)


def render_all(lm, conversations: Sequence[Conversation], length: int | None = None) -> tuple[list[Example], list[int]]:
    """All conversations that fit, as examples, and the numbers of those that do not.

    A conversation that is too long is left out whole: cut inside a response it would teach the model to break off.

    Args:   length, in tokens (default: the model's context).
    Raises: ValueError with the number of a conversation that `render` refuses.
    """
    length = lm.context if length is None else length
    examples, too_long = [], []
    for index, conversation in enumerate(conversations):
        try:
            example = render(lm, conversation)
        except ValueError as error:
            raise ValueError(f"conversations[{index}]: {error}") from error
        if len(example.tokens) > length:
            too_long.append(index)
        else:
            examples.append(example)
    return examples, too_long


def chat_prompt(lm, conversation: Conversation | str) -> str:
    """The text after which the assistant speaks, for `sample_text` and `complete`; a string counts as one user message.

    Without the document start, which `text.encode` puts there itself.

    Raises: ValueError as `render`, but for a conversation that ends with the assistant instead of one that does not.

    >>> from ptlearn.lm.models import load_lm
    >>> chat_prompt(load_lm("pocket-s"), "What is the capital of Kenya?")
    'User: What is the capital of Kenya?\\nAssistant:'
    """
    messages = [{"role": "user", "content": conversation}] if isinstance(conversation, str) else conversation
    _check_messages(messages, lm.control_tokens)
    if messages[-1]["role"] == "assistant":
        raise ValueError("the conversation ends with the assistant: expected a message to respond to at the end")
    return _apply(lm, messages, add_generation_prompt=True).removeprefix(_start(lm.tokenizer, lm.document_start))


@functools.lru_cache(maxsize=8)
def _start(tokenizer, token: int | None) -> str:
    """How the document start is written, or "" where a text behind it would lack the space of one that begins."""
    written = "" if token is None else tokenizer.decode([token])
    behind, begun = tokenizer([written + "a", "a"], add_special_tokens=False)["input_ids"]
    return written if behind[1:] == begun else ""


def _apply(lm, messages: Conversation, *, add_generation_prompt: bool = False) -> str:
    if not getattr(lm.tokenizer, "chat_template", None):
        raise ValueError(f"the tokenizer of {lm.name!r} has no chat template: expected one, as chat models have")
    options = {"tokenize": False, "add_generation_prompt": add_generation_prompt}
    try:
        return lm.tokenizer.apply_chat_template(list(messages), **options)
    except Exception as error:  # a template is a program of the model's, and may raise anything
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"the chat template of {lm.name!r} refuses the conversation: {said}") from error


def _inside(lm, text: str) -> list[int]:
    """The tokens of a text behind a line break, which joins no word: where a text begins there may be a space more."""
    for before in ("\n", ""):
        head, whole = encode(lm, [before, before + text], bos=False)
        if whole[: len(head)] == head:
            break
    return whole[len(head) :]


def _until_end(lm, text: str) -> str:
    """What the assistant says, up to and with the token that ends it: some templates go on with a newline."""
    ends = [token for token in map(lm.tokenizer.convert_ids_to_tokens, lm.end_tokens) if token in text]
    if not ends:
        known = ", ".join(map(repr, lm.tokenizer.convert_ids_to_tokens(list(lm.end_tokens))))
        raise ValueError(f"the chat template of {lm.name!r} ends a response with {text[-12:]!r}: expected an end "
                         f"token, {known}, or one more in lm.end_tokens")  # fmt: skip
    return text[: max(text.rindex(token) + len(token) for token in ends)]


def _check_conversation(conversation: Conversation, controls: Iterable[str] = ()) -> None:
    _check_messages(conversation, controls)
    if conversation[0]["role"] == "assistant":
        raise ValueError("the conversation begins with the assistant: expected a message to respond to before it")
    if conversation[-1]["role"] != "assistant":
        raise ValueError(f"the conversation ends with the {conversation[-1]['role']}: expected a response at the end")
    for index, message in enumerate(conversation):
        if message["role"] == "assistant" and not message["content"].strip():
            raise ValueError(f"message {index} is an empty response: expected text")


def _check_messages(messages: Conversation, controls: Iterable[str] = ()) -> None:
    """What a tokenizer would read as the end of a turn, one of `controls`, must not come from inside of one."""
    if not messages:
        raise ValueError("the conversation has no message: expected at least one")
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not {"role", "content"} <= set(message):
            raise ValueError(f"message {index} is {message!r:.60}: expected a dict with role and content")
        if message["role"] not in ROLES:
            raise ValueError(f"message {index} has role {message['role']!r}: expected one of {', '.join(ROLES)}")
        if not isinstance(message["content"], str):
            raise ValueError(f"message {index} has content {message['content']!r:.40}: expected a string")
        check_utf8(f"message {index}", message["content"])
        if found := [token for token in controls if token in message["content"]]:
            raise ValueError(f"message {index} contains {found[0]!r}: expected text without special tokens")


# ---------------------------------------------------------------- batches


def as_rollout(examples: Sequence[Example], *, padding: int = 0) -> Rollout:
    """Examples as the record of the course, padded on the right: the action at t is the token at t + 1.

    The mask is True where the action is a token of a response. Rewards and log-probabilities are zero: nobody sampled
    these tokens, and nothing that finetuning does with them asks how likely they were.

    >>> rollout = as_rollout([Example([5, 6, 7], [False, True, True]), Example([5, 8], [False, True])])
    >>> rollout.actions, rollout.mask
    (tensor([[6, 7],
            [8, 0]]), tensor([[ True,  True],
            [ True, False]]))
    """
    check_examples("examples", examples)
    tokens, _ = pad_and_stack([example.tokens for example in examples], value=padding)
    said, _ = pad_and_stack([example.mask for example in examples], value=False)
    zeros = torch.zeros(tokens[:, 1:].shape)
    done = torch.ones(len(tokens), dtype=torch.bool)
    return Rollout(tokens[:, :-1], tokens[:, 1:], zeros, zeros, said[:, 1:], done)


def check_examples(name: str, examples: Sequence[Example]) -> None:
    """Raise ValueError naming the first that is no Example, or whose mask is not as long as its tokens."""
    for index, example in enumerate(examples):
        if not (hasattr(example, "tokens") and hasattr(example, "mask")):
            raise ValueError(f"{name}[{index}] is a {type(example).__name__}: expected an Example, as `render` makes "
                             "them of conversations")  # fmt: skip
        if len(example.tokens) != len(example.mask):
            raise ValueError(f"{name}[{index}] has {len(example.tokens)} tokens and a mask of {len(example.mask)}: "
                             "expected as many")  # fmt: skip


def pack(examples: Sequence[Example], length: int) -> list[list[int]]:
    """Which examples share a row of at most `length` tokens: the longest first, each into the first row with room.

    Raises: ValueError if an example is longer than a row.
    >>> pack([Example([0] * n, [True] * n) for n in (3, 5, 2)], length=6)
    [[1], [0, 2]]
    """
    rows, room = [], []
    for index in sorted(range(len(examples)), key=lambda i: -len(examples[i].tokens)):
        size = len(examples[index].tokens)
        if size > length:
            raise ValueError(f"examples[{index}] has {size} tokens: expected at most length={length}")
        row = next((row for row, left in enumerate(room) if left >= size), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(length)
        rows[row].append(index)
        room[row] -= size
    return rows


def as_packed_rollout(rows: Sequence[Sequence[Example]], *, padding: int = 0) -> tuple[Rollout, Tensor]:
    """Several examples in each row of a rollout, and segments (B, T) int: which example a position belongs to.

    Segments count from 0 in each row; padding has -1. The step from the last token of an example to the first of the
    next is in nobody's mask.
    """
    tokens = [[t for e in row for t in e.tokens] for row in rows]
    masks = [[m and i > 0 for e in row for i, m in enumerate(e.mask)] for row in rows]
    numbers = [[number for number, e in enumerate(row) for _ in e.tokens] for row in rows]
    return as_rollout(list(map(Example, tokens, masks)), padding=padding), pad_and_stack(numbers, value=-1)[0][:, :-1]


def batches_by_length(lengths: Sequence[int], size: int, generator: random.Random, window: int = 16) -> list[list[int]]:
    """All numbers 0 .. len(lengths) - 1 in batches of `size`, in random order, of similar length within a batch.

    Shuffled, sorted within windows of `window` batches, cut, and the batches shuffled: little padding, and still
    another order in every epoch. A window is at most a quarter of all, because a batch of one length alone teaches
    less than a mixed one (16 updates of 32: held-out loss 0.067 in one window, 0.058 in four, 0.053 unsorted).
    """
    window = max(1, min(window, len(lengths) // (4 * size)))
    order = list(range(len(lengths)))
    generator.shuffle(order)
    batches = []
    for first in range(0, len(order), size * window):
        similar = sorted(order[first : first + size * window], key=lambda i: lengths[i])
        batches += [similar[i : i + size] for i in range(0, len(similar), size)]
    generator.shuffle(batches)
    return batches


# ---------------------------------------------------------------- log-probabilities of responses


def response_logprobs(lm, rollout: Rollout, segments: Tensor | None = None) -> Tensor:
    """Log-probabilities of the masked actions, as `rollout.action_logprobs`, at the price of those positions only.

    Args:    rollout; segments, from `as_packed_rollout`: examples in one row then do not see each other, and each
             counts its positions from 0.
    Returns: (B, T) nats with gradient, 0 where mask is False.
    Raises:  ValueError for segments longer than the window of a model that does not look back on all it has read.
    """
    mask = rollout.mask
    options = {} if segments is None else _apart(lm, segments, mask)
    logits = lm.logits_at(rollout.observations, mask, **options)
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    chosen = -F.cross_entropy(logits, rollout.actions[mask].long(), reduction="none")
    return torch.zeros(mask.shape, dtype=chosen.dtype, device=chosen.device).masked_scatter(mask, chosen)


def _apart(lm, segments: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Attention within segments only, and positions that begin anew in each: arguments of a transformers model."""
    steps = torch.arange(segments.shape[1], device=segments.device)
    same = (segments[:, :, None] == segments[:, None, :]) & (steps[:, None] >= steps)
    # padding forms a segment of its own, so that no row of the mask is empty
    begins = torch.where(segments != segments.roll(1, 1), steps, 0)
    begins[:, 0] = 0
    positions = steps - begins.cummax(1).values
    # this mask takes the place of the model's own, which would hide what is further back than a window
    if lm.window is not None and (longest := int(positions[mask].max()) + 1) > lm.window:
        raise ValueError(f"an example reads {longest} tokens beside others in its row: expected at most {lm.window}, "
                         f"the window of {lm.name!r}, or one example a row")  # fmt: skip
    return {"attention_mask": attention_bias(lm, same), "position_ids": positions}


# ---------------------------------------------------------------- files


def read_conversations(path: str | Path) -> list[list[dict[str, str]]]:
    """Instruction data, JSON objects one a line or in an array: chat `messages`, Alpaca's `instruction`, `input` and
    `output`, or a seed task of Self-Instruct, whose `instances` hold inputs and outputs. An input stands in the line
    below the instruction.

    Raises: FileNotFoundError; ValueError with the line or item number for text that is not UTF-8, JSON that is broken
            off, keys that are missing, and conversations that `render` would refuse.
    """
    conversations = []
    for where, record in read_json_objects(path):
        try:
            found = _conversations(record)
            for conversation in found:
                _check_conversation(conversation)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        conversations += found
    return conversations


def read_json_objects(path: str | Path) -> Iterator[tuple[str, dict]]:
    """(where it stands, object) for every line that is not blank, or for every item of one array.

    Raises: FileNotFoundError; ValueError with the line or item for text that is not UTF-8, or no JSON object.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {str(path)!r}: expected JSON objects, one a line or in an array")
    data = path.read_bytes()
    if data.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
        found = ((f"{path}, item {number}", item) for number, item in enumerate(_parsed(data, str(path)), 1))
    else:
        lines = ((f"{path}, line {number}", line) for number, line in enumerate(data.split(b"\n"), 1) if line.strip())
        found = ((where, _parsed(line, where)) for where, line in lines)
    for where, record in found:
        if not isinstance(record, dict):
            raise ValueError(f"{where}: a {type(record).__name__}, expected a JSON object")
        yield where, record


def _parsed(data: bytes, where: str):
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: byte {error.start} is not UTF-8") from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}" if b"\n" in data else f"column {error.colno}"
        raise ValueError(f"{where}: not JSON ({error.msg} at {place})") from error


def _conversations(record: dict) -> list[list[dict[str, str]]]:
    for key in ("messages", "instances"):
        if not isinstance(record.get(key, []), list):
            raise ValueError(f"{key} is {record[key]!r:.40}: expected a list")
    if "messages" in record:
        return [record["messages"]]
    if "instances" not in record:
        return [_instruction(record)]
    instances = record.pop("instances")
    if not instances or not all(isinstance(instance, dict) for instance in instances):
        raise ValueError(f"instances is {instances!r:.40}: expected objects with input and output, at least one")
    return [_instruction(record | instance) for instance in instances]


def _instruction(record: dict) -> list[dict[str, str]]:
    missing = [key for key in ("instruction", "output") if key not in record]
    if missing:
        raise ValueError(f"no {' and no '.join(missing)}: expected messages, or instruction and output")
    for key in ("instruction", "input", "output"):
        if not isinstance(record.get(key, ""), str) or key == "instruction" and not record[key].strip():
            raise ValueError(f"{key} is {record[key]!r:.40}: expected a string with some text")
    prompt = "\n".join(text for text in (record["instruction"], record.get("input", "")) if text)
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": record["output"]}]
