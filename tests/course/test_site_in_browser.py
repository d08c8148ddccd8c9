"""The built site in headless Chromium: `make site-test`, which builds it and brings playwright and axe-core.

Every page is opened at desktop and at phone width, lessons and prose in the dark too; what is wrong is collected over
all pages and shown together. It runs where PTLEARN_SITE is set; without Chromium what needs it is skipped.
"""

import base64
import functools
import http.server
import os
import shutil
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

ROOT = Path(__file__).parents[2]
SITE = ROOT / "site"
AXE = ROOT / "build/site/node_modules/axe-core/axe.min.js"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
QUIET = "--disable-gpu --disable-quic --disable-background-networking --disable-component-update --disable-sync"
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}

pytestmark = pytest.mark.skipif("PTLEARN_SITE" not in os.environ, reason="minutes in a browser: make site-test")
PAGES = sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html")) if SITE.is_dir() else []
READ = [page for page in PAGES if not page.startswith(("api/", "source/"))]  # lessons and prose

# ---------------------------------------------------------------- without a browser


class Links(HTMLParser):
    """Where a page leads to, the anchors in it, and its pictures."""

    def __init__(self, path: Path):
        super().__init__()
        self.links, self.anchors, self.pictures = [], {""}, []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list) -> None:
        found = dict(attrs)
        self.anchors |= {found.get("id", ""), found.get("name", "")}
        self.links += [found[name] for name in ("href", "src") if found.get(name)]
        if tag == "img":
            self.pictures.append(found)


@functools.cache
def parsed(path: Path) -> Links:
    return Links(path)


def test_no_link_is_broken():
    broken, seen = [], 0
    for page in PAGES:
        for link in parsed(SITE / page).links:
            target, anchor = urldefrag(link)
            if ":" in target:
                continue
            path = (SITE / page).parent / unquote(target.partition("?")[0]) if target else SITE / page
            seen += 1
            if not path.is_file() or path.suffix == ".html" and unquote(anchor) not in parsed(path.resolve()).anchors:
                broken.append(f"{page}: {link}")
    assert not broken, broken[:20]
    assert seen > 10_000


def test_every_picture_has_alt_text():
    without = [page for page in PAGES for picture in parsed(SITE / page).pictures if not picture.get("alt", "").strip()]
    assert not without
    assert sum(len(parsed(SITE / page).pictures) for page in PAGES) > 60


# ---------------------------------------------------------------- in the browser


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make site-test")
    if not CHROMIUM:
        pytest.skip("no Chromium on this machine; CHROMIUM may name one")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *QUIET.split()])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address():
    """The site, served on this machine alone."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=SITE))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


class Visit:
    """A tab that notes what a page complains of and what it asks for from elsewhere."""

    def __init__(self, browser, base: str, viewport: dict, scheme: str = "light"):
        self.context = browser.new_context(viewport=viewport, color_scheme=scheme, reduced_motion="reduce")
        self.tab, self.base, self.page, self.problems = self.context.new_page(), base, "", []
        self.tab.on("console", lambda said: self.note(said.text) if said.type in ("error", "warning") else None)
        self.tab.on("pageerror", self.note)
        self.tab.on("request", lambda request: self.note_request(request.url))
        self.tab.on("requestfailed", self.note_failure)

    def note(self, problem) -> None:
        self.problems.append(f"{self.page}: {str(problem)[:300]}")

    def note_request(self, url: str) -> None:
        if not url.startswith((self.base, "data:", "blob:", "about:")):
            self.note(f"asks for {url}")

    def note_failure(self, request) -> None:
        if request.failure != "net::ERR_ABORTED":  # the next page was opened meanwhile
            self.note(f"failed: {request.url}, {request.failure}")

    def open(self, page: str) -> None:
        self.page = page
        self.tab.goto(f"{self.base}/{page}")
        self.tab.wait_for_function("!window.MathJax?.startup || MathJax.startup.promise.then(() => true)")


SOUND = """() => ({
    overflow: document.documentElement.scrollWidth - innerWidth,
    failed: document.querySelectorAll("mjx-merror, [data-mjx-error]").length,
    raw: [...document.querySelectorAll(".math")].filter(e => !e.querySelector("mjx-container svg")).length,
})"""


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_pages_are_quiet_whole_and_as_wide_as_the_screen(browser, address, viewport):
    visit = Visit(browser, address, viewport)
    for page in PAGES:
        visit.open(page)
        found = visit.tab.evaluate(SOUND)
        if found["overflow"] > 0 or found["failed"] or found["raw"]:
            visit.note(found)
    assert not visit.problems, visit.problems[:20]


def test_it_works_as_files_too(browser):
    visit = Visit(browser, SITE.as_uri(), DESKTOP)
    for page in ["index.html", "formulas.html", "solutions/08_reinforce.html", "search.html?q=baseline"]:
        visit.open(page)
    visit.tab.wait_for_selector("ul.search li a")
    assert not visit.problems


RUN_AXE = """() => axe.run(document, {resultTypes: ["violations"], preload: false}).then(found => found.violations
    .filter(v => ["serious", "critical"].includes(v.impact))
    .map(v => `${v.id} (${v.nodes.length}): ${v.nodes[0].html.slice(0, 200)} ${v.nodes[0].failureSummary}`))"""


@pytest.mark.parametrize(
    "viewport, scheme, pages",
    [(DESKTOP, "light", PAGES), (PHONE, "light", READ), (DESKTOP, "dark", READ)],
    ids=["desktop", "phone", "dark"],
)
def test_axe_finds_nothing_serious(browser, address, viewport, scheme, pages):
    if not AXE.exists():
        pytest.skip("axe-core is not there: make site-test")
    visit = Visit(browser, address, viewport, scheme)
    for page in pages:
        visit.open(page)
        visit.tab.evaluate(AXE.read_text(encoding="utf-8"))
        for problem in visit.tab.evaluate(RUN_AXE):
            visit.note(problem)
    assert not visit.problems, "\n".join(visit.problems[:20])


LIGHTNESS = """src => new Promise(done => {
    const picture = new Image();
    picture.onload = () => {
        const canvas = Object.assign(document.createElement("canvas"), {width: picture.width, height: picture.height});
        const context = canvas.getContext("2d");
        context.drawImage(picture, 0, 0);
        const {data} = context.getImageData(0, 0, canvas.width, canvas.height), light = [];
        for (let i = 0; i < data.length; i += 4)
            light.push((0.3 * data[i] + 0.6 * data[i + 1] + 0.1 * data[i + 2]) / 255);
        light.sort((a, b) => a - b);
        done([0.5, 0.01, 0.99].map(share => light[Math.floor(share * (light.length - 1))]));
    };
    picture.src = src;
})"""


def test_figures_are_dark_in_the_dark_and_can_be_read(browser, address):
    visit = Visit(browser, address, DESKTOP, "dark")
    seen = 0
    for page in ["solutions/08_reinforce.html", "solutions/05_parameter_efficient.html"]:
        visit.open(page)
        for figure in visit.tab.query_selector_all(".cell_output img:not(.paper)"):
            shown = base64.b64encode(figure.screenshot()).decode()
            middle, darkest, lightest = visit.tab.evaluate(LIGHTNESS, f"data:image/png;base64,{shown}")
            assert middle < 0.25 and lightest - darkest > 0.4, (page, middle, darkest, lightest)
            seen += 1
    assert seen >= 6


def test_light_and_dark_can_be_chosen(browser, address):
    visit = Visit(browser, address, DESKTOP)
    visit.open("solutions/08_reinforce.html")
    shown = set()
    for _ in range(3):
        visit.tab.click(".content-icon-container .theme-toggle")
        picture = visit.tab.query_selector(".cell_output img")
        look = picture.evaluate("img => getComputedStyle(img).filter")
        visit.open("interactive/grid_world.html")  # which follows the choice
        paper = visit.tab.evaluate("getComputedStyle(document.body).backgroundColor")
        shown.add(("invert" in look, paper))
        visit.open("solutions/08_reinforce.html")
    assert shown == {(False, "rgb(255, 255, 255)"), (True, "rgb(20, 20, 20)")}


def test_search_finds_a_function_a_term_and_a_lesson(browser, address):
    visit = Visit(browser, address, DESKTOP)
    for words, target in [("leave_one_out", "api/ptlearn.policy_gradient.html"), ("reward hacking", "glossary.html"),
                          ("baselines", "solutions/09_baselines.html")]:  # fmt: skip
        visit.open(f"search.html?q={words}")
        visit.tab.wait_for_selector("ul.search li a")
        visit.tab.wait_for_timeout(1000)
        links = [link.get_attribute("href") for link in visit.tab.query_selector_all("ul.search li a")]
        assert any(target in link for link in links), (words, links[:5])


def test_lessons_lead_on_and_back(browser, address):
    visit = Visit(browser, address, DESKTOP)
    visit.open("solutions/08_reinforce.html")
    visit.tab.click("a.next-page")
    assert visit.tab.url.endswith("solutions/09_baselines.html")
    visit.tab.click("a.prev-page")
    assert visit.tab.url.endswith("solutions/08_reinforce.html")


def test_an_equation_is_two_clicks_from_its_code(browser, address):
    visit = Visit(browser, address, DESKTOP)
    visit.open("formulas.html")
    visit.tab.click('a:has-text("policy_gradient.reward_to_go")')
    assert visit.tab.url.endswith("api/ptlearn.policy_gradient.html#ptlearn.policy_gradient.reward_to_go")
    entry = visit.tab.locator("dl", has=visit.tab.locator('[id="ptlearn.policy_gradient.reward_to_go"]'))
    entry.locator("summary").first.click()
    assert entry.locator("details").first.inner_text().count("def reward_to_go(") == 1


def test_wide_code_can_be_moved_with_the_keyboard(browser, address):
    visit = Visit(browser, address, PHONE)
    visit.open("solutions/08_reinforce.html")
    assert visit.tab.evaluate("""() => [...document.querySelectorAll("pre")]
        .filter(e => e.scrollWidth > e.clientWidth + 1).every(e => e.tabIndex === 0)""")


def test_an_animation_plays_and_pauses(browser, address):
    visit = Visit(browser, address, DESKTOP)
    visit.open("solutions/07_grid_world.html")
    player = visit.tab.locator(".text_html > div", has=visit.tab.locator(".count")).first
    count, start = player.locator(".count").first, player.locator(".count").first.inner_text()
    assert start.startswith("episode 1 of") and ", step 0 of" in start  # it waits: less motion is asked for
    player.get_by_role("button").click()
    visit.tab.wait_for_function("([count, start]) => count.textContent !== start", arg=[count.element_handle(), start])
    player.get_by_role("button", name="Pause").click()
    stopped = count.inner_text()
    visit.tab.wait_for_timeout(1500)
    assert count.inner_text() == stopped and not visit.problems


def test_a_lesson_leads_to_its_interactive_page(browser, address):
    visit = Visit(browser, address, DESKTOP)
    visit.open("solutions/08_reinforce.html")
    visit.tab.get_by_role("link", name="Explore it").click()
    visit.tab.get_by_role("button", name="100 batches").click()
    assert "100 batches" in visit.tab.locator("#status").inner_text() and not visit.problems
