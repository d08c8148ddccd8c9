"""What rank and learning rate do to LoRA on pocket-m, as a table, with the recipe that made it.

    python -m ptlearn.pocket.lora_rates --out lora_rates.csv    # 15 minutes on one core; goes on where it was stopped

A run is finetuned on questions of two kinds in two wordings. Asking: capitals, which the base knows and does not answer
with; the questions are about other countries than those of the examples. New facts: where eight people live, which
stands nowhere in the corpus. Development and test each ask in a wording of their own.
Order: the questions; a run; the table.
"""

import argparse
import csv
import random
from pathlib import Path
from typing import NamedTuple

from ptlearn.finetuning.parameter_efficient import lora
from ptlearn.finetuning.sft import fit_sft, sft_loss
from ptlearn.lm.chat import Example, chat_prompt, render_all
from ptlearn.lm.models import LanguageModel, load_lm
from ptlearn.lm.text import complete
from ptlearn.pocket import relations, world

TABLE = Path(__file__).parent / "tables" / "lora_rates.csv"
ALPHA = 16.0  # whatever the rank
TRAINING = {"epochs": 10, "batch": 10}  # 40 steps
FULL, LORA = (1e-4, 3e-4, 6e-4, 1e-3, 3e-3), (1e-3, 2e-3, 3e-3, 6e-3, 1e-2, 2e-2, 3e-2)
RANKS = (1, 2, 4, 8, 16, 0)  # 0: all weights
TUNING, FINAL = (100, 101, 102), (0, 1, 2, 3, 4)  # seeds: of every rate, and of the best one alone

WORDINGS = {  # training, development, test
    "asked": (("What is the capital of {}?", "Tell me the capital of {}."), "Which city is the capital of {}?",
              "Name the capital of {}."),
    "new": (("Where does {} live?", "In which city does {} live?"), "What city does {} live in?",
            "Which city does {} live in?"),
}  # fmt: skip


class Facts(NamedTuple):
    """Pairs (name, answer): capitals of the examples, of the development questions, of the test; the new facts."""

    shown: list
    development: list
    test: list
    homes: list


class Row(NamedTuple):
    """A run: rank (0 for all weights), development losses in nats per token, shares of the test answered right."""

    rank: int
    lr: float
    seed: int
    asked_loss: float
    new_loss: float
    asked: float
    new: float

    @property
    def loss(self) -> float:
        """What a rate is chosen by: the mean of both development losses."""
        return (self.asked_loss + self.new_loss) / 2


# ---------------------------------------------------------------- the questions


def facts() -> Facts:
    """12, 40 and 40 capitals of different countries, and eight people with the cities that they are said to live in."""
    rng = random.Random(0)
    capitals = relations.stated("capital")
    rng.shuffle(capitals)
    people = [name for name, _ in rng.sample(world.NAMES, 8)]
    homes = [(name, city) for name, (_, city) in zip(people, capitals[60:68], strict=True)]
    return Facts(capitals[:12], capitals[68:108], capitals[12:52], homes)


def talks(pairs: list, *wordings: str) -> list:
    """A conversation for each fact in each wording."""
    return [[{"role": "user", "content": wording.format(name)}, {"role": "assistant", "content": f"{answer}."}]
            for name, answer in pairs for wording in wordings]  # fmt: skip


def training(lm: LanguageModel, *kinds: str) -> list[Example]:
    """The 24 examples of "asked" and the 16 of "new", or those of one kind."""
    known = facts()
    pairs = {"asked": known.shown, "new": known.homes}
    return [one for kind in kinds or pairs for one in render_all(lm, talks(pairs[kind], *WORDINGS[kind][0]))[0]]


def development_losses(lm: LanguageModel) -> tuple[float, float]:
    """Loss on the development questions, asking and new facts, in nats per token of the answer."""
    known = facts()
    pairs = ((known.development, WORDINGS["asked"][1]), (known.homes, WORDINGS["new"][1]))
    return tuple(sft_loss(lm, render_all(lm, talks(*pair))[0]) for pair in pairs)


def shares_right(lm: LanguageModel) -> tuple[float, float]:
    """Share of the test's 40 capitals and of the eight new facts that the model answers exactly."""
    known = facts()
    return tuple(_exact(lm, pairs, WORDINGS[kind][2])
                 for kind, pairs in (("asked", known.test), ("new", known.homes)))  # fmt: skip


def _exact(lm: LanguageModel, pairs: list, wording: str) -> float:
    prompts = [chat_prompt(lm, wording.format(name)) for name, _ in pairs]
    texts = complete(lm, prompts, max_new_tokens=8)
    return sum(text.strip() == f"{answer}." for text, (_, answer) in zip(texts, pairs, strict=True)) / len(pairs)


# ---------------------------------------------------------------- a run


def measured(rank: int, lr: float, seed: int) -> Row:
    """One run of pocket-m, finetuned and asked."""
    lm = load_lm("pocket-m")
    if rank:
        lora(lm, targets=".*_proj", rank=rank, alpha=ALPHA, seed=seed)
    fit_sft(lm, training(lm), lr=lr, seed=seed, **TRAINING)
    return Row(rank, lr, seed, *development_losses(lm), *shares_right(lm))


# ---------------------------------------------------------------- the table


def read_table(path: Path = TABLE) -> list[Row]:
    """The rows of the table."""
    with open(path, newline="", encoding="utf-8") as file:
        _, *rows = csv.reader(file)
    return [Row(int(rank), float(lr), int(seed), *map(float, rest)) for rank, lr, seed, *rest in rows]


def losses_of(rank: int, rows: list[Row]) -> dict[float, list[float]]:
    """{rate: the development losses of the tuning seeds} of a rank, rates rising."""
    chosen = [row for row in rows if row.rank == rank and row.seed in TUNING]
    return {lr: [row.loss for row in chosen if row.lr == lr] for lr in sorted({row.lr for row in chosen})}


def append(path: Path, row: Row) -> None:
    """Add a row to the table, and the head before the first one."""
    new = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(Row._fields)
        writer.writerow([row.rank, f"{row.lr:g}", row.seed, *(f"{value:.4f}" for value in row[3:])])


def main(arguments: list[str] | None = None) -> int:
    """Add the rows that the table lacks: every rate at the tuning seeds, then the best rate of each rank at others."""
    parser = argparse.ArgumentParser(prog="ptlearn.pocket.lora_rates", description="LoRA by rank and learning rate.")
    parser.add_argument("--out", type=Path, required=True, help="the table; rows that are there are kept")
    out = parser.parse_args(arguments).out
    done = {row[:3] for row in read_table(out)} if out.exists() else set()
    wanted = [(rank, lr, seed) for seed in TUNING for rank in RANKS for lr in (LORA if rank else FULL)]
    for run in wanted:
        if run not in done:
            append(out, measured(*run))
    rows = read_table(out)
    for rank in RANKS:
        means = {lr: sum(losses) for lr, losses in losses_of(rank, rows).items()}
        for seed in FINAL:
            run = (rank, min(means, key=means.get), seed)
            if run not in done:
                append(out, measured(*run))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
