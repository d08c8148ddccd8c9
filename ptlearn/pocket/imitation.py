"""How far imitation carries: students of three sizes on more and more text of one teacher (claims C13 to C15).

A student is a pocket LM finetuned on requests with the teacher's responses. Beside the score on held-out requests, each
run measures what it costs elsewhere: tasks of lesson 02, which no request asks for, and the loss on documents of the
corpus. Lesson 04 reads the table and repeats a row.

    python -m ptlearn.pocket.imitation --out imitation.csv     # an hour on one core; goes on where it was stopped

The number of updates is the same for all sizes of the data from the middle on: 480 of 8 examples, but no example more
than 16 times, and each at least once. So what grows along the axis is the data, not the training.
"""

import argparse
import csv
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path

from ptlearn.finetuning.parameter_efficient import merge_lora
from ptlearn.finetuning.sft import fit_sft
from ptlearn.lm.chat import Example, render_all
from ptlearn.lm.models import LanguageModel, load_lm
from ptlearn.lm.text import token_logprobs
from ptlearn.pocket import probes
from ptlearn.pocket.assistant import Request, requests, respond
from ptlearn.pocket.corpus import document
from ptlearn.pocket.teacher import load_teacher

TABLE = Path(__file__).parent / "tables" / "imitation.csv"
STUDENTS = {"pocket-s": 2e-3, "pocket-m": 1e-3, "pocket-l": 7e-4}  # and their learning rates
SIZES, SEEDS = (30, 120, 480, 1920, 7680), (0, 1, 2)
BATCH, UPDATES, MOST_EPOCHS = 8, 480, 16
ELSEWHERE = ("2 labels", "3 labels", "category", "demonym", "last word", "pick")
SHOTS, EPISODES, DOCUMENTS, REQUESTS = 8, 60, 100, 500
TEST_SEED, DOCUMENT_SEED = 1, 1_000_005
COLUMNS = ("model", "examples", "seed", "score", "as_teacher", "elsewhere", "nats")


def test_requests() -> list[Request]:
    """Held-out requests in the shares of the use cases."""
    return requests(REQUESTS, TEST_SEED, held_out=True)


def imitate(lm: LanguageModel, examples: Sequence[Example], *, lr: float, seed: int = 0, progress=iter) -> None:
    """Finetune a student on the teacher's text for as many epochs as the header says; changes `lm`."""
    epochs = min(MOST_EPOCHS, max(1, round(UPDATES * BATCH / len(examples))))
    fit_sft(lm, examples, epochs=epochs, batch=BATCH, lr=lr, seed=seed, progress=progress)


def measure(lm: LanguageModel, asked: Sequence[Request], by_teacher: Sequence[str]) -> dict[str, float]:
    """What a student can do: four numbers of COLUMNS.

    Returns: score, the verifiers' mean over the requests; as_teacher, the share of responses that are the teacher's to
             the letter; elsewhere, mean exact match over the tasks of ELSEWHERE with 8 demonstrations; nats per token
             on documents of the corpus that no model has seen.
    """
    said = respond(lm, [request.prompt for request in asked])
    logprobs = token_logprobs(lm, [document(index, DOCUMENT_SEED) for index in range(DOCUMENTS)])
    others = [probes.few_shot(lm, name, SHOTS, EPISODES).mean for name in ELSEWHERE]
    return {
        "score": _mean(request.score(text) for request, text in zip(asked, said, strict=True)),
        "as_teacher": _mean(text == other for text, other in zip(said, by_teacher, strict=True)),
        "elsewhere": _mean(others),
        "nats": -sum(float(row.sum()) for row in logprobs) / sum(map(len, logprobs)),
    }


def read_table(path: Path = TABLE) -> list[dict]:
    """Rows of the table, numbers as numbers. examples = 0 is the base; model "teacher" is the teacher itself."""
    with open(path, newline="", encoding="utf-8") as file:
        return [
            {name: value if name == "model" else float(value) for name, value in row.items()}
            for row in csv.DictReader(file)
        ]


def teacher_examples(teacher: LanguageModel, seed: int, count: int) -> list[Example]:
    """Requests of a seed with the teacher's responses; a smaller count gives the first ones."""
    asked = [request.prompt for request in requests(count, seed)]
    talks = [
        [{"role": "user", "content": prompt}, {"role": "assistant", "content": text}]
        for prompt, text in zip(asked, respond(teacher, asked), strict=True)
        if text
    ]
    return render_all(teacher, talks)[0]


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values)


def append_row(path: Path, columns: Sequence[str], row: dict) -> None:
    """Add a run to a table, and its head where there is none yet."""
    new = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow({name: f"{value:.4f}" if isinstance(value, float) else value for name, value in row.items()})


def main(arguments: list[str] | None = None) -> int:
    """Add the rows that the table lacks, one run after the other."""
    parser = argparse.ArgumentParser(prog="ptlearn.pocket.imitation", description="Students of one teacher.")
    parser.add_argument("--out", type=Path, required=True, help="the table; rows that are there are kept")
    out = parser.parse_args(arguments).out
    from tqdm import tqdm

    done = {(row["model"], row["examples"], row["seed"]) for row in read_table(out)} if out.exists() else set()
    teacher, asked = merge_lora(load_teacher()), test_requests()
    by_teacher = respond(teacher, [request.prompt for request in asked])
    bases = [(name, 0, 0) for name in ("teacher", *STUDENTS)]
    students = [(name, size, seed) for seed, name, size in product(SEEDS, STUDENTS, SIZES)]
    data: dict[int, list[Example]] = {}
    for name, size, seed in tqdm([run for run in bases + students if run not in done], desc="students"):
        lm = teacher if name == "teacher" else load_lm(name)
        if size:
            if seed not in data:
                data = {seed: teacher_examples(teacher, seed, max(SIZES))}
            imitate(lm, data[seed][:size], lr=STUDENTS[name], seed=seed)
        append_row(out, COLUMNS, {"model": name, "examples": size, "seed": seed} | measure(lm, asked, by_teacher))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
