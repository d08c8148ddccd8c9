"""Grading: `grade` is one function of a submission, a release and a seed; `grade_all` runs it over a class.

What was graded is kept beside the marks under a name made of all that decided it, and not graded again.
"""

import dataclasses
import functools
import hashlib
import json
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from ptlearn.course.build import serialized, write
from ptlearn.course.exercise import one_line
from ptlearn.course.grading import readable
from ptlearn.course.grading.merge import Release, lesson_of, load_release, merge, read_notebook, require_same_release
from ptlearn.course.grading.points import marks_of
from ptlearn.course.grading.record import Marks, from_json, to_json
from ptlearn.course.grading.sandbox import PACKAGE, way
from ptlearn.course.grading.submissions import Submission
from ptlearn.course.lesson import ROOT

KEPT = "graded"  # the folder of what need not be graded again


@dataclass(frozen=True)
class Options:
    """How a class is graded.

    Args: release, a copy of the repository; lesson, the only one that is taken; rubric, {exercise: points}, 0 leaves
          one out; seed, of the secret cases, fresh ones by default; nbval, whether there is a readable run, of at most
          `limit` seconds; gpu, whether submissions may use one.
    """

    release: Path = ROOT
    lesson: int | None = None
    rubric: dict[str, float] = field(default_factory=dict)
    seed: int | None = None
    nbval: bool = True
    limit: float = readable.SECONDS
    gpu: bool = False


def grade(submission: Submission, seed: int, options: Options) -> Marks:
    """The marks of one submission; where it cannot be graded, the error in one line."""
    began, marks = time.monotonic(), Marks(submission.student, submission.name, seed=seed)
    try:
        package = "" if way()[1] else package_at_start()  # in namespaces nothing can write to it
        release, own = opened(submission, options)
        merged = merge(release, own)
        exercises = marks_of(release, merged, seed, options.rubric, options.gpu)
        seen = readable.read(merged.notebook, options.limit, options.gpu) if options.nbval else {}
        if package and package != digest_of(PACKAGE):
            raise ValueError(f"the course's files in {PACKAGE} have changed since grading began: install it anew")
    except (ValueError, OSError) as error:
        return dataclasses.replace(marks, error=one_line(str(error)))
    except Exception as error:  # whatever it is, the others are graded
        return dataclasses.replace(marks, error=one_line(f"{type(error).__name__}: {error}"))
    return dataclasses.replace(
        marks,
        lesson=release.stem,
        release=release.digest,
        notebook=hashlib.sha256(submission.data).hexdigest()[:16],
        exercises=tuple(exercises),
        flags=merged.flags,
        nbval=seen,
        seconds=round(time.monotonic() - began, 1),
    )


def digest_of(folder: Path) -> str:
    """A digest of every file under a folder but Python's caches: names and contents."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            found.update(f"{path.relative_to(folder)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()


@functools.cache
def package_at_start() -> str:
    """The digest of the installed course before this process grades anything."""
    return digest_of(PACKAGE)


def opened(submission: Submission, options: Options) -> tuple[Release, dict]:
    """A submission's release, and its notebook. Raises: ValueError or FileNotFoundError where they do not fit."""
    own = read_notebook(submission.data)
    lesson = lesson_of(own)
    if options.lesson is not None and lesson != options.lesson:
        raise ValueError(f"of lesson {lesson:02d}, expected {options.lesson:02d}")
    release = load_release(lesson, options.release)
    require_same_release(release, own)
    return release, own


def grade_all(submissions: list[Submission], options: Options, out: Path, jobs: int = 1, scheduler: str = ""):
    """Grade a class and yield each Marks as soon as it is there. Two submissions of one student are both refused."""
    tasks = []
    for submission, refused in zip(submissions, twice(submissions, options)):
        kept = kept_file(submission, options, out)
        if refused:
            yield Marks(submission.student, submission.name, error=refused)
        elif kept is not None and kept.exists():
            yield from_json(kept.read_text(encoding="utf-8"))
        else:
            seed = secrets.randbits(48) if options.seed is None else options.seed
            tasks.append((submission, seed, options))
    for task, marks in done(tasks, jobs, scheduler):
        if isinstance(marks, BaseException):
            marks = Marks(task[0].student, task[0].name, error=one_line(f"{type(marks).__name__}: {marks}"))
        kept = kept_file(task[0], options, out)
        if kept is not None and not marks.error:
            kept.parent.mkdir(parents=True, exist_ok=True)
            write(kept, to_json(marks))
        yield marks


def run(task: tuple) -> Marks:
    """`grade` of one argument, for other processes and machines."""
    return grade(*task)


def done(tasks: list, jobs: int, scheduler: str) -> Iterator[tuple]:
    """Every task with its marks, or with what was raised: here, in other processes, or on a cluster."""
    if scheduler:
        from ptlearn.course.grading.cluster import grade_on

        yield from grade_on(scheduler, run, tasks)
    elif jobs == 1:
        yield from ((task, run(task)) for task in tasks)
    else:
        with ProcessPoolExecutor(jobs) as pool:
            futures = {pool.submit(run, task): task for task in tasks}
            for future in as_completed(futures):
                yield futures[future], future.exception() or future.result()


def twice(submissions: list[Submission], options: Options) -> list[str]:
    """For each submission why it is refused: another one of the same student and lesson; "" where there is none."""
    owners = []
    for submission in submissions:
        try:
            owners.append((submission.student, opened(submission, options)[0].stem))
        except (ValueError, OSError):
            owners.append(None)
    return [
        f"{owner[0]} handed in {', '.join(s.name for s, o in zip(submissions, owners) if o == owner)}: keep one"
        if owner is not None and owners.count(owner) > 1
        else ""
        for owner in owners
    ]


def kept_file(submission: Submission, options: Options, out: Path) -> Path | None:
    """Where the marks of a submission are kept, under a name made of all that decides them."""
    try:
        release, _ = opened(submission, options)
    except (ValueError, OSError):
        return None
    decides = [submission.student, submission.name, release.digest, options.rubric, options.seed, options.nbval]
    decides += [options.limit, options.gpu]
    name = hashlib.sha256(submission.data + json.dumps(decides, sort_keys=True).encode()).hexdigest()[:32]
    return Path(out, KEPT, f"{name}.json")


def write_merged(submissions: list[Submission], options: Options, out: Path) -> Iterator[tuple[str, str]]:
    """Write each merged notebook: its path, or where it cannot be merged the submission's name and the error."""
    out.mkdir(parents=True, exist_ok=True)
    for submission in submissions:
        try:
            release, own = opened(submission, options)
        except (ValueError, OSError) as error:
            yield submission.name, one_line(str(error))
            continue
        student = "".join(letter if letter.isalnum() else "_" for letter in submission.student)
        path = out / f"{student}-{release.stem}.ipynb"
        write(path, serialized(merge(release, own).notebook))
        yield str(path), ""
