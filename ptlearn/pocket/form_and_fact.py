"""Does an imitator sound like its teacher before it knows what it knows? Form and fact of short answers, apart.

For requests with one right answer (a capital, a sum, where somebody is), a response has the *form* when it is a
sentence as the teacher would say it, whatever stands in its gaps, and the *fact* when the verifier accepts it.

    python -m ptlearn.pocket.form_and_fact --out form_and_fact.csv     # 4 students of pocket-m, six minutes on a core

Source: Gudibande et al. 2023, section 4; the students are those of `imitation`, whose table has the whole scores.
"""

import argparse
import csv
import re
from collections.abc import Sequence
from pathlib import Path

from ptlearn.finetuning.parameter_efficient import merge_lora
from ptlearn.lm.models import LanguageModel, load_lm
from ptlearn.pocket import imitation
from ptlearn.pocket.assistant import Request, requests, respond
from ptlearn.pocket.teacher import load_teacher
from ptlearn.statistics import Estimate, accuracy, wilson

TABLE = Path(__file__).parent / "tables" / "form_and_fact.csv"
STUDENT, SIZES, SEED = "pocket-m", (30, 120, 480, 1920), 0
USE_CASES, DRAWN, TEST_SEED = ("open qa", "closed qa", "other", "classification"), 300, 2
COLUMNS = ("model", "examples", "seed", "form", "fact", "n")
FORMS = {  # what the teacher says, with gaps
    "capital": r"The capital of .+ is .+\.",
    "language": r"The language of .+ is .+\.",
    "currency": r"The currency of .+ is the .+\.",
    "region": r".+ is a country in .+\.",
    "opposite": r"The opposite of .+ is .+\.",
    "sum": r"\d+ \+ \d+ = \d+",
    "difference": r"\d+ - \d+ = \d+",
    "whereabouts": r"\w+ is at the \w+\.",
    "owner": r"\w+ has the \w+\.",
    "sentiment": r"It is (positive|negative)\.",
    "language of text": r"It is (French|English)\.",
}


def test_requests() -> list[Request]:
    """Held-out requests that have one right answer, no prompt twice."""
    drawn = requests(DRAWN, TEST_SEED, use_cases=USE_CASES, held_out=True)
    return list({request.prompt: request for request in drawn}.values())


def has_form(request: Request, text: str) -> bool:
    """Whether a response is a sentence of the kind that answers the request, right or wrong.

    >>> request = Request("open qa", "capital", "Capital of Chad?", "The capital of Chad is N'Djamena.", len)
    >>> has_form(request, "The capital of Chad is Lima."), has_form(request, "Lima")
    (True, False)
    """
    return re.fullmatch(FORMS[request.task], text.strip()) is not None


def by_task(lm: LanguageModel, asked: Sequence[Request]) -> dict[str, tuple[Estimate, Estimate]]:
    """The share of responses with the form, and the share with the fact, for each task of the requests."""
    judged: dict[str, list[tuple[bool, bool]]] = {}
    said = respond(lm, [request.prompt for request in asked])
    for request, text in zip(asked, said, strict=True):
        judged.setdefault(request.task, []).append((has_form(request, text), request.score(text) == 1))
    return {name: tuple(map(accuracy, zip(*judged[name], strict=True))) for name in FORMS if name in judged}


def form_and_fact(lm: LanguageModel, asked: Sequence[Request]) -> tuple[Estimate, Estimate]:
    """`by_task` over all requests."""
    tasks = by_task(lm, asked).values()
    form, fact = (sum(task[column].mean * task[column].n for task in tasks) for column in (0, 1))
    return wilson(form / len(asked), len(asked)), wilson(fact / len(asked), len(asked))


def read_table(path: Path = TABLE) -> list[dict]:
    """Rows of the table, numbers as numbers; the base and the teacher have no examples."""
    return imitation.read_table(path)


def main(arguments: list[str] | None = None) -> int:
    """Train the students and write the table."""
    parser = argparse.ArgumentParser(prog="ptlearn.pocket.form_and_fact", description="Form and fact of imitators.")
    parser.add_argument("--out", type=Path, required=True, help="the table")
    out = parser.parse_args(arguments).out
    from tqdm import tqdm

    teacher, asked = merge_lora(load_teacher()), test_requests()
    data = imitation.teacher_examples(teacher, SEED, max(SIZES))
    with open(out, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for name, size in tqdm([("teacher", 0), *((STUDENT, size) for size in (0, *SIZES))], desc="students"):
            lm = teacher if name == "teacher" else load_lm(name)
            if size:
                imitation.imitate(lm, data[:size], lr=imitation.STUDENTS[name], seed=SEED)
            form, fact = form_and_fact(lm, asked)
            writer.writerow([name, size, SEED, f"{form.mean:.4f}", f"{fact.mean:.4f}", form.n])
            file.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
