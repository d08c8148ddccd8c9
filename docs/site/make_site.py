"""Build the site: lay out its pages below build/site, then let Sphinx make them into site/.

    python docs/site/make_site.py

Prose comes from docs/, notebooks from solutions/ as they were executed; pages of the package, the map and the shown
sources are made here. Links to files of the repository are turned into links between pages; one that leads nowhere
stops the build.
Order: where each file's page is; links; notebooks; pages that are made; the table of contents; the build.
"""

import ast
import itertools
import json
import os
import re
import shutil
import sys
from functools import cache
from pathlib import Path

import api
import lesson_map

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WORK = ROOT / "build/site"
PAGES = WORK / "pages"  # what Sphinx reads
OUTPUT = ROOT / "site"
TOP = {"README.md": "install.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
SHOWN = ("benchmarks/**/*.py", "benchmarks/**/*.sh", "lessons/accelerate/*.yaml", "docs/*.py", "Makefile")
LANGUAGES = {".py": "python", ".sh": "bash", ".yaml": "yaml", "": "text"}
LINK = re.compile(r"\]\((?!\w+:|#)([^)\s#]+\.\w+|[^)\s#]*/[^)\s#]*)(#[^)\s]*)?\)")
SHADES = re.compile(r"\b(dark|darkest|white|bright|pale)\b")  # words that turning a figure over would make wrong
PICTURE = re.compile(r'<img alt="[^"]*" src="data:(?P<kind>image/\w+);base64,(?P<content>[^"]+)">')
FENCED = re.compile(r"^(`{3,}).*?^\1`*$", re.MULTILINE | re.DOTALL)


@cache
def pages() -> dict[str, str]:
    """Where the page of each file of the repository is, relative to the site: `docs/claims.md` is at `claims.md`.

    >>> pages()["docs/claims.md"], pages()["lessons/08_reinforce.py"], pages()["ptlearn/rollout.py"]
    ('claims.md', 'solutions/08_reinforce.ipynb', 'api/ptlearn.rollout.md')
    """
    found = TOP | {"benchmarks/README.md": "benchmarking.md"}
    found |= {f"docs/{path.name}": path.name for path in sorted(ROOT.glob("docs/*.md"))}
    for path in sorted(ROOT.glob("docs/images/*")) + sorted(ROOT.glob("docs/interactive/*")):
        name = path.relative_to(ROOT / "docs").as_posix()
        found[f"docs/{name}"] = name
    for path in sorted(ROOT.glob("solutions/*.ipynb")):
        names = (f"solutions/{path.name}", f"notebooks/{path.name}", f"lessons/{path.stem}.py")
        found |= dict.fromkeys(names, f"solutions/{path.name}")
    found |= {path.relative_to(ROOT).as_posix(): f"api/{name}.md" for name, path in modules().items()}
    found |= {name: f"source/{name.replace('/', '_')}.md" for name in shown_sources()}
    return found


@cache
def modules() -> dict[str, Path]:
    """The modules of the package that have a page."""
    return api.modules(ROOT / "ptlearn")


def shown_sources() -> list[str]:
    """Files that are shown as they are, since the prose points at them."""
    return sorted(path.relative_to(ROOT).as_posix() for pattern in SHOWN for path in ROOT.glob(pattern))


def names() -> tuple[dict[str, str], set[str]]:
    """What inline code may name: files of the repository with their page, and objects of the package."""
    files = {file: page.rpartition(".")[0] for file, page in pages().items() if page.endswith((".md", ".ipynb"))}
    return files, set().union(*(api.objects(path, name) for name, path in modules().items()))


# ---------------------------------------------------------------- links


class BrokenLink(ValueError):
    """A link of the repository that leads nowhere."""


def relinked(text: str, file: str) -> str:
    """The text of a file with its links to files of the repository turned into links between pages.

    >>> relinked("[C12](../docs/claims.md#c12)", "solutions/04_synthetic_data.ipynb")
    '[C12](../claims.md#c12)'
    """
    codes = [match.span() for match in FENCED.finditer(text)]

    def link(match: re.Match) -> str:
        if any(start <= match.start() < end for start, end in codes):
            return match[0]
        target = os.path.normpath(os.path.join(os.path.dirname(file), match[1]))
        if target not in pages():
            raise BrokenLink(f"{file}: {match[1]} has no page")
        page = os.path.relpath(pages()[target], os.path.dirname(pages()[file]) or ".")
        return f"]({page}{match[2] or ''})"

    return as_web_pages(LINK.sub(link, text))


def apart(text: str) -> str:
    """Displayed equations as paragraphs of their own; Jupyter shows them so without the blank lines that Sphinx needs.

    >>> apart("It is\\n$$x$$\\nalways.")
    'It is\\n\\n$$x$$\\n\\nalways.'
    """
    return re.sub(r"\n*^(\$\$.+?\$\$)\n*", r"\n\n\1\n\n", text, flags=re.MULTILINE | re.DOTALL)


def as_web_pages(text: str) -> str:
    """Links to pages that are not made here, such as the interactives, as plain links; else they would be downloads.

    >>> as_web_pages("[Explore it](../interactive/grid_world.html)")
    '<a href="../interactive/grid_world.html">Explore it</a>'
    """
    return re.sub(r"\[([^\]]+)\]\((?!\w+:)([^)\s]*interactive/[^)\s]+\.html)\)", r'<a href="\2">\1</a>', text)


# ---------------------------------------------------------------- notebooks


def notebook(path: Path) -> str:
    """A solution as it was executed: links between pages, alt texts where Sphinx looks for them, no cell for Colab."""
    content = json.loads(path.read_text(encoding="utf-8"))
    file = path.relative_to(ROOT).as_posix()
    content["cells"] = [cell for cell in content["cells"] if role(cell) != "colab"]
    for cell in content["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = apart(relinked("".join(cell["source"]), file))
    for cell, after in itertools.pairwise([*content["cells"], {}]):
        if cell["cell_type"] == "code":
            cell["outputs"] = [as_picture(output) for output in cell["outputs"]]
        if alt := " ".join(filter(None, map(alt_text, cell.get("outputs", [])))):
            words = f"{alt} {''.join(after.get('source', '')) if after.get('cell_type') == 'markdown' else ''}"
            shades = {"classes": "paper"} if SHADES.search(words) else {}
            cell["metadata"]["mystnb"] = {"image": {"alt": alt, **shades}}
    return json.dumps(content)


def role(cell: dict) -> str:
    """The part a cell plays in its lesson."""
    return cell["metadata"].get("ptlearn", {}).get("role", "")


def as_picture(output: dict) -> dict:
    """An output of HTML that is one picture as this picture, of which Sphinx makes a file; another one as it is."""
    found = PICTURE.fullmatch("".join(output.get("data", {}).get("text/html", "")))
    if not found:
        return output
    alt = output["metadata"]["text/html"]["alt"]
    return output | {"data": {found["kind"]: found["content"]}, "metadata": {found["kind"]: {"alt": alt}}}


def alt_text(output: dict) -> str:
    """The alt text of a picture among the outputs; nothing for another output."""
    return next((about["alt"] for kind, about in output.get("metadata", {}).items() if kind.startswith("image/")), "")


# ---------------------------------------------------------------- pages that are made


def made_pages() -> dict[str, str]:
    """The pages that no file holds."""
    found = {"index.md": index(), "map.md": lesson_map.page()}
    found |= {"interactive/index.md": interactives(), "api/index.md": api_index()}
    found |= {f"api/{name}.md": api.module_page(name, path, ROOT) for name, path in modules().items()}
    for name in shown_sources():
        text = api.fenced((ROOT / name).read_text(encoding="utf-8").rstrip(), LANGUAGES[Path(name).suffix])
        found[pages()[name]] = f"---\norphan: true\n---\n# {api.escape(name)}\n\n{text}\n"
    if "docs/gpu.md" not in pages():
        said = "Not measured yet. `benchmarks/gpu/run.sh` measures it, and `benchmarks/README.md` says what is asked."
        found["gpu.md"] = f"# On a GPU\n\n{said}\n"
    return found


def interactives() -> str:
    """A list of the pages in docs/interactive, by what their title and description say."""
    found = sorted(path for path in ROOT.glob("docs/interactive/*.html") if path.stem != "index")
    titles = [element(path, "<title>(.+?)(?: · ptlearn)?</title>") for path in found]
    rows = [f'- <a href="{path.name}">{title}</a>{described(path)}' for path, title in zip(found, titles)]
    lead = "Pages to play with, each of them whole and without a network: for mouse, finger and keyboard."
    return "# Interactives\n\n" + ("\n".join([lead, "", *rows]) if rows else "None yet.") + "\n"


def described(path: Path) -> str:
    """What an HTML page says of itself, after a colon; nothing where it does not."""
    text = element(path, r'<meta name="description"\s+content="(.+?)"')
    return f": {text}" if text else ""


def element(path: Path, pattern: str) -> str:
    """The first match of a pattern in an HTML page."""
    match = re.search(pattern, path.read_text(encoding="utf-8"), re.DOTALL)
    return " ".join(match[1].split()) if match else ""


def api_index() -> str:
    """The package by its rooms, each with the first line of what it says."""
    lines = ["# The package", "", api.escape(first_line("ptlearn")), "", "| module | what is there |", "|---|---|"]
    lines += [f"| [{name}]({name}.md) | {api.escape(first_line(name))} |" for name in modules() if name != "ptlearn"]
    return "\n".join(lines) + "\n\n" + toctree("", [*modules()], depth=1)


def first_line(name: str) -> str:
    """The first sentence of a module's docstring."""
    doc = ast.get_docstring(ast.parse(modules()[name].read_text(encoding="utf-8"))) or ""
    return " ".join(doc.partition("\n\n")[0].split())


def glossary(text: str) -> str:
    """A list of `- **term**: meaning` as Sphinx's glossary, so that a term can be linked to and searched for.

    >>> print(glossary("# Words\\n\\n- **mask**: what counts.\\n  Nothing else.\\n"))
    # Words
    <BLANKLINE>
    ```{glossary}
    mask
      what counts.
      Nothing else.
    ```
    """
    head, start, rest = text.partition("- **")
    entries = re.sub(r"^- \*\*(.+?)\*\*: ", r"\n\1\n  ", start + rest, flags=re.MULTILINE)
    return f"{head}```{{glossary}}\n{entries.strip()}\n```"


def with_lessons(text: str) -> str:
    """A text in which "lesson 09" leads there.

    >>> with_lessons("Lesson 09.")
    '[Lesson 09](solutions/09_baselines.ipynb).'
    """
    files = {path.stem[:2]: path.name for path in ROOT.glob("solutions/*.ipynb")}
    found = re.compile(r"\b[Ll]esson\s+(\d\d)\b")
    return found.sub(lambda match: f"[{match[0]}](solutions/{files[match[1]]})", text)


# ---------------------------------------------------------------- the table of contents


def contents() -> dict[str, list[str]]:
    """The table of contents: pages under their headings, without suffix; pages of docs/ that are new come last."""
    solutions = sorted(f"solutions/{path.stem}" for path in ROOT.glob("solutions/*.ipynb"))
    found = {
        "Start": ["install", "map"],
        "Lessons": solutions,
        "To play with": ["interactive/index"],
        "To look up": ["formulas", "glossary", "claims", "wrong_answers"],
        "To build with": ["recipes", "going_further", "pocket", "api/index"],
        "Measured": ["benchmarks", "benchmarking", "gpu"],
        "For instructors": ["instructors"],
        "The project": ["contributing", "changelog"],
    }
    listed = {page for group in found.values() for page in group}
    found["The project"] += [path.stem for path in sorted(ROOT.glob("docs/*.md")) if path.stem not in listed]
    return found


def toctree(caption: str, entries: list[str], depth: int = 2) -> str:
    """A table of contents for the sidebar."""
    options = f":caption: {caption}\n" if caption else ""
    return "\n".join(["```{toctree}", ":hidden:", f":maxdepth: {depth}", options, *entries, "```"])


# ---------------------------------------------------------------- the build


def lay_out() -> None:
    """Write every page below build/site/pages; one that is there already is left alone, so that Sphinx knows it."""
    found = {page: text.encode() for page, text in made_pages().items()}
    for file, page in pages().items():
        path = ROOT / file
        if file.startswith("solutions/"):
            found[page] = notebook(path).encode()
        elif page.startswith("images/"):
            found[page] = path.read_bytes()
        elif file.endswith(".md"):
            found[page] = prose(file, path.read_text(encoding="utf-8")).encode()
    for path in PAGES.rglob("*.*"):
        if path.relative_to(PAGES).as_posix() not in found:
            path.unlink()
    for page, content in found.items():
        path = PAGES / page
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_bytes() != content:
            path.write_bytes(content)


def prose(file: str, text: str) -> str:
    """A page of prose, ready for Sphinx."""
    text = relinked(text, file)
    if file == "README.md":  # the site's first page says what the course is
        return re.sub(r"\A# .+", "# Install and run", text)
    return glossary(with_lessons(text)) if file == "docs/glossary.md" else text


def index() -> str:
    """The first page, with the table of contents that fills the sidebar."""
    trees = [toctree(caption, entries, depth=1) for caption, entries in contents().items()]
    return "\n\n".join([(HERE / "index.md").read_text(encoding="utf-8"), *trees])


# "theme" is where the site's own switch keeps what was chosen: "light", "dark", or "auto" as the system has it
AS_THE_SITE = """<link rel="icon" href="../_static/icon.svg">
<script>
const theme = localStorage.getItem("theme");
if (theme === "light" || theme === "dark") document.documentElement.style.colorScheme = theme;
</script>"""


def copy_interactives() -> None:
    """Put the interactives beside the site's own list of them, with its icon and the choice of light or dark."""
    for path in sorted(ROOT.glob("docs/interactive/*.*")):
        if path.suffix == ".html" and path.name != "index.html":
            text = path.read_text(encoding="utf-8").replace("</title>", f"</title>\n{AS_THE_SITE}", 1)
            (OUTPUT / "interactive" / path.name).write_text(text, encoding="utf-8")
        elif path.suffix in (".json", ".js", ".css"):
            shutil.copy(path, OUTPUT / "interactive")


def main() -> int:
    """Lay out the pages and make the site; the exit code is Sphinx's."""
    from sphinx.cmd.build import build_main

    lay_out()
    made = WORK / "html"
    for folder in (made, OUTPUT):
        shutil.rmtree(folder, ignore_errors=True)
    places = ["-c", str(HERE), "-d", str(WORK / "doctrees"), str(PAGES), str(made)]
    code = build_main(["-q", "-W", "--keep-going", *places])
    made.rename(OUTPUT)
    copy_interactives()
    if not code:
        print("site/index.html: open it in a browser; it needs no network")
    return code


if __name__ == "__main__":
    sys.exit(main())
