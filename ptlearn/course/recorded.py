"""Runs on larger machines, recorded once and shown beside what a student's own machine does.

A lesson writes one with `--record FILE`; those that ship lie in `recorded/`, one file a run, named after the lesson.
Order: record, recorded_runs.
"""

import json
import platform
import sys
from pathlib import Path

from ptlearn.processes import rank, size

FOLDER = Path(__file__).with_name("recorded")


def record(path: str | Path, device, numbers: dict, curves: dict) -> None:
    """Write what a run measured, with its hardware and its command; on several processes the first one does."""
    import torch

    if rank():
        return
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    script = Path(sys.argv[0])
    told = {
        "title": f"{size()} x {card}",
        "command": " ".join(["python", f"{script.parent.name}/{script.name}", *sys.argv[1:]]),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "numbers": numbers,
        "curves": curves,
    }
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def recorded_runs(lesson: str, folder: Path = FOLDER) -> list[dict]:
    """The runs of a lesson that ship with the course, by name; none where nothing was measured yet.

    >>> recorded_runs("99_no_lesson")
    []
    """
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob(f"{lesson}*.json"))]
