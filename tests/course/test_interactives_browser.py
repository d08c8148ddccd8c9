"""The interactive pages in a browser: each driven by keyboard, from a desk to a small phone, in light and in dark.

Needs Playwright and a Chromium on this machine; skipped where there is none. With PTLEARN_AXE, the path of axe-core's
axe.min.js, each page is also searched for what keeps people out.
"""

import os
import re
import shutil
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests need Playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="the browser tests need Chromium")

FOLDER = Path(__file__).parents[2] / "docs" / "interactive"
AXE = os.environ.get("PTLEARN_AXE")
OPTIONS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield found
        found.close()


@pytest.fixture
def visit(browser):
    """visit(name, width, scheme) opens a page, and afterwards nothing may have gone wrong in it."""
    pages, wrong = [], []

    def open_page(name, width=1280, scheme="light"):
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme, reduced_motion="reduce")
        page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda asked: None if asked.url.startswith("file:") else wrong.append(asked.url))
        page.goto((FOLDER / f"{name}.html").as_uri())
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not wrong


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)


def push(page, name):
    """Press the button of that name by keyboard."""
    page.get_by_role("button", name=name, exact=True).focus()
    press(page, "Enter")


def said(page):
    return page.locator("#status").inner_text()


def focused(page):
    return page.evaluate("document.activeElement.innerText")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 320])
@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.html")))
def test_a_page_fits_and_keeps_nobody_out(visit, name, width, scheme):
    page = visit(name, width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    if AXE:
        page.evaluate(Path(AXE).read_text(encoding="utf-8"))
        found = page.evaluate("axe.run().then((all) => all.violations.map((each) => [each.impact, each.id]))")
        assert not [each for each in found if each[0] in ("serious", "critical")]


def test_without_its_script_as_jupyterlab_first_shows_it_a_page_says_what_to_do(browser):
    page = browser.new_page()
    page.set_content('<iframe sandbox title="a page"></iframe>')
    text = (FOLDER / "grid_world.html").read_text(encoding="utf-8")
    page.locator("iframe").evaluate("(frame, text) => { frame.srcdoc = text; }", text)
    hint = page.frame_locator("iframe").locator("noscript p")  # searches by text leave such elements out
    hint.wait_for(timeout=5000)
    assert "Trust HTML" in hint.inner_text()
    page.close()


def test_every_control_is_reached_by_tab_and_seen_when_it_is(visit):
    for name in ("grid_world", "reinforce", "token_credit", "attention"):
        page = visit(name)
        reached, controls = (
            set(),
            page.locator("button:enabled, select:enabled, input:enabled:not([type=radio])").count(),
        )
        for _ in range(80):
            press(page, "Tab")
            reached.add(
                page.evaluate("(e => e.id || e.getAttribute('aria-label') || e.innerText)(document.activeElement)")
            )
            if page.evaluate("document.activeElement !== document.body"):
                assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
        heads = {"attention": 24}.get(name, 0)  # the heads' buttons are called after their shares, some of them alike
        assert len(reached - {""}) >= controls - heads


def test_the_map_is_edited_by_keyboard(visit):
    page = visit("grid_world")
    press(page, "Tab", "ArrowDown", "ArrowRight")
    assert "row 2, column 2, wall" in focused(page)
    press(page, ".")
    assert "Row 2, column 2 is now floor" in said(page) and "row 2, column 2, floor" in focused(page)
    press(page, "#", "ArrowUp", "ArrowUp", "ArrowLeft", "ArrowLeft")
    assert "row 1, column 1, start" in focused(page)
    press(page, "Enter")  # the tool is a wall
    assert "A map needs a start" in said(page)
    page.get_by_label("move").check()
    page.locator(".cell[tabindex='0']").focus()
    press(page, "End", "Enter")
    assert "Picked up: floor" in said(page)
    press(page, "Home", "Enter")
    assert "Row 1, column 1 is now floor" in said(page)
    assert "start" in page.locator(".cell[data-r='0'][data-c='4']").inner_text()


def test_steps_climb_towards_the_best_policy(visit):
    page = visit("grid_world")
    reached = []
    for _ in range(5):
        push(page, "Ten steps")
        reached.append(float(page.locator("#J").inner_text().replace("−", "-")))
    assert reached == sorted(reached) and "Step 50:" in said(page)
    assert 0.8 < reached[-1] / float(page.locator("#best").inner_text()) < 1
    push(page, "Run")
    page.wait_for_timeout(1800)
    assert "Climbing" in said(page)  # and nothing is said at each step
    push(page, "Pause")
    assert "Step 51:" in said(page)
    push(page, "Forget (θ = 0)")
    assert "The policy is uniform again" in said(page)


def test_where_nothing_ends_the_page_says_what_to_change(visit):
    page = visit("grid_world")
    page.locator("#gamma").focus()
    press(page, "End")
    page.locator(".cell[data-r='0'][data-c='4']").focus()
    page.locator(".cell[data-r='3'][data-c='0']").click()
    for key in ("ArrowUp", "ArrowUp", "ArrowUp", "ArrowRight"):
        press(page, key)
    press(page, "#", "ArrowLeft", "ArrowDown", "#")
    page.locator("#cost").focus()
    press(page, "ArrowLeft")
    assert "With γ = 1 the episode never ends from row 1, column 1" in said(page)
    page.locator("#horizon").select_option("10")
    assert "J is" in said(page)


def test_batches_show_bias_and_a_seed_repeats_them(visit):
    said_before = []
    for _ in range(2):
        page = visit("reinforce")
        page.locator("#size").focus()
        press(page, "Home")
        page.locator("#kind").select_option("average")
        for _ in range(10):
            push(page, "100 batches")
        said_before.append(said(page))
    assert said_before[0] == said_before[1]
    assert "return − batch average, 1,000 batches" in said(page) and "In truth the bias is 0.500" in said(page)
    assert 0.3 < float(re.search(r"the mean has ([\d.]+) of", said(page))[1]) < 0.7
    push(page, "Every weight, 1,000 batches")
    assert page.locator("#table tr").count() == 9


def test_tokens_are_walked_and_a_cap_cuts(visit):
    page = visit("token_credit")
    page.locator("#pair").select_option("24 updates later")
    page.locator("#form").select_option("truncated")
    page.locator("#cap").focus()
    press(page, "Home")
    assert re.search(r"[1-9]\d* of \d+ tokens are cut", said(page))
    page.locator(".token[tabindex='0']").focus()
    press(page, "ArrowDown", "End")
    assert "end" in focused(page) and "of answer 2 to" in page.locator("#detail").inner_text()
    page.locator("#pair").select_option("the same weights")
    page.locator("#credit").select_option("own")
    assert page.locator("#credit").input_value() == "own"
    page.locator("#pair").select_option("sampled in bfloat16")
    assert page.locator("#credit").input_value() == "others"


def test_attention_is_followed_from_token_to_token(visit):
    page = visit("attention")
    assert "On the 3 marked" in said(page)
    page.locator(".token[tabindex='0']").focus()
    press(page, "ArrowUp")
    assert "(token 32)" not in said(page)
    press(page, "Home")
    assert "from “start” (token 1): 100 % on “start”" in said(page)
    press(page, "Enter")
    assert "On the 4 marked: 100 %" in said(page)
    push(page, "Mark or unmark the chosen token")
    assert "On the 3 marked: 0 %" in said(page)
    push(page, "Marks as at the start")
    press(page, "Shift+Tab")
    push(page, "layer 0, head 0: 0 %")
    assert "Layer 0, head 0" in said(page)
    page.locator("#text").select_option("words said twice")
    assert "goat" in page.locator("#next").inner_text()
