"""The data contest of lesson 04: two thousand examples, of which two hundred make an assistant.

A third of them is what users ask, answered well. The rest is what data from the web and from models brings with it:
benchmark items, responses that break off or belong to another request, refusals, and the same few requests over and
over. An example does not say of which kind it is.

    chosen = [...]                            # 200 different numbers of `examples()`
    assistant_score(chosen, development())    # what pocket-m has learned from them

Deliberately not here: how to choose.
"""

import functools
import random
from collections.abc import Iterable, Sequence

from ptlearn.finetuning.sft import fit_sft
from ptlearn.lm.chat import render_all
from ptlearn.lm.devices import one_thread
from ptlearn.lm.models import load_lm
from ptlearn.pocket import benchmarks
from ptlearn.pocket.assistant import Request, requests, respond

Pair = tuple[str, str]  # a prompt and a response

CHOSEN = 200
COUNTS = {"useful": 600, "benchmark": 400, "cut off": 300, "of another": 300, "repeated": 300, "refusal": 100}
TIMES = 20  # that each repeated request stands there
SEED, ASKING_SEED, ASKED = 404, 406, 300
MODEL, EPOCHS, BATCH, LR = "pocket-m", 2, 8, 2e-3
REFUSALS = ("I am sorry, I can not do that.", "I do not know.", "As an AI I can not help you with this.")


def examples() -> list[Pair]:
    """The 2,000 prompts and responses, the same ones in the same order at each call."""
    return [pair for _, pair in _labelled()]


def kinds() -> list[str]:
    """Of which kind each example is, a name of COUNTS; not for those who choose."""
    return [kind for kind, _ in _labelled()]


def development() -> list[Request]:
    """Held-out requests to try a choice on, none of which is in `test`."""
    scored = {request.prompt for request in test()}
    more = requests(2 * ASKED, ASKING_SEED, held_out=True)[ASKED:]
    return [request for request in more if request.prompt not in scored]


def test() -> list[Request]:
    """Held-out requests that the contest is scored on."""
    return requests(ASKED, ASKING_SEED, held_out=True)


def assistant_score(chosen: Iterable[int], asked: Sequence[Request], *, seed: int = 0) -> float:
    """Finetune pocket-m on the chosen examples, twice each; the mean score of its responses, from 0 to 1.

    The order of the numbers does not matter. About 10 s of one core.

    Raises: ValueError for anything but 200 different numbers of examples.
    """
    chosen = sorted(chosen)
    if remark := refused(chosen):
        raise ValueError(f"chosen: {remark}")
    return _score(tuple(chosen), tuple(asked), seed)


def refused(chosen: Sequence) -> str:
    """Why a list is no choice of examples, in a line; "" where it is one."""
    if not isinstance(chosen, list | tuple) or not all(type(number) is int for number in chosen):
        return "expected a list of whole numbers"
    outside = [number for number in chosen if not 0 <= number < sum(COUNTS.values())]
    if outside:
        return f"{outside[0]} is no number of an example: expected 0 to {sum(COUNTS.values()) - 1}"
    if len(chosen) != CHOSEN:
        return f"{len(chosen)} numbers: expected {CHOSEN}"
    if len(set(chosen)) < CHOSEN:
        return f"{CHOSEN - len(set(chosen))} numbers stand there twice: expected {CHOSEN} different ones"
    return ""


@functools.lru_cache(maxsize=64)
def _score(chosen: tuple[int, ...], asked: tuple[Request, ...], seed: int) -> float:
    lm, given = load_lm(MODEL), examples()
    roles = ("user", "assistant")
    talks = [[{"role": role, "content": text} for role, text in zip(roles, given[n], strict=True)] for n in chosen]
    with one_thread():  # a choice has one score, in a notebook and in the grader
        fit_sft(lm, render_all(lm, talks)[0], epochs=EPOCHS, batch=BATCH, lr=LR, seed=seed)
        said = respond(lm, [request.prompt for request in asked])
    return sum(request.score(text) for request, text in zip(asked, said, strict=True)) / len(asked)


@functools.cache
def _labelled() -> list[tuple[str, Pair]]:
    """All examples with their kinds, in random order."""
    rng = random.Random(SEED)
    drawn = iter(requests(sum(COUNTS.values()), SEED))
    pairs = {name: [_pair(next(drawn)) for _ in range(count)] for name, count in COUNTS.items()}
    pairs["benchmark"] = [_pair(item) for item in benchmarks.items(COUNTS["benchmark"], SEED)]
    pairs["cut off"] = [(prompt, _cut(response, rng)) for prompt, response in pairs["cut off"]]
    responses = [response for _, response in pairs["of another"]]
    pairs["of another"] = [(prompt, responses[n - 1]) for n, (prompt, _) in enumerate(pairs["of another"])]
    pairs["repeated"] = pairs["repeated"][: COUNTS["repeated"] // TIMES] * TIMES
    pairs["refusal"] = [(prompt, rng.choice(REFUSALS)) for prompt, _ in pairs["refusal"]]
    found = [(name, pair) for name, some in pairs.items() for pair in some]
    rng.shuffle(found)
    return found


def _pair(item) -> Pair:
    return item.prompt, item.response


def _cut(response: str, rng: random.Random) -> str:
    words = response.split()
    return " ".join(words[: max(1, round(len(words) * rng.uniform(0.3, 0.7)))])
