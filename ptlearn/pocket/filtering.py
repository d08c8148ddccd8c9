"""What the novelty filter of Self-Instruct is worth: students of what it keeps, of as much drawn at random, of all.

Each seed has seed tasks, a run of the pipeline, a random choice and students of its own; one of them reads the seed
tasks, the others nothing but the machine's text. The filter is applied after the run, which rejects repetitions only.

    python -m ptlearn.pocket.filtering --out filtering.csv     # 20 students of pocket-m, twelve minutes on a core

Source: Wang et al. 2023, section 3.2 (ROUGE-L below 0.7); claims C11, C12. Lesson 04 reads the table.
"""

import argparse
import csv
import random
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ptlearn.finetuning.parameter_efficient import merge_lora
from ptlearn.finetuning.sft import fit_sft
from ptlearn.finetuning.synthetic import KEPT, Item, Pool, conversations, self_instruct, teacher
from ptlearn.lm.chat import chat_prompt, render_all
from ptlearn.lm.models import LanguageModel, load_lm
from ptlearn.pocket import assistant, imitation
from ptlearn.pocket.assistant import Request, requests, respond
from ptlearn.pocket.teacher import LONGEST, SHOWN, load_teacher, proposal

TABLE = Path(__file__).parent / "tables" / "filtering.csv"
STUDENT, EPOCHS, BATCH, LR = "pocket-m", 4, 8, 1e-3
SEED_TASKS, PROPOSED, ROUGE_BELOW, SEEDS, REQUESTS = 175, 256, 0.7, range(5), 300
Conversation = list[dict[str, str]]
SETS = ("people", "all", "strict", "random")
COLUMNS = ("set", "seed", "examples", "well_formed", "score")
PHRASINGS = [
    re.compile(re.sub(r"\\\{\w+\\\}", "(.+)", re.escape(phrasing)))
    for task in assistant.TASKS
    for phrasing in (*task.phrasings, *task.held_out_phrasings)
]


def well_formed(instruction: str) -> bool:
    """Whether an instruction fits a phrasing that the users of this world have.

    >>> well_formed("What is 3 + 4?"), well_formed("What is the 3 of")
    (True, False)
    """
    return any(phrasing.fullmatch(instruction) for phrasing in PHRASINGS)


def pipeline(lm: LanguageModel, seed: int) -> list[Item]:
    """What the teacher proposed and answered, repetitions rejected."""
    asked = [request for request in requests(SEED_TASKS, seed) if len(request.prompt.split()) <= LONGEST]
    with tempfile.TemporaryDirectory() as folder:
        return self_instruct(
            Path(folder, "items.jsonl"), [(request.prompt, request.response) for request in asked],
            teacher(lm, max_new_tokens=40), teacher(lm, max_new_tokens=96, top_k=1), count=PROPOSED, batch=64,
            shown=SHOWN, demonstrations=1, rouge_below=1.0, seed=seed,
            proposal_prompt=lambda shown: chat_prompt(lm, proposal(shown)),
            response_prompt=lambda _, instruction: chat_prompt(lm, instruction),
        )  # fmt: skip


def sets_of(items: Sequence[Item], seed: int) -> dict[str, list[Conversation]]:
    """The conversations of each training set, SETS: people's seed tasks, and three choices of the machine's."""
    people, kept = requests(SEED_TASKS, seed), [item for item in items if item.verdict == KEPT]
    pool, strict = Pool([request.prompt for request in people]), []
    for item in kept:
        if not pool.holds_similar(item.instruction, ROUGE_BELOW):
            pool.add(item.instruction)
            strict.append(item)
    drawn = random.Random(seed).sample(kept, len(strict))
    return {"people": assistant.conversations(people)} | {
        name: conversations(some) for name, some in (("all", kept), ("strict", strict), ("random", drawn))
    }


def score(talks: Sequence[Conversation], asked: Sequence[Request], seed: int) -> float:
    """The mean score of a student that has read the conversations, from 0 to 1."""
    student = load_lm(STUDENT)
    fit_sft(student, render_all(student, talks)[0], epochs=EPOCHS, batch=BATCH, lr=LR, seed=seed)
    said = respond(student, [request.prompt for request in asked])
    return sum(request.score(text) for request, text in zip(asked, said, strict=True)) / len(asked)


def read_table(path: Path = TABLE) -> list[dict]:
    """Rows of the table, numbers as numbers."""
    with open(path, newline="", encoding="utf-8") as file:
        return [
            {name: value if name == "set" else float(value) for name, value in row.items()}
            for row in csv.DictReader(file)
        ]


def main(arguments: list[str] | None = None) -> int:
    """Train the students and write the table."""
    parser = argparse.ArgumentParser(prog="ptlearn.pocket.filtering", description="Students behind a filter.")
    parser.add_argument("--out", type=Path, required=True, help="the table")
    out = parser.parse_args(arguments).out
    from tqdm import tqdm

    owner, asked = merge_lora(load_teacher()), imitation.test_requests()[:REQUESTS]
    with open(out, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for seed in tqdm(SEEDS, desc="seeds"):
            for name, talks in sets_of(pipeline(owner, seed), seed).items():
                good = sum(well_formed(talk[0]["content"]) for talk in talks)
                writer.writerow([name, seed, len(talks), good, f"{score(talks, asked, seed):.4f}"])
                file.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
