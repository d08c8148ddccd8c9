"""Self-Instruct: a teacher model writes the instructions and the responses that a student is trained on.

    seed tasks -> new instructions -> filter -> responses -> filter -> conversations

Here: the loop, which resumes after a kill; its filters; how much survives each; the seed tasks' file.
Deliberately not here: training the student (sft.fit_sft) and the tasks of the pocket world (pocket.assistant).
Order: Item, self_instruct, the prompts, teacher; the filters and Pool; Yields; read_seed_tasks.
Source: Wang et al. 2023, section 3; claims C11, C12.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

from rouge_score.rouge_scorer import RougeScorer
from rouge_score.scoring import fmeasure
from rouge_score.tokenizers import DefaultTokenizer

from ptlearn.lm.chat import read_conversations, read_json_objects
from ptlearn.lm.prompting import few_shot_prompt
from ptlearn.lm.text import completions, encode, sample_text
from ptlearn.rollout import check_counts

Pair = tuple[str, str]  # an instruction and its response
Generate = Callable[[list[str], int], list[str | None]]  # prompts, seed -> texts; None: broken off

KEPT = "kept"
OF_INSTRUCTIONS = ("unfinished", "empty", "length", "duplicate", "similar")
OF_RESPONSES = ("response unfinished", "response empty", "response length", "refusal", "echo")
# a dot for the apostrophe, which models write in several ways
REFUSAL = re.compile(r"(i.m sorry|i am sorry|sorry|i cannot|i can.t|as an ai|i do not know|i don.t know)\b", re.I)
_MACHINE_SHOWN = 2  # of the instructions in a prompt, how many the machine may have written: Wang et al., section 3.2


class Item(NamedTuple):
    """One proposal and what became of it: KEPT, or the filter that took it out."""

    number: int
    instruction: str
    response: str
    verdict: str


# ---------------------------------------------------------------- the loop


def numbered_tasks(instructions: Sequence[str]) -> str:
    """The prompt of Wang et al., table 5, for models that follow numbering; a continuation is one instruction.

    >>> numbered_tasks(["Name a fruit."])
    'Come up with a series of tasks:\\n\\nTask 1: Name a fruit.\\nTask 2:'
    """
    lines = [f"Task {number}: {text}" for number, text in enumerate(instructions, 1)]
    return "\n".join(["Come up with a series of tasks:\n", *lines, f"Task {len(lines) + 1}:"])


def task_and_output(demonstrations: Sequence[Pair], instruction: str) -> str:
    """Demonstrations and an instruction, up to where its response starts."""
    return few_shot_prompt(demonstrations, instruction, template="Task: {input}\nOutput: {output}", separator="\n\n")


def teacher(
    lm, *, max_new_tokens: int = 64, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None,
    stop: Sequence[str] = ("\n",),
) -> Generate:  # fmt: skip
    """A language model as the function that `self_instruct` asks; arguments of `text.sample_text` (top_k=1: greedy).

    A text is None when no stop string or end token came within max_new_tokens, or when its prompt left no room.
    """

    def generate(prompts: list[str], seed: int) -> list[str | None]:
        room = lm.context - max_new_tokens
        fitting = [row for row, ids in enumerate(encode(lm, prompts)) if len(ids) <= room]
        texts = dict(zip(fitting, sample([prompts[row] for row in fitting], seed), strict=True))
        return [texts.get(row) for row in range(len(prompts))]

    def sample(prompts: list[str], seed: int) -> list[str | None]:
        if not prompts:
            return []
        rollout = sample_text(
            lm, prompts, max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p, stop=stop,
            seed=seed,
        )  # fmt: skip
        texts = completions(lm, rollout, stop)
        return [text if ended else None for text, ended in zip(texts, rollout.terminated.tolist(), strict=True)]

    return generate


def self_instruct(
    path: str | Path,
    seeds: Sequence[Pair],
    propose: Generate,
    answer: Generate,
    *,
    count: int,
    batch: int = 32,
    shown: int = 8,
    demonstrations: int = 4,
    rouge_below: float = 0.7,
    words: tuple[int, int] = (3, 150),
    response_words: tuple[int, int] = (1, 150),
    proposal_prompt: Callable[[Sequence[str]], str] = numbered_tasks,
    response_prompt: Callable[[Sequence[Pair], str], str] = task_and_output,
    teacher_name: str = "",
    seed: int = 0,
    progress: Callable[[Sequence], Iterable] = iter,
) -> list[Item]:
    """Let a teacher propose `count` instructions and answer those that pass the filters; every item goes to `path`.

    A file that is there already is continued: its items are kept, a last line that a kill cut off is removed, and the
    result is the same as that of an uninterrupted run (item n depends on seed, n and the items of earlier batches).
    While it runs, an empty `path.lock` keeps other runs away from the file.

    Args:   seeds, at least `shown` tasks written by people; propose and answer, from `teacher` or any function of
            (prompts, seed); batch, prompts per call; shown, instructions in a prompt, at most 2 of them machine-made;
            demonstrations, seed pairs before an instruction that is answered; rouge_below, the ROUGE-L to every
            instruction of the pool below which a new one counts as new; words and response_words, (fewest, most);
            teacher_name, whatever tells this teacher from others: a file of another is not continued.
    Returns: all items, the rejected too; `conversations` and `yields` read them.
    Raises: ValueError for arguments out of range, for a file made with others or in use by another run, a teacher that
            returns another number of texts, and, with the filter counts, when not one item is kept.
    """
    _check(seeds, count, batch, shown, demonstrations, rouge_below, words, response_words)
    path = Path(path)
    with _alone(path):
        items = _open(
            path, seed=seed, batch=batch, shown=shown, demonstrations=demonstrations, rouge_below=rouge_below,
            words=list(words), response_words=list(response_words), seeds=_digest(seeds), teacher_name=teacher_name,
        )  # fmt: skip
        first = len(items) - len(items) % batch  # a batch that a kill interrupted is asked again as a whole
        machine = [item.instruction for item in items[:first] if item.verdict not in OF_INSTRUCTIONS]
        pool = Pool([*(instruction for instruction, _ in seeds), *machine])
        for start in progress(range(first, count, batch)):
            draws = [random.Random(f"{seed}:{number}") for number in range(start, start + batch)]
            prompts = [proposal_prompt(_shown(seeds, machine, shown, rng)) for rng in draws]
            proposals = _ask("propose", propose, prompts, seed, start)
            judged = [(text or "", _judge_instruction(text, pool, words, rouge_below)) for text in proposals]
            kept = [(rng, text) for rng, (text, verdict) in zip(draws, judged, strict=True) if verdict == KEPT]
            machine += [text for _, text in kept]
            prompts = [response_prompt(rng.sample(list(seeds), demonstrations), text) for rng, text in kept]
            made = _answered(start, judged, _ask("answer", answer, prompts, seed, start), response_words)
            items += _append(path, made[len(items) - start : count - start])
    return _usable(items[:count])


def conversations(items: Iterable[Item]) -> list[list[dict[str, str]]]:
    """The training set: one conversation per item that was kept."""
    return [
        [{"role": "user", "content": item.instruction}, {"role": "assistant", "content": item.response}]
        for item in items
        if item.verdict == KEPT
    ]


def _shown(seeds: Sequence[Pair], machine: Sequence[str], shown: int, rng: random.Random) -> list[str]:
    """Instructions for one prompt, in random order: the machine's few, the rest people's."""
    few = rng.sample(list(machine), min(_MACHINE_SHOWN, len(machine), shown - 1))
    mixed = few + [instruction for instruction, _ in rng.sample(list(seeds), shown - len(few))]
    rng.shuffle(mixed)
    return mixed


def _ask(name: str, generate: Generate, prompts: list[str], seed: int, start: int) -> list[str | None]:
    texts = generate(prompts, random.Random(f"{seed}:{start}:{name}").randrange(2**31)) if prompts else []
    if len(texts) != len(prompts):
        raise ValueError(f"{name} returned {len(texts)} texts for {len(prompts)} prompts: expected one each")
    return [text if text is None else text.strip() for text in texts]


def _answered(
    start: int, judged: Sequence[tuple[str, str]], responses: Iterable[str | None], words: tuple[int, int]
) -> list[Item]:
    """The items of a batch: the next response for each instruction that was kept, and what became of both."""
    responses, items = iter(responses), []
    for number, (text, verdict) in enumerate(judged, start):
        response = next(responses) if verdict == KEPT else ""
        if verdict == KEPT:
            verdict = _judge_response(response, text, words)
        items.append(Item(number, text, response or "", verdict))
    return items


def _usable(items: list[Item]) -> list[Item]:
    if not any(item.verdict == KEPT for item in items):
        raise ValueError(f"the teacher returned nothing usable: {yields(items).one_line()}")
    return items


# ---------------------------------------------------------------- filters


def _judge_instruction(text: str | None, pool: Pool, words: tuple[int, int], rouge_below: float) -> str:
    """KEPT, then also added to the pool, or one of OF_INSTRUCTIONS."""
    if text is None:
        return "unfinished"
    if not text:
        return "empty"
    if not words[0] <= len(text.split()) <= words[1]:
        return "length"
    if text in pool:
        return "duplicate"
    if pool.holds_similar(text, rouge_below):
        return "similar"
    pool.add(text)
    return KEPT


def _judge_response(text: str | None, instruction: str, words: tuple[int, int]) -> str:
    """KEPT, or one of OF_RESPONSES."""
    if text is None:
        return "response unfinished"
    if not text:
        return "response empty"
    if not words[0] <= len(text.split()) <= words[1]:
        return "response length"
    if REFUSAL.match(text):
        return "refusal"
    return "echo" if text.casefold() == instruction.casefold() else KEPT


class Pool:
    """Instructions so far, and a fast answer to whether one of them is similar to a new one.

    ROUGE-L is the F-measure of the longest common subsequence of the words. The subsequence is never longer than the
    words that two texts share (each counted as often as both have it), so an instruction whose shared words would not
    reach the threshold is passed over without the quadratic search.

    >>> pool = Pool(["Name three fruits that are red."])
    >>> pool.holds_similar("Name three fruits that are green.", 0.7), pool.holds_similar("Who wrote Emma?", 0.7)
    (True, False)
    """

    def __init__(self, texts: Iterable[str] = ()):
        self._texts: set[str] = set()
        self._words: list[list[str]] = []
        self._holders: dict[str, list[tuple[int, int]]] = {}  # word -> (text, how often it is there)
        self._tokenize = DefaultTokenizer().tokenize
        # the scorer is given words that are separated already: each text is tokenised once
        self._scorer = RougeScorer(["rougeL"], tokenizer=SimpleNamespace(tokenize=str.split))
        for text in texts:
            self.add(text)

    def __len__(self) -> int:
        return len(self._words)

    def __contains__(self, text: str) -> bool:
        return text in self._texts

    def add(self, text: str) -> None:
        words = self._tokenize(text)
        for word, times in Counter(words).items():
            self._holders.setdefault(word, []).append((len(self._words), times))
        self._texts.add(text)
        self._words.append(words)

    def holds_similar(self, text: str, threshold: float) -> bool:
        """Whether ROUGE-L between the text and one of the pool is at least the threshold, which is above 0.

        `rouge-score` reads a to z and digits alone: to a text in another script nothing is similar.
        """
        words = self._tokenize(text)
        shared: Counter[int] = Counter()
        for word, times in Counter(words).items():
            for index, others in self._holders.get(word, ()):
                shared[index] += min(times, others)
        # the most similar come first, where one look is often enough
        for index, overlap in shared.most_common():
            bound = fmeasure(overlap / len(words), overlap / len(self._words[index]))
            if bound >= threshold and self._rouge(index, words) >= threshold:
                return True
        return False

    def _rouge(self, index: int, words: list[str]) -> float:
        return self._scorer.score(" ".join(self._words[index]), " ".join(words))["rougeL"].fmeasure


# ---------------------------------------------------------------- yields


class Yields(NamedTuple):
    """How many items each filter took, and how many were left; prints as a table."""

    proposed: int
    instructions: int
    kept: int
    rejected: dict[str, int]

    def __str__(self) -> str:
        rows = [("proposed", self.proposed), *((f"  - {v}", self.rejected[v]) for v in OF_INSTRUCTIONS)]
        rows += [("new instructions", self.instructions), *((f"  - {v}", self.rejected[v]) for v in OF_RESPONSES)]
        rows.append((KEPT, self.kept))
        return "\n".join(f"{name:<26}{n:>7}{100 * n / max(1, self.proposed):>8.1f} %" for name, n in rows)

    def one_line(self) -> str:
        """The counts that are not 0, for an error message."""
        counts = ", ".join(f"{verdict} {n}" for verdict, n in self.rejected.items() if n)
        return f"proposed {self.proposed}, {counts or 'none rejected'}, kept {self.kept}"


def yields(items: Iterable[Item]) -> Yields:
    """Count what the filters did.

    >>> yields([Item(0, "Name a fruit.", "A plum.", "kept"), Item(1, "", "", "empty")]).kept
    1
    """
    counts = Counter(item.verdict for item in items)
    rejected = {verdict: counts[verdict] for verdict in (*OF_INSTRUCTIONS, *OF_RESPONSES)}
    proposed = sum(counts.values())
    return Yields(proposed, proposed - sum(counts[v] for v in OF_INSTRUCTIONS), counts[KEPT], rejected)


# ---------------------------------------------------------------- files


def read_seed_tasks(path: str | Path) -> list[Pair]:
    """The seed tasks of Self-Instruct, JSON objects with `instruction` and `instances` (`input`, `output`).

    Returns: one (instruction, response) per instance; an input stands on a line of its own after the instruction.
    Raises:  FileNotFoundError; ValueError with the line for what is broken or missing, as `chat.read_conversations`.
    """
    pairs = [tuple(message["content"].strip() for message in turns[-2:]) for turns in read_conversations(path)]
    if not pairs:
        raise ValueError(f"{path} holds no seed task: expected at least one")
    return pairs


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let no second run write to the path.

    The lock is that of a database, which every system has and ends with its process, so that a kill leaves none
    behind. Its empty file stays: a run that removed it could let two others in.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # resolved: two names of one file are one file
    try:
        lock = sqlite3.connect(f"{path.resolve()}.lock", timeout=0)
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        raise ValueError(f"{path} cannot be locked ({error}): expected a file that no other run writes") from error
    with closing(lock):
        yield


def _open(path: Path, **settings) -> list[Item]:
    """The items of a run so far; begins the file with its settings, and cuts off a last line that a kill broke."""
    data = path.read_bytes() if path.exists() else b""
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    if not whole.strip():
        path.write_bytes(_line(settings))
        return []
    (_, found), *lines = read_json_objects(path)
    changed = [key for key, value in settings.items() if found.get(key) != value]
    if changed:
        raise ValueError(f"{path} was made with another {', '.join(changed)}: expected the same, or another file")
    return [_item(number, *line) for number, line in enumerate(lines)]


def _item(number: int, where: str, record: dict) -> Item:
    if set(record) != set(Item._fields) or record["number"] != number:
        raise ValueError(f"{where}: expected item {number} with {', '.join(Item._fields)}")
    return Item(**record)


def _append(path: Path, items: list[Item]) -> list[Item]:
    with path.open("ab", buffering=0) as file:
        for item in items:
            file.write(_line(item._asdict()))  # one call: a line is whole, or it is the last
    return items


def read_items(path: str | Path) -> list[Item]:
    """The items of a file that `self_instruct` wrote, finished or not; the file stays as it is."""
    lines = list(read_json_objects(path))[1:]
    return [_item(number, *line) for number, line in enumerate(lines)]


def _line(record: dict) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode() + b"\n"


def _digest(seeds: Sequence[Pair]) -> str:
    return hashlib.sha256(json.dumps([list(pair) for pair in seeds]).encode()).hexdigest()[:16]


def _check(
    seeds: Sequence[Pair], count: int, batch: int, shown: int, demonstrations: int, rouge_below: float,
    words: tuple[int, int], response_words: tuple[int, int],
) -> None:  # fmt: skip
    check_counts(count=count, batch=batch, shown=shown)
    if demonstrations < 0:
        raise ValueError(f"demonstrations={demonstrations}: expected at least 0")
    if len(seeds) < max(shown, demonstrations):
        raise ValueError(f"{len(seeds)} seeds: expected at least shown={shown} and demonstrations={demonstrations}")
    if not rouge_below > 0:
        raise ValueError(f"rouge_below={rouge_below}: expected more than 0")
    for name, (fewest, most) in (("words", words), ("response_words", response_words)):
        if not 0 < fewest <= most:
            raise ValueError(f"{name}={(fewest, most)}: expected 0 < fewest <= most")
