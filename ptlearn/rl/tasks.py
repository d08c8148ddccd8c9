"""Problems that a program can judge: prompts with a verifier, split into those to train on and those held out.

A verifier is a function from a completion to a reward, and a task is a name, problems and the room for an answer. A
language model meets a task as an agent meets a world: `text_collection` samples the completions and pays the rewards.
Deliberately not here: sampling (text, text_collection), and the tasks of the pocket world (pocket.tasks).
Order: Problem, Task, prompt_texts, score; pass_at_k; verifiers; GSM8K.
"""

from __future__ import annotations

import functools
import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from numbers import Real
from pathlib import Path

from ptlearn.lm.chat import chat_prompt, read_json_objects

Score = Callable[[str], float]


@dataclass(frozen=True)
class Problem:
    """What is asked, the verifier of an answer, and where there is one, a right answer."""

    prompt: str
    score: Score = field(repr=False, compare=False)
    response: str = ""


@dataclass(frozen=True)
class Task:
    """Problems of one kind. Rewards lie between `low` and `high`, and `high` means solved.

    Holds: max_new_tokens, the room for a completion; stop, strings that end one; chat, whether a prompt is a user's
    message, put into the chat template of the model, or text that the model goes on with as it is.
    """

    name: str
    train: tuple[Problem, ...] = field(repr=False)
    held_out: tuple[Problem, ...] = field(repr=False)
    max_new_tokens: int
    stop: tuple[str, ...] = ("\n",)
    low: float = 0.0
    high: float = 1.0
    chat: bool = True


def prompt_texts(lm, task: Task, problems: Sequence[Problem]) -> list[str]:
    """The texts that the model is to go on with.

    Raises: ValueError if there are no problems, or as `chat.chat_prompt` if the task is a chat.
    """
    _check_problems(task, problems)
    if not task.chat:
        return [problem.prompt for problem in problems]
    rendered = {prompt: chat_prompt(lm, prompt) for prompt in {problem.prompt for problem in problems}}
    return [rendered[problem.prompt] for problem in problems]


def score(task: Task, problems: Sequence[Problem], completions: Sequence[str]) -> list[float]:
    """The reward of each completion, checked: a verifier that fails must not look like a hard problem.

    Raises: ValueError if there are no problems or not one completion to each; with the prompt and the completion, if a
            verifier raises, or returns anything but a number between task.low and task.high.
    >>> sums = (Problem("2 + 2?", ends_on(4)), Problem("2 + 3?", ends_on(5)))
    >>> score(Task("sums", sums, sums, max_new_tokens=8), sums, ["4", "no idea"])
    [1.0, 0.0]
    """
    _check_problems(task, problems)
    if len(problems) != len(completions):
        raise ValueError(f"completions: {len(completions)} given for {len(problems)} problems, expected one for each")
    return [_reward(task, problem, text) for problem, text in zip(problems, completions, strict=True)]


def _reward(task: Task, problem: Problem, completion: str) -> float:
    where = f"prompt {problem.prompt!r}, completion {completion!r}"
    try:
        reward = problem.score(completion)
    except Exception as error:
        raise ValueError(f"the verifier of task {task.name!r} raised {error!r}: {where}") from error
    # NaN is in no range, since every comparison with it is false
    if not (isinstance(reward, Real) and task.low <= reward <= task.high):
        raise ValueError(f"the verifier of task {task.name!r} returned {reward!r:.60}: "
                         f"expected a number from {task.low:g} to {task.high:g}: {where}")  # fmt: skip
    return float(reward)


def _check_problems(task: Task, problems: Sequence[Problem]) -> None:
    if not problems:
        raise ValueError(f"task {task.name!r} was given no problems: expected at least one")


def pass_at_k(successes: int, samples: int, k: int) -> float:
    """The probability that one of k samples solves a problem, estimated without bias from n of which c did.

        1 - C(n - c, k) / C(n, k)

    Raises: ValueError unless 0 <= successes <= samples and 1 <= k <= samples.
    Source: Chen et al. 2021, eq. 1. Claim C41.
    >>> pass_at_k(1, 4, 1), pass_at_k(1, 4, 2), pass_at_k(3, 4, 2)
    (0.25, 0.5, 1.0)
    """
    if not 0 <= successes <= samples:
        raise ValueError(f"successes={successes}: expected between 0 and samples={samples}")
    if not 1 <= k <= samples:
        raise ValueError(f"k={k}: expected between 1 and samples={samples}")
    return 1 - math.comb(samples - successes, k) / math.comb(samples, k)


# ---------------------------------------------------------------- verifiers

# each minus, hyphen and short dash; each apostrophe; and what takes no room: soft hyphens, joiners, byte order marks
_TYPED = str.maketrans(
    dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d", "-")
    | dict.fromkeys("\u2018\u2019\u201b\u02bc\u2032\u00b4`\uff07", "'")
    | dict.fromkeys("\u00ad\u200b\u2060\ufeff")
)
# a minus between two numbers subtracts, elsewhere it is a sign; commas and no-break spaces group digits by three
_NUMBER = re.compile(
    r"((?<!\d)-)?\$?(\d+(?:[,\u00a0\u2009\u202f\uff0c]\d{3})*(?:\.\d+)?(?:[eE][+-]?\d{1,3}\b)?|(?<!\w)\.\d+)"
)


def typewritten(text: str) -> str:
    """The text in the signs of a keyboard: one minus, one apostrophe, one code point for a letter and its accent.

    >>> typewritten("l\u2019e\u0301te\u0301, \u22123 or \u20133")
    "l'\xe9t\xe9, -3 or -3"
    """
    return unicodedata.normalize("NFC", text.translate(_TYPED))


def last_number(text: str) -> Decimal | None:
    """The number that a text ends on, None where it has none.

    >>> last_number("17 + 5 = 10 + 12 = 22."), last_number("48-50 is -2"), last_number("$1,200 in all"), last_number("")
    (Decimal('22'), Decimal('-2'), Decimal('1200'), None)
    >>> last_number("about 1.5e-3")
    Decimal('0.0015')
    """
    return next(reversed(_numbers(text)), None)


def _numbers(text: str) -> list[Decimal]:
    return [Decimal(sign + re.sub(r"[^\d.eE+-]", "", digits)) for sign, digits in _NUMBER.findall(typewritten(text))]


@functools.lru_cache(2**16)  # facts are put into these words for every request about any of them
def plain(text: str) -> str:
    """The words of a text in lower case, joined by single spaces.

    >>> plain(" The owl's nest,  (here)!"), plain("It is -3.5.")
    ("the owl's nest here", 'it is -3.5')
    """
    return " ".join(_WORD.findall(typewritten(text).casefold()))


# a sign and a point belong to a number, an apostrophe and a hyphen within a word to the word
_WORD = re.compile(r"(?:(?<![\w-])-(?=\d))?\w+(?:(?:['-]|(?<=\d)\.(?=\d))\w+)*")


def ends_on(number: Real | Decimal | str) -> Score:
    """1 for a text whose last number is this one: how it got there is its own affair.

    Raises: ValueError for something else than a finite number, or its digits.
    >>> ends_on(0.1)("so 0.10"), ends_on("42")("41 or 42")
    (1.0, 1.0)
    """
    try:
        wanted = Decimal(str(getattr(number, "item", lambda: number)()))  # the number of an array or a tensor
    except (InvalidOperation, ValueError, RuntimeError):
        wanted = Decimal("nan")
    if not wanted.is_finite():
        raise ValueError(f"number={number!r:.60}: expected a finite number")
    return lambda text: float(last_number(text) == wanted)


def matches(gold: str) -> Score:
    """1 for a text with the words and numbers of the gold, in the same order; case and punctuation are free.

    Raises: ValueError for a gold without any: every silence would earn it.
    """
    wanted = plain(gold)
    if not wanted:
        raise ValueError(f"gold={gold!r:.60}: expected a word or a number")
    return lambda text: float(plain(text) == wanted)


def bleu(gold: str) -> Score:
    """BLEU of one sentence against the gold, 0 to 1: a reward for every shared run of up to four words (Post 2018).

    >>> score = bleu("le chat voit un petit chien")
    >>> score("le chat voit un petit chien"), 0 < score("le chat voit le petit chien") < 1, score("a dog")
    (1.0, True, 0.0)
    """
    import sacrebleu

    wanted = [typewritten(gold)]
    return lambda text: min(1.0, sacrebleu.sentence_bleu(typewritten(text).strip(), wanted).score / 100)


def in_place(gold: str) -> Score:
    """Share of the words that stand where the gold has them. Raises: ValueError for a gold without words.

    >>> in_place("3 5 9")("3 9 5"), in_place("3 5 9")("3 5 9 9")
    (0.3333333333333333, 0.75)
    """
    wanted = typewritten(gold).split()
    if not wanted:
        raise ValueError(f"gold={gold!r:.60}: expected a word")

    def score(text: str) -> float:
        words = typewritten(text).split()
        return sum(map(str.__eq__, words, wanted)) / max(len(words), len(wanted))

    return score


# ---------------------------------------------------------------- GSM8K


def read_gsm8k(path: str | Path) -> list[Problem]:
    """Grade-school problems, one JSON object a line with `question` and `answer`, whose end is `#### number`.

    A completion is right if the first number after its last `####`, on the same line, is; where it has no `####`, its
    last number. Responses come without the calculator notes `<<48/2=24>>` of the file.

    Raises: FileNotFoundError; ValueError with the line number for what is not such an object.
    Source: Cobbe et al. 2021.
    """
    problems = []
    for where, record in read_json_objects(path):
        question, answer = record.get("question"), record.get("answer")
        if not (isinstance(question, str) and isinstance(answer, str)):
            raise ValueError(f"{where}: expected the strings question and answer")
        gold = _final_number(answer)
        if "####" not in answer or gold is None:
            raise ValueError(f"{where}: the answer ends with {answer[-20:]!r}, expected #### and a number")
        problems.append(Problem(question, _ends_finally_on(gold), re.sub(r"<<[^>]*>>", "", answer)))
    return problems


def _final_number(text: str) -> Decimal | None:
    _, marker, end = text.rpartition("####")
    # a model that goes on writes its next numbers on lines of their own
    return next(iter(_numbers(end.partition("\n")[0])), None) if marker else last_number(text)


def _ends_finally_on(number: Decimal) -> Score:
    return lambda text: float(_final_number(text) == number)


def gsm8k(train: str | Path, held_out: str | Path, *, max_new_tokens: int = 256) -> Task:
    """GSM8K from the paths of its two files. A completion is over where the model puts a question of its own."""
    sides = (tuple(read_gsm8k(path)) for path in (train, held_out))
    return Task("gsm8k", *sides, max_new_tokens=max_new_tokens, stop=("Question:", "User:"))
