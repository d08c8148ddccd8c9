"""What a cell shows, made fit to publish, or refused with the reason."""

import re

from ptlearn.course.lesson import keys

FIGURE_BYTES = 300_000  # of all pictures of a notebook, as stored
LOCAL_PATH = re.compile(r"(?<![\w.:/<])(?:/[\w.+-]+){2,}|\b[A-Z]:\\\w|~/\w")
ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}\b")
EMBEDDED = re.compile(r"base64,[A-Za-z0-9+/=]+")


def outputs(cell) -> list:
    """The outputs of a cell; a markdown cell has none."""
    return cell.get("outputs", [])


def tidy(cell) -> None:
    """Remove what differs from run to run and says nothing to a reader."""
    cell.metadata.pop("execution", None)


def problems_of(cell) -> list[str]:
    """Why the outputs of a cell may not be published, one line each."""
    found = []
    for output in outputs(cell):
        data = output.get("data", {})
        if output.get("name") == "stderr":
            found.append(f"stderr: {' '.join(output.text.split())[-200:]}")
        found += [f"a widget ({kind}), which a reader sees frozen" for kind in data if "widget-view" in kind]
        if any(kind.startswith("image/") for kind in data):
            found.append(f"a picture without alt text, {data.get('text/plain', '')}: use show(figure, alt=...)")
        texts = [output.get("text", ""), *(text for kind, text in data.items() if kind.startswith("text/"))]
        found += [trace for text in texts for trace in local_traces(EMBEDDED.sub("", text))]
    passed = any(output.get("text", "").startswith("PASS ") for output in outputs(cell))
    if keys(cell).get("role") == "check" and not passed:
        said = " ".join(output.get("text", "").strip() for output in outputs(cell))
        found.append(f"the solution does not pass its check: {said or 'no output'}")
    return [f"cell {cell.id}: {problem}" for problem in dict.fromkeys(found)]


def local_traces(text: str) -> list[str]:
    """Paths and addresses in a text: they belong to one machine and one run."""
    paths = [f"an absolute path, {match.group()!r}" for match in LOCAL_PATH.finditer(text)]
    return paths + [f"the address of an object, {match.group()}" for match in ADDRESS.finditer(text)]


def size_problems(full) -> list[str]:
    """Whether the pictures of a notebook are too large to keep under version control."""
    shown = [output.get("data", {}).get("text/html", "") for cell in full.cells for output in outputs(cell)]
    total = sum(len(picture) for text in shown for picture in EMBEDDED.findall(text))
    return [f"pictures of {total:,} bytes, at most {FIGURE_BYTES:,}"] if total > FIGURE_BYTES else []
