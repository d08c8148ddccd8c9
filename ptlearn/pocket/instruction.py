"""What finetuning teaches and what it costs: pocket-m after 0, 20, 80 and 320 examples of several kinds (C08 to C10).

Every run takes as many steps, so what grows along the axis is the data and not the training: 20 examples are read
sixteen times, 320 once. Lesson 03 reads the table and repeats a row with a loop of its own.

    python -m ptlearn.pocket.instruction --out instruction.csv     # 15 minutes on one core; goes on where it stopped
"""

import argparse
import csv
import random
from collections import Counter
from pathlib import Path

from ptlearn.finetuning.sft import fit_sft, sft_loss
from ptlearn.lm.chat import Example, chat_prompt, render_all
from ptlearn.lm.models import LanguageModel, load_lm
from ptlearn.lm.prompting import exact_match
from ptlearn.lm.text import complete, token_logprobs
from ptlearn.pocket import assistant, benchmarks, probes
from ptlearn.pocket.corpus import document
from ptlearn.pocket.imitation import append_row

TABLE = Path(__file__).parent / "tables" / "instruction.csv"
MODEL, BATCH, STEPS, LR, SEEDS = "pocket-m", 2, 160, 7e-4, (0, 1, 2, 3, 4)
FREQUENT, RARE = tuple(assistant.SHARES)[:4], tuple(assistant.SHARES)[4:]
KINDS = {"requests": (20, 80, 320), "benchmarks": (320,), "frequent": (320,), "rare": (320,), "all tokens": (320,)}
EACH, ITEMS, TEST_SEED = 15, 40, 5  # test requests of a use case, items of a benchmark
ELSEWHERE, SHOTS, EPISODES = ("2 labels", "category", "demonym", "last word"), 8, 40
DOCUMENTS, DOCUMENT_SEED = 60, 1_000_005
TESTS = (*benchmarks.BENCHMARKS, "hans")
MEASURES = ("overall", *assistant.SHARES, *TESTS, "capitals", "held_out", "elsewhere", "corpus")
COLUMNS = ("kind", "examples", "seed", *MEASURES)


def training_items(kind: str, examples: int, seed: int = 0) -> list:
    """Requests or benchmark items of a kind; a smaller count gives the first ones.

    Raises: ValueError for a kind that is not in KINDS.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}: expected one of {', '.join(KINDS)}")
    if kind == "benchmarks":
        return benchmarks.items(examples, seed)
    return assistant.requests(examples, seed, use_cases={"frequent": FREQUENT, "rare": RARE}.get(kind))


def training_examples(lm: LanguageModel, kind: str, examples: int, seed: int = 0) -> list[Example]:
    """The same as tokens; of the kind "all tokens" the prompts are trained too."""
    found, _ = render_all(lm, assistant.conversations(training_items(kind, examples, seed)))
    if kind == "all tokens":
        return [Example(example.tokens, [True] * len(example.tokens)) for example in found]
    return found


def measure(lm: LanguageModel) -> dict[str, float]:
    """What a model can do: the numbers of MEASURES.

    Returns: overall and each use case, the verifiers' mean over EACH held-out requests; each of TESTS, the share of
             ITEMS held-out items that is matched exactly; capitals, the share of 100 questions answered; held_out,
             nats per response token of the same requests; elsewhere, mean exact match over the tasks of ELSEWHERE with
             8 demonstrations; corpus, nats per token on documents that no model has seen.
    """
    asked = assistant.held_out_requests(EACH, TEST_SEED)
    said = complete(lm, [chat_prompt(lm, request.prompt) for request in asked], max_new_tokens=72)
    logprobs = token_logprobs(lm, [document(index, DOCUMENT_SEED) for index in range(DOCUMENTS)])
    found = {name: estimate.mean for name, estimate in assistant.score_by_use_case(asked, said).items()}
    found |= {name: _matched(lm, items) for name, items in test_items().items()}
    found["capitals"] = _capitals(lm)
    found["held_out"] = sft_loss(lm, render_all(lm, assistant.conversations(asked))[0])
    others = [probes.few_shot(lm, name, SHOTS, EPISODES).mean for name in ELSEWHERE]
    found["elsewhere"] = sum(others) / len(others)
    found["corpus"] = -sum(float(row.sum()) for row in logprobs) / sum(map(len, logprobs))
    return found


def test_items() -> dict[str, list[benchmarks.Item]]:
    """ITEMS held-out items of each benchmark, and of HANS."""
    found = {
        name: benchmarks.items(ITEMS, TEST_SEED, benchmarks=[name], held_out=True) for name in benchmarks.BENCHMARKS
    }
    return found | {"hans": benchmarks.hans(ITEMS, TEST_SEED)}


def always_the_same() -> dict[str, float]:
    """For each of TESTS the share of items that have its most frequent answer: what a constant would score.

    >>> always_the_same()["hans"]
    0.5
    """
    return {
        name: max(Counter(item.response for item in items).values()) / len(items)
        for name, items in test_items().items()
    }


def test_questions() -> list[assistant.Request]:
    """The capitals of 100 countries, each asked once, in wordings that no training request has."""
    found = assistant.capital_questions()
    countries = len({question.response for question in found})
    wordings = len(found) // countries
    chosen = random.Random(TEST_SEED).sample(range(countries), 100)
    return [found[country + countries * (place % wordings)] for place, country in enumerate(chosen)]


def read_table(path: Path = TABLE) -> list[dict]:
    """Rows of the table, numbers as numbers; examples = 0 is the base model."""
    with open(path, newline="", encoding="utf-8") as file:
        return [
            {name: value if name == "kind" else float(value) for name, value in row.items()}
            for row in csv.DictReader(file)
        ]


def column(rows: list[dict], kind: str, examples: int, name: str) -> list[float]:
    """One number of each seed of a kind and size, in the order of the seeds.

    >>> column(read_table(), "base", 0, "capitals")
    [0.0]
    """
    return [row[name] for row in rows if (row["kind"], row["examples"]) == (kind, examples)]


def spread(values: list[float]) -> str:
    """The mean, and the smallest and the largest of several seeds.

    >>> spread([0.4, 0.5])
    '0.45 (0.40 to 0.50)'
    """
    mean = f"{sum(values) / len(values):.2f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.2f} to {max(values):.2f})"


def _matched(lm: LanguageModel, items: list[benchmarks.Item]) -> float:
    texts = complete(lm, [chat_prompt(lm, item.prompt) for item in items], max_new_tokens=16)
    return sum(exact_match(texts, [item.response for item in items])) / len(items)


def _capitals(lm: LanguageModel) -> float:
    questions = test_questions()
    prompts = [chat_prompt(lm, question.prompt) for question in questions]
    texts = complete(lm, prompts, max_new_tokens=24, stop=())
    return sum(question.score(text) == 1 for question, text in zip(questions, texts, strict=True)) / len(questions)


def main(arguments: list[str] | None = None) -> int:
    """Add the rows that the table lacks, one run after the other."""
    parser = argparse.ArgumentParser(prog="ptlearn.pocket.instruction", description="Finetuned on kinds of data.")
    parser.add_argument("--out", type=Path, required=True, help="the table; rows that are there are kept")
    out = parser.parse_args(arguments).out
    from tqdm import tqdm

    done = {(row["kind"], row["examples"], row["seed"]) for row in read_table(out)} if out.exists() else set()
    runs = [("base", 0, 0)]
    runs += [(kind, size, seed) for seed in SEEDS for kind, sizes in KINDS.items() for size in sizes]
    for kind, size, seed in tqdm([run for run in runs if run not in done], desc="finetuned"):
        lm = load_lm(MODEL)
        if size:
            examples = training_examples(lm, kind, size, seed)
            fit_sft(lm, examples, epochs=STEPS * BATCH // size, batch=BATCH, lr=LR, seed=seed)
        append_row(out, COLUMNS, {"kind": kind, "examples": size, "seed": seed} | measure(lm))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
