"""The autograder of a lesson for Gradescope: one zip that holds two scripts and the course that they run.

`autograder/` beside this file holds the scripts: `setup.sh` installs, `run_autograder` grades one hand-in.
"""

import zipfile
from pathlib import Path

from ptlearn.course.lesson import ROOT, LessonError, lesson_files

SCRIPTS = Path(__file__).with_name("autograder")
COURSE = ("pyproject.toml", "constraints.txt", "README.md", "LICENSE")
DATE = (2020, 1, 1, 0, 0, 0)  # of every file, so that the same course gives the same zip


def autograder(lesson: str, out: Path | None = None, *, root: Path = ROOT) -> Path:
    """Write the zip that Gradescope's "Configure Autograder" takes, and return its path.

    Args:   lesson: its number, name or path; out: the file, `autograder-NN.zip` by default.
    Raises: LessonError where the repository lacks the lesson or one of its notebooks.
    """
    (path,) = lesson_files(root, [lesson])
    out = Path(out or f"autograder-{path.stem[:2]}.zip")
    files = {script.name: script for script in SCRIPTS.iterdir()}
    files |= {f"course/{name.relative_to(root).as_posix()}": name for name in course_files(path, root)}
    partial = out.with_name(f"{out.name}.partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            about = zipfile.ZipInfo(name, DATE)
            about.compress_type = zipfile.ZIP_DEFLATED
            about.create_system, about.external_attr = 3, (0o100644 if "/" in name else 0o100755) << 16  # of Unix
            archive.writestr(about, files[name].read_bytes())
    return partial.replace(out)


def course_files(lesson: Path, root: Path) -> list[Path]:
    """What grading this lesson takes: the package as source, the lesson and its two notebooks."""
    released = [lesson, *(root / folder / f"{lesson.stem}.ipynb" for folder in ("notebooks", "solutions"))]
    for path in released:
        if not path.is_file():
            raise LessonError(f"{path.relative_to(root)} is not there: python -m ptlearn build {lesson.stem[:2]}")
    package = [path for path in root.glob("ptlearn/**/*") if path.is_file() and "__pycache__" not in path.parts]
    return [*(root / name for name in COURSE), *released, *package]
