"""Numbers in a lesson's text are numbers of its run: what is told after "What you saw" was printed shortly before."""

import re

import nbformat
import pytest

from ptlearn.course.lesson import ROOT, lesson_files

NEAR = 12  # cells back from the text in which its numbers are looked for
TOLD = re.compile(r"(?<![\w.^{])[−-]?\d[\d,]*\.\d+(?!\w)|(?<![\w.^{$])\d+(?= %)")  # with decimals, or percent
CODE = re.compile(r"`[^`]*`")
ANY = re.compile(r"[−+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")
ELSEWHERE = {  # what no cell prints, and where it is from
    "00": {"a second seed of two models, trained apart": "4.11 4.38 5.51 5.04", "fits with other choices": "2.6",
           "a coin that shows heads 60 %": "60", "5 % are 0.05 nats": "0.05"},
    "02": {"Radford et al. (2019), table": "11.5", "half the sum of 0.28 and 1.00": "0.64"},
    "04": {"pocket-s under `--model pocket-s`": "0.41", "a threshold of the contest": "0.25"},
    "05": {"4 + 8 / 64 + 32 / (64 * 256) bits": "4.127"},
    "06": {"the paper's table": "18.87", "half and twice the best rate, three seeds apart": "0.0003 0.75 0.88 0.7"},
    "07": {"a setting of the next cell": "27.5"},
    "09": {"1 - 1/N at N = 2, 8, 32": "0.50 0.88 0.97", "the contest's cost of a step": "0.25"},
    "10": {"a section of Sutton and Barto": "6.3"},
    "12": {"the root of 1/4 over 48": "0.07", "a point of the contest": "0.85"},
    "13": {"DAPO's bounds": "0.012 0.28", "asserted over ten worlds by the test of claims": "0.3 0.85"},
    "14": {"a table from `--seeds 3`, as its caption says": "0.96 0.54 −0.08 0.14 0.49 3.99 2.87 5.11"},
}  # fmt: skip


def value(number):
    return abs(float(number.replace(",", "").replace("−", "-")))


def shown(cell):
    """All numbers of a cell's code, of what it printed and of its figures' alternative texts."""
    if cell.cell_type != "code":
        return set()
    texts = [cell.source]
    for output in cell.outputs:
        texts.append(output.get("text", ""))
        texts += re.findall(r'alt="([^"]*)"', "".join(output.get("data", {}).get("text/html", "")))
    return {value(number) for text in texts for number in ANY.findall(text)}


def unsupported(cells, lesson=0):
    """(number, its words) of the texts after a measurement that no cell near before them shows, rounded as it is.

    Code, and numbers of the lesson's exercises ("the proof of 9.3"), are no measurements.
    """
    exercises = re.compile(rf"(?:in|of)\s+{lesson or 'none'}\.\d+")
    numbers, found = [shown(cell) for cell in cells], []
    for place, cell in enumerate(cells):
        if cell.cell_type == "markdown" and "What you saw" in cell.source:
            near = set().union(*numbers[max(0, place - NEAR) : place])
            text = exercises.sub("", CODE.sub("", cell.source))
            text = re.split(r"\n## (?:Try next|References)", text)[0]
            for match in TOLD.finditer(text):
                half = 0.5001 * 10 ** -len(match.group().partition(".")[2])
                if not any(abs(seen * unit - value(match.group())) <= half for seen in near for unit in (1, 100)):
                    found.append((match.group(), text[max(0, match.start() - 40) : match.end() + 20]))
    return found


@pytest.mark.parametrize("path", lesson_files(), ids=lambda path: path.stem)
def test_a_number_told_after_a_measurement_was_printed_there(path):
    notebook = nbformat.read(ROOT / "solutions" / f"{path.stem}.ipynb", as_version=4)
    known = " ".join(ELSEWHERE.get(path.stem[:2], {}).values()).split()
    found = dict(unsupported(notebook.cells, int(path.stem[:2])))
    assert {number: words for number, words in found.items() if number not in known} == {}
    assert set(known) <= set(found), "printed now: no exception any more"


def test_a_wrong_number_is_seen_and_a_rounded_one_is_not():
    run = nbformat.v4.new_code_cell("f()", outputs=[nbformat.v4.new_output("stream", text="share 0.8449, lost 12")])
    right, wrong = (nbformat.v4.new_markdown_cell(f"**What you saw.** It rose to {x}.") for x in ("0.84", "0.85"))
    assert unsupported([run, right]) == [] and [number for number, _ in unsupported([run, wrong])] == ["0.85"]
    percent = nbformat.v4.new_markdown_cell("**What you saw.** It rose to 84 %, and cost 13 %.")
    assert [number for number, _ in unsupported([run, percent])] == ["13"]
    assert unsupported([right, run]) != []  # what comes later supports nothing
