"""Run every benchmark and write docs/benchmarks.md: one table of ratios, then what each script printed.

    python benchmarks/report.py [collection generation ...]      # all of them: an hour; a script alone: its row anew

A script prints lines "ratio: what | beside whom | how many times as long they take"; the table is made of them.
"""

import argparse
import os
import platform
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
PARTS = HERE.parent / "docs" / "benchmarks"  # what each script printed when it last ran
SCRIPTS = [path.stem for path in sorted(HERE.glob("*.py")) if path.stem != "report"]
BESIDE = ("torch", "numpy", "gymnasium", "transformers", "peft", "trl", "stable-baselines3")
THREADS = 2


def machine() -> str:
    """The processor, its cores and memory, and the versions that ran."""
    told = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    processor = re.search(r"model name\s*: (.*)", told)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else 0
    return (f"{processor.group(1) if processor else platform.processor()}, {os.cpu_count()} cores, {memory:.0f} GiB; "
            f"Python {platform.python_version()}; " + ", ".join(map(with_version, BESIDE)))  # fmt: skip


def with_version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} not installed"


def ran(script: str) -> str:
    """What a script prints, with its threads pinned; they wait as torch has them wait, so leave the cores to it."""
    pinned = {"OMP_NUM_THREADS": str(THREADS), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run([sys.executable, HERE / f"{script}.py"], env=os.environ | pinned, text=True, check=True,
                          stdout=subprocess.PIPE)  # fmt: skip
    return done.stdout


def ratios(text: str) -> list[tuple[str, str, float]]:
    """The lines of the table that a script gives.

    >>> ratios("ours 3 ms\\nratio: a step | a peer | 1.50\\n")
    [('a step', 'a peer', 1.5)]
    """
    rows = re.findall(r"^ratio: (.+?) \| (.+?) \| (\S+)$", text, re.MULTILINE)
    return [(what, beside, float(value)) for what, beside, value in rows]


def without_ratios(text: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("ratio: ")).strip()


def page(parts: dict[str, str]) -> str:
    """The page, from what each script printed."""
    rows = [row for text in parts.values() for row in ratios(text)]
    lines = [
        "# Benchmarks", "",
        "How many times as long others take for the same work, beside ours in one run, in turns; medians of at least",
        "five rounds unless a script says otherwise, in `lora.py` of the ratios within a round. Below 1 others are",
        "faster. Made by `make bench`; what each row does is told at the head of its script in `benchmarks/`.", "",
        "| what | beside | times as long |", "|---|---|---|",
        *(f"| {what} | {beside} | {value:g} |" for what, beside, value in rows), "",
    ]  # fmt: skip
    for script, text in parts.items():
        first, _, rest = text.partition("\n")
        body = without_ratios(rest)
        table = body if script == "growth" else f"```\n{body}\n```"
        lines += [f"## {script}.py", "", *head(script), "", f"*{first}*", "", table, ""]
    return "\n".join(lines)


def head(script: str) -> list[str]:
    """The first sentence of a script's docstring."""
    source = (HERE / f"{script}.py").read_text(encoding="utf-8")
    return [source.split('"""')[1].split("\n\n")[0].replace("\n", " ")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scripts", nargs="*", help=f"which of {', '.join(SCRIPTS)}; all by default")
    chosen = parser.parse_args().scripts or SCRIPTS
    if unknown := set(chosen) - set(SCRIPTS):
        parser.error(f"{', '.join(sorted(unknown))}: expected some of {', '.join(SCRIPTS)}")
    PARTS.mkdir(exist_ok=True)
    for script in chosen:
        (PARTS / f"{script}.txt").write_text(f"{machine()}\n{ran(script)}", encoding="utf-8")
        print(f"{script}: done", flush=True)
    kept = {path.stem: path.read_text(encoding="utf-8") for path in sorted(PARTS.glob("*.txt"))}
    PAGE.write_text(page(kept), encoding="utf-8")
    print(f"written: {PAGE.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
