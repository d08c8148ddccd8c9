"""The teacher of lesson 04: pocket-l with a LoRA adapter that answers requests and proposes new ones.

It stands for the finished assistant that other people own (text-davinci-003 for Alpaca): students see its text, never
its data. It was finetuned on requests with gold responses and on lists of requests that ask for one more.

    python -m ptlearn.pocket.teacher --out weights     # trains it again

Deliberately not here: the pipeline that asks it (synthetic) and what becomes of its students (imitation).
"""

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

from ptlearn.finetuning.adapter_files import load_adapter, save_adapter
from ptlearn.finetuning.parameter_efficient import lora
from ptlearn.finetuning.sft import fit_sft
from ptlearn.lm.chat import Example, render_all
from ptlearn.lm.models import WEIGHTS, LanguageModel, load_lm
from ptlearn.pocket.assistant import conversations, requests

BASE, FOLDER, SEED = "pocket-l", WEIGHTS / "teacher", 100
RESPONSES, PROPOSALS, RANK, BATCH, LR = 8000, 2000, 16, 16, 4e-3
SHOWN, LONGEST = 4, 12  # requests in a list that asks for one more, and the words that each of them has at most


def load_teacher() -> LanguageModel:
    """The base with its adapter switched on; `switch_adapter(lm.model, None)` gives the base."""
    lm = load_lm(BASE)
    load_adapter(lm, FOLDER)
    lm.name = "teacher"
    return lm


def proposal(shown: Sequence[str]) -> str:
    """The message that asks for a new request, in the form that the teacher was finetuned on.

    >>> proposal(["Name the capital of Chad.", "What is 3 + 4?"])
    'Task: Name the capital of Chad.\\nTask: What is 3 + 4?\\nWrite one more task.'
    """
    return "\n".join([*(f"Task: {text}" for text in shown), "Write one more task."])


def training_examples(lm: LanguageModel) -> list[Example]:
    """What the teacher was finetuned on, in random order."""
    asked = requests(RESPONSES, SEED)
    short = [request.prompt for request in asked if len(request.prompt.split()) <= LONGEST]
    rng = random.Random(SEED)
    talks = conversations(asked)
    for _ in range(PROPOSALS):
        *shown, new = rng.sample(short, SHOWN + 1)
        talks.append([{"role": "user", "content": proposal(shown)}, {"role": "assistant", "content": new}])
    rng.shuffle(talks)
    examples, _ = render_all(lm, talks)
    return examples


def main(arguments: list[str] | None = None) -> int:
    """Train the adapter and write its files."""
    parser = argparse.ArgumentParser(prog="ptlearn.pocket.teacher", description="Train the teacher of lesson 04.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the adapter")
    options = parser.parse_args(arguments)
    from tqdm import tqdm

    lm = load_lm(BASE)
    lora(lm, targets=".*_proj", rank=RANK, alpha=2 * RANK, seed=SEED)
    fit_sft(lm, training_examples(lm), batch=BATCH, lr=LR, seed=SEED, progress=tqdm)
    print(f"wrote {save_adapter(lm, options.out)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
