"""The site before it is built: every page it lists is there, every link leads somewhere, every name of code is real.

What only a built site shows is in test_site_in_browser.py, which `make site-test` runs.
"""

import doctest
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs/site"))

import api  # noqa: E402
import lesson_map  # noqa: E402
import make_site  # noqa: E402

FILES, OBJECTS = make_site.names()


def prose(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory):
    """The folder of all pages, as Sphinx would read them."""
    folder = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(make_site, "PAGES", folder)
        make_site.lay_out()
    return folder


@pytest.mark.parametrize("module", [api, lesson_map, make_site])
def test_examples_of_its_scripts(module, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert doctest.testmod(module).failed == 0


# ---------------------------------------------------------------- pages and links


def test_every_listed_page_is_there_and_every_page_is_listed(laid_out):
    pages = {path.relative_to(laid_out).with_suffix("").as_posix() for path in laid_out.rglob("*.*")}
    listed = [page for group in make_site.contents().values() for page in group]
    assert len(listed) == len(set(listed)) and set(listed) <= pages
    reached = {*listed, "index"} | {f"api/{name}" for name in make_site.modules()}
    assert {page for page in pages if not page.startswith(("source/", "images/"))} == reached


def texts(folder: Path) -> dict[str, str]:
    """The Markdown of every page, without its code blocks."""
    found = {}
    for path in folder.rglob("*.*"):
        if path.suffix == ".md":
            text = path.read_text(encoding="utf-8")
        elif path.suffix == ".ipynb":
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        else:
            continue
        found[path.relative_to(folder).as_posix()] = make_site.FENCED.sub("", text)
    return found


def anchors(text: str) -> set[str]:
    """The anchors that Markdown's headings get: lower case, no punctuation, dashes for spaces."""
    titles = re.findall(r"^#{1,4} (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", re.sub(r"[`*$]", "", title).lower()).replace(" ", "-") for title in titles}


def test_links_lead_to_pages_and_to_their_headings(laid_out):
    pages = texts(laid_out)
    known = {page: anchors(text) for page, text in pages.items()}
    broken, count = [], 0
    for page, text in pages.items():
        for target, anchor in make_site.LINK.findall(text):
            path = (laid_out / page).parent.joinpath(target).resolve()
            name = path.relative_to(laid_out.resolve()).as_posix()
            count += 1
            if not path.exists() or anchor and anchor[1:] not in known[name]:
                broken.append(f"{page}: {target}{anchor}")
    assert not broken
    assert count > 300


def test_a_link_that_leads_nowhere_is_refused():
    with pytest.raises(make_site.BrokenLink, match=r"docs/claims.md: nowhere.md has no page"):
        make_site.relinked("[there](nowhere.md)", "docs/claims.md")
    code = "```\n[there](nowhere.md)\n```"
    assert make_site.relinked(code, "docs/claims.md") == code


def test_a_claim_that_a_lesson_names_leads_to_the_page_of_claims(laid_out):
    lesson = json.loads((laid_out / "solutions/08_reinforce.ipynb").read_text(encoding="utf-8"))
    text = "\n".join("".join(cell["source"]) for cell in lesson["cells"])
    assert "[C25](../claims.md#c25)" in text
    assert "google.colab" not in text


def test_interactives_are_listed_by_what_they_say(tmp_path, monkeypatch):
    folder = tmp_path / "docs/interactive"
    folder.mkdir(parents=True)
    (folder / "index.html").write_text("<title>All</title>")
    (folder / "maze.html").write_text('<title>Maze · ptlearn</title><meta name="description" content="Walk it.">')
    monkeypatch.setattr(make_site, "ROOT", tmp_path)
    assert make_site.interactives().endswith('- <a href="maze.html">Maze</a>: Walk it.\n')


# ---------------------------------------------------------------- figures


def test_every_figure_has_its_alt_text(laid_out):
    seen = 0
    for path in (laid_out / "solutions").glob("*.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            outputs = [output.get("data", {}) for output in cell.get("outputs", [])]
            pictures = sum("image/png" in data for data in outputs)
            assert pictures <= 1, "Sphinx takes one alt text per cell"
            if pictures:
                seen += 1
                assert len(cell["metadata"]["mystnb"]["image"]["alt"]) > 20
            for tag in re.findall(r"<(?:img|svg)\b[^>]*>", "".join("".join(d.get("text/html", "")) for d in outputs)):
                assert re.search(r'(alt|aria-label)="[^"]{5,}"|aria-hidden="true"', tag), tag
    assert seen > 60
    for page, text in texts(laid_out).items():
        assert not re.search(r"!\[\s*\]\(", text), f"{page}: a picture without alt text"


def test_a_figure_whose_text_speaks_of_dark_parts_stays_on_paper(laid_out):
    lesson = json.loads((laid_out / "solutions/02_in_context_learning.ipynb").read_text(encoding="utf-8"))
    cells = lesson["cells"]
    [index] = [i for i, cell in enumerate(cells) if "the dark cell is" in "".join(cell["source"])]
    assert cells[index - 1]["metadata"]["mystnb"]["image"]["classes"] == "paper"


# ---------------------------------------------------------------- formulas, glossary, recipes


def code_names(text: str) -> set[str]:
    """What inline code names, if it looks like an object of the package."""
    found = set(re.findall(r"`((?:\w+\.)+\w+)(?:\(\))?`", text))
    return {name for name in found if not name.endswith((".md", ".py", ".sh"))}


def test_the_formula_sheet_names_real_functions_and_a_lesson_for_each_equation():
    text = prose("formulas.md")
    rows = [line for line in text.splitlines() if re.match(r"\| \$.+\$ \| \*", line)]
    assert len(rows) > 50
    for row in rows:
        names = code_names(row)
        assert names and {f"ptlearn.{name}" for name in names} <= OBJECTS, row
        assert re.search(r"\[(\d\d) .+\]\(\.\./solutions/\1_", row), row


@pytest.mark.parametrize(
    "equation",
    [
        r"h = W_0 x + \Delta W x = W_0 x + B A x",
        r"J(\theta) = \sum_\tau p_\theta(\tau)\, r(\tau)",
        r"p_\theta(\tau) \nabla_\theta \log p_\theta(\tau) = \nabla_\theta p_\theta(\tau)",
        r"V^\pi(s_t) = \mathbb E_{a_t \sim \pi(\cdot \mid s_t)} [Q^\pi(s_t, a_t)]",
        r"A^\pi(s_t, a_t) = r(s_t, a_t) + V^\pi(s_{t+1}) - V^\pi(s_t)",
        r"\rho(\tau) = \pi_\theta(\tau) / \mu(\tau)",
    ],
)
def test_the_sheet_holds_the_lectures_equations(equation):
    assert f"${equation}$" in prose("formulas.md")


def test_names_of_code_in_glossary_and_recipes_are_real():
    for page in ("glossary.md", "recipes.md"):
        names = code_names(make_site.FENCED.sub("", prose(page)))
        names = {name for name in names if not name.startswith("lm.model.") and not name.startswith("lm.tokenizer.")}
        assert names
        assert {name if name.startswith("ptlearn.") else f"ptlearn.{name}" for name in names} <= OBJECTS, page


def test_the_glossary_is_in_order_and_each_term_says_something():
    terms = re.findall(r"^- \*\*(.+?)\*\*: (\S.+)", prose("glossary.md"), re.MULTILINE)
    names = [term.lower() for term, _ in terms]
    assert len(terms) > 80 and names == sorted(set(names))
    assert all(len(meaning) > 12 for _, meaning in terms)
    lessons = {path.stem[:2] for path in ROOT.glob("lessons/*.py")}
    assert set(re.findall(r"[Ll]esson\s+(\d\d)", prose("glossary.md"))) <= lessons


# ---------------------------------------------------------------- the map, the package


def test_the_map_says_what_the_lessons_say():
    known = {lesson.number: lesson for lesson in lesson_map.lessons()}
    assert known["09"].needs == ["08"] and known["12"].needs == ["08", "09", "11", "03"]
    assert known["08"].minutes == 150 and known["08"].runs == "70 s" and known["14"].runs == "five minutes"
    assert all(other < number for number, lesson in known.items() for other in lesson.needs)
    assert [number for number, lesson in known.items() if not lesson.needs] == ["00", "07"]


def test_lessons_and_lines_on_the_map_do_not_lie_on_each_other():
    known = lesson_map.lessons()
    needs = lesson_map.bent(lesson_map.direct({lesson.number: lesson.needs for lesson in known}))
    place = lesson_map.places(needs)
    assert {lesson.number for lesson in known} <= set(place) == set(needs)
    edges = sorted(
        (y, x - lesson_map.width(name) / 2, x + lesson_map.width(name) / 2) for name, (x, y) in place.items()
    )
    for (y, _, right), (to_y, left, _) in zip(edges, edges[1:]):
        assert y != to_y or right < left


def test_no_line_of_the_map_passes_a_row_without_a_place_of_its_own():
    known = lesson_map.lessons()
    needs = lesson_map.bent(lesson_map.direct({lesson.number: lesson.needs for lesson in known}))
    row = {name: index for index, names in enumerate(lesson_map.rows(needs)) for name in names}
    assert all(row[other] == row[name] - 1 for name, wanted in needs.items() for other in wanted)


def test_a_page_of_the_package_shows_signature_words_and_source():
    page = api.module_page("ptlearn.policy_gradient", ROOT / "ptlearn/policy_gradient.py", ROOT)
    assert "{py:function} total_return(rewards: Tensor, mask: Tensor, *, gamma: float=1.0) -> Tensor" in page
    assert "Every action gets the return of its whole episode" in page
    assert "return episode_returns(rewards, mask, gamma=gamma)[:, None] * mask" in page
    assert "_check_shapes(" in page and "{py:function} _check_shapes" not in page


def test_every_public_module_has_a_page():
    assert len(make_site.modules()) > 70
    assert not [name for name in make_site.modules() if name.startswith("ptlearn.course.checks")]
