"""What the commands `grade`, `check` and `progress` print: a line per submission, per exercise, per notebook."""

import argparse
import difflib
import secrets
import sys
from pathlib import Path

from ptlearn.course.grading import grade as grading
from ptlearn.course.grading.grade import Options
from ptlearn.course.grading.merge import lesson_of, load_release, read_notebook
from ptlearn.course.grading.record import Marks
from ptlearn.course.grading.sandbox import weakness
from ptlearn.course.grading.submissions import collect, read_roster, read_rubric
from ptlearn.course.lesson import PLACE, ROOT, remarks

MOST_FAILED = 100  # that an exit code tells


def grade_class(options: argparse.Namespace) -> int:
    """Grade, print progress, write the reports; the number of submissions that failed, at most MOST_FAILED."""
    if options.jobs < 1:
        raise ValueError(f"--jobs {options.jobs}: expected at least 1")
    roster = read_roster(Path(options.roster)) if options.roster else None
    chosen = Options(
        release=Path(options.release).resolve() if options.release else ROOT,
        lesson=options.lesson,
        rubric=read_rubric(Path(options.rubric)) if options.rubric else {},
        seed=options.seed,
        nbval=not options.no_nbval,
        limit=options.limit,
        gpu=options.gpu,
    )
    require_known(chosen.rubric, chosen.release)
    found, failed = collect(options.submission, roster)
    out = Path(options.out)
    if options.merge_only:
        written = list(grading.write_merged(found, chosen, out))
        print("\n".join(path for path, error in written if not error))
        return complain([*failed, *(Marks("", name, error=error) for name, error in written if error)])
    if weakness():
        print(f"ptlearn: {weakness()}", file=sys.stderr)
    complain(failed)
    done = list(failed)
    for marks in grading.grade_all(found, chosen, out, options.jobs, options.scheduler):
        done.append(marks)
        print(f"[{len(done)}/{len(found) + len(failed)}] {marks.student}: {said(marks)}", flush=True)
        complain([marks])
    from ptlearn.course.grading.reports import write_reports

    write_reports(sorted(done, key=lambda marks: (marks.lesson, marks.student)), out, roster=roster)
    return min(sum(bool(marks.error) for marks in done), MOST_FAILED)


def require_known(rubric: dict[str, float], release: Path) -> None:
    """Refuse a rubric with an exercise that no lesson of the release has. Raises: ValueError naming the first one."""
    for number in rubric:
        try:
            cells = load_release(int(number.partition(".")[0]), release).blank.cells
        except FileNotFoundError:
            cells = []
        if number not in {remarks(cell).get("ex") for cell in cells}:
            raise ValueError(f"rubric: {number}: expected exercises of the lessons in {release / 'notebooks'}")


def complain(marks: list[Marks]) -> int:
    """One line on standard error per submission that failed; how many, at most MOST_FAILED."""
    failed = [one for one in marks if one.error]
    for one in failed:
        print(f"ptlearn: {one.submission}: {one.error}", file=sys.stderr)
    return min(len(failed), MOST_FAILED)


def said(marks: Marks) -> str:
    """A submission in a line."""
    if marks.error:
        return "not graded"
    others = [f"{mark.exercise} {mark.status}" for mark in marks.exercises if mark.status != "pass"]
    return f"{marks.lesson} {marks.points:g} of {marks.maximum:g}" + (f" ({', '.join(others)})" if others else "")


def check_notebook(path: str) -> int:
    """Grade one notebook and print a line per exercise and the sum; 0 where everything passes, else 1."""
    path = own_notebook(path)
    found, failed = collect([path])
    if len(found) != 1:
        why = f"{failed[0].submission}: {failed[0].error}" if failed else f"{path} holds {len(found)}, expected one"
        raise ValueError(f"notebook: {why}")
    marks = grading.grade(found[0], secrets.randbits(48), Options(nbval=False))
    if marks.error:
        raise ValueError(f"notebook: {path}: {marks.error}")
    for mark in marks.exercises:
        print(f"{mark.status.upper():8}{mark.exercise}" + (f": {mark.diagnosis}" if mark.diagnosis else ""))
    print(f"{marks.lesson}: {marks.points:g} of {marks.maximum:g} points")
    return int(marks.points < marks.maximum)


def own_notebook(path: str) -> str:
    """The path where it is there; else the student's copy of the lesson that it names, by number or name.

    Raises: ValueError where there is neither, with the nearest name.
    """
    if Path(path).exists():
        return path
    copies, asked = sorted(Path(PLACE, "work").glob("*.ipynb")), Path(path).stem
    for copy in copies:
        if asked in (copy.stem, copy.stem[:2], copy.stem[:2].removeprefix("0")):
            return str(copy)
    near = difflib.get_close_matches(asked, [copy.stem for copy in copies], 1)
    raise ValueError(f"notebook: no file {path!r}" + (f"; did you mean {near[0]}?" if near else ""))


def progress_of(folder: str | None = None, run: bool = False) -> int:
    """Print which exercises pass in each notebook of a folder: as its outputs say, or with `run` by running them.

    Without a folder it is `work/`, here or where `ptlearn copy` makes it.
    """
    if folder is None:
        folder = "work" if Path("work").is_dir() else str(Path(PLACE, "work"))
        if not Path(folder).is_dir():
            raise ValueError("no folder work yet: `ptlearn copy` makes it, with a notebook per lesson")
    found, failed = collect([folder])
    for submission in found:
        try:
            if run:
                marks = grading.grade(submission, secrets.randbits(48), Options(nbval=False))
                if marks.error:
                    raise ValueError(marks.error)
                says = {mark.exercise: "PASS" if mark.status == "pass" else mark.status for mark in marks.exercises}
            else:
                says = shown(read_notebook(submission.data))
                lesson_of(read_notebook(submission.data))
        except ValueError as error:
            failed.append(Marks("", submission.name, error=str(error)))
            continue
        passed = [number for number, word in says.items() if word == "PASS"]
        others = ", ".join(f"{number} {word}" for number, word in says.items() if word != "PASS")
        print(f"{submission.name}: {len(passed)} of {len(says)} pass" + (f" ({others})" if others else ""))
    return complain(failed)


def shown(own) -> dict[str, str]:
    """{exercise: the word its check last printed}, "not run" where there is none."""
    found = {}
    for cell in own.cells:
        if remarks(cell).get("role") == "check" and "ex" in remarks(cell):
            texts = [output.get("text", "") for output in cell.get("outputs", []) if isinstance(output, dict)]
            words = "".join(line if isinstance(line, str) else "".join(line) for line in texts).split()
            known = words and words[0] in ("PASS", "PART", "FAIL", "TODO")
            found[remarks(cell)["ex"]] = words[0] if known else "not run"
    return found
