"""The tour: what it measures, and a page that stands alone."""

import re
from html.parser import HTMLParser

import pytest

from ptlearn.course import tour


@pytest.fixture(scope="module")
def visit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tour")
    tour.main(["--out", str(folder)])
    return folder


def test_the_page_needs_nothing_else(visit):
    text = (visit / "tour.html").read_text(encoding="utf-8")
    HTMLParser().feed(text)
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert text.count("<h2>") == len(tour.STAGES) and "<img alt=" in text
    for figure in ("in_context_learning.png", "supervised_finetuning.png", "grid_world.png",
                   "reinforcement_learning_on_text.png"):  # fmt: skip
        assert (visit / figure).read_bytes().startswith(b"\x89PNG")


def test_it_shows_what_the_lecture_says(visit):
    text = (visit / "tour.html").read_text(encoding="utf-8")
    shares = {name: [float(n) for n in re.findall(r"(\d\.\d\d) \[", value)]
              for name, value in re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td></tr>", text)}  # fmt: skip
    assert shares["capital questions answered"][0] <= 0.05
    assert shares["the same facts as a sentence to complete"][0] >= 0.9
    curves = [values for name, values in shares.items() if name.endswith("demonstrations")]
    assert len(curves) == len(tour.SHOWN) and all(last > first + 0.2 for first, last in curves)


def rows(visit):
    """What the tables of the page say, by the name of the row."""
    return dict(re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td></tr>", (visit / "tour.html").read_text(encoding="utf-8")))


def test_finetuning_makes_an_assistant_and_lora_nearly_the_same(visit):
    cells = rows(visit)
    before, after = (float(part.split()[0]) for part in cells["overall, before → after"].split(" → "))
    assert before <= 0.05 and after >= 0.5
    assert cells["overall, before → after"].endswith(cells["score on the ten use cases, all weights"])
    assert float(cells["score on the ten use cases, LoRA"].split()[0]) >= after - 0.1
    trained, every = (int(re.match("[0-9,]+", cells[f"trained by {name}"])[0].replace(",", ""))
                      for name in ("LoRA, rank 8", "full finetuning"))  # fmt: skip
    assert trained <= 0.05 * every
    assert cells["switched off: the base model&#x27;s responses"] == "the same"


def test_the_agent_of_the_grid_world_learned(visit):
    text, cells = (visit / "tour.html").read_text(encoding="utf-8"), rows(visit)
    before = float(cells["random walk, share of the best possible return"])
    after = next(value for name, value in cells.items() if name.startswith("after "))
    assert before < 0.2 and min(map(float, after.split())) > 0.9
    walked = [int(n) for n in next(value for name, value in cells.items() if name.startswith("steps of")).split(" → ")]
    assert walked[0] > walked[1] >= 20  # the shortest way through the four rooms has 20 steps
    assert "<script" in text


def test_the_assistant_learned_to_add_and_kept_the_rest(visit):
    text, cells = (visit / "tour.html").read_text(encoding="utf-8"), rows(visit)
    before = float(cells["held-out sums right, before"].split()[0])
    after = [float(share) for share in cells[f"each of {tour.LEARNERS} seeds"].split()]
    assert len(after) >= 3 and all(share >= before + 0.2 for share in after)
    mean = float(next(value for name, value in cells.items() if name.startswith("the same after")).split()[0])
    assert mean == pytest.approx(sum(after) / len(after), abs=0.01)
    kept = cells["the ten use cases, before → after (first seed)"].split(" → ")
    assert float(kept[1].split()[0]) >= float(kept[0]) - 0.1
    shown = dict(re.findall(r"<pre>(before|after), reward (\d)\n", text))
    assert shown == {"before": "0", "after": "1"}


def test_the_reward_shown_is_that_of_the_sum(visit):
    text = (visit / "tour.html").read_text(encoding="utf-8")
    shown = re.findall(r"<pre>(?:before|after), reward (\d)\nWhat is (\d+) \+ (\d+)\?\n<b>(.*?)</b>", text)
    assert len(shown) == 2
    for reward, a, b, answer in shown:
        assert (int(re.findall(r"\d+", answer)[-1]) == int(a) + int(b)) == (reward == "1")


def test_html_is_escaped():
    page = tour.page([tour.Section("a < b", "x & y", [("<p>", "<q>")])], "m", 1.0)
    assert "a &lt; b" in page and "&lt;q&gt;" in page and "<q>" not in page


def test_an_unknown_model_is_one_line(capsys):
    from ptlearn.course import cli

    assert cli.main(["tour", "--model", "pocket-xl"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "pocket-m" in error
