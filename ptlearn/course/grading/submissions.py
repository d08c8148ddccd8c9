"""What students handed in: one notebook, a folder or a zip of them; whose each is; and the instructor's tables.

A zip is read, never unpacked: nothing that it names is ever written.
"""

import csv
import json
import re
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ptlearn.course.grading.merge import LARGEST
from ptlearn.course.grading.record import Marks

MOST_FILES = 5_000  # of a zip
MOST_BYTES = 2 << 30  # that the notebooks of a zip may hold
MOODLE = re.compile(r"(.+?)_\d+_assignsubmission")  # the folder of one student in its download of all
CANVAS = re.compile(r"([^_]+)_(?:LATE_)?\d+_\d+_")
LESSON = re.compile(r"\d\d_[a-z0-9_]+?(?:[ ._-]?\(?\d*\)?)?(?:-merged)?")  # a file that is called like its lesson
FILES = ("file", "submission")  # columns of a roster that tell whose a file is
PEOPLE = ("student", "name", "email", "email address", "id", "id number", "sis login id", "sis user id")


@dataclass(frozen=True)
class Submission:
    """A notebook that was handed in: where it stood, its bytes, and whose it is."""

    name: str
    data: bytes
    student: str


def collect(paths: list[str], roster: list[dict] | None = None) -> tuple[list[Submission], list[Marks]]:
    """Every notebook under the paths, in order, and a record with its error for each that cannot be read.

    A path that is not there, or has no notebook, is such a record too.
    Raises: FileNotFoundError naming the first of them where no path has a notebook.
    """
    found, refused, nothing = [], [], []
    for path in map(Path, paths):
        one = list(files_of(path)) if path.exists() else []
        if not one:
            why = f"no notebook in {str(path)!r}" if path.exists() else f"no file or folder {str(path)!r}"
            nothing.append(Marks("", str(path), error=why))
        for name, data in one:
            student = known_student(roster or [], name) or student_of(name)
            if isinstance(data, bytes):
                found.append(Submission(name, data, student))
            else:
                refused.append(Marks(student, name, error=data))
    if nothing and not found and not refused:
        raise FileNotFoundError(f"submission: {nothing[0].error}")
    return found, refused + nothing


def files_of(path: Path) -> Iterator[tuple[str, bytes | str]]:
    """The notebooks of a path: a name, and the bytes, or why they are refused in one line."""
    if path.is_dir():
        for file in sorted(path.rglob("*.ipynb")):
            name = file.relative_to(path).as_posix()
            if hidden(name) or not file.is_file():
                continue
            inside = file.resolve().is_relative_to(path.resolve())
            yield name, read(file) if inside else "a link out of the folder"
    elif zipfile.is_zipfile(path):
        yield from files_of_zip(path)
    elif path.suffix == ".zip":
        yield path.name, "not a zip file"
    else:
        yield f"{path.absolute().parent.name}/{path.name}", read(path)


def read(file: Path) -> bytes | str:
    """The bytes of a file, or why there are none."""
    try:
        if file.stat().st_size > LARGEST:
            return f"{file.stat().st_size:,} bytes, at most {LARGEST:,}"
        return file.read_bytes()
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def files_of_zip(path: Path) -> Iterator[tuple[str, bytes | str]]:
    """The notebooks of a zip. What it says of its sizes is not believed: no more is read than may be."""
    left = MOST_BYTES
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len(members) > MOST_FILES:
            yield path.name, f"a zip of {len(members):,} files, at most {MOST_FILES:,}"
            return
        for member in members:
            name = PurePosixPath(member.filename.replace("\\", "/"))
            if name.suffix != ".ipynb" or hidden(str(name)):
                continue
            if name.is_absolute() or ".." in name.parts or re.match("[A-Za-z]:", str(name)):
                yield str(name), "a path out of the zip"
            elif stat.S_ISLNK(member.external_attr >> 16):
                yield str(name), "a link in a zip"
            else:
                data = read_member(archive, member, min(LARGEST, left))
                left -= len(data)
                yield str(name), data


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, most: int) -> bytes | str:
    """The bytes of a file in a zip, or why it is refused."""
    try:
        with archive.open(member) as file:
            data = file.read(most + 1)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError) as error:
        return f"cannot be read: {' '.join(str(error).split())}"
    return data if len(data) <= most else f"more than {most:,} bytes when unpacked"


def hidden(name: str) -> bool:
    """Whether a file is one that systems leave beside others, such as a checkpoint."""
    return any(part.startswith((".", "__MACOSX")) and part != ".." for part in PurePosixPath(name).parts)


def student_of(name: str) -> str:
    """Whose a file is, from its name as Moodle or Canvas gives it, or of its folder where it is called like the lesson.

    >>> student_of("Ada Lovelace_123_assignsubmission_file/08_reinforce.ipynb"), student_of("lovelaceada_1_2_08.ipynb")
    ('Ada Lovelace', 'lovelaceada')
    >>> student_of("ada/08_reinforce.ipynb"), student_of("week 8/ada.ipynb")
    ('ada', 'ada')
    """
    path = PurePosixPath(name)
    for part in path.parts[:-1]:
        if found := MOODLE.match(part):
            return found[1]
    if found := CANVAS.match(path.name):
        return found[1]
    return path.parent.name if LESSON.fullmatch(path.stem) and path.parent.name else path.stem


def read_roster(path: Path) -> list[dict]:
    """The rows of a table of students.

    Raises: FileNotFoundError; ValueError where it has no column that says who somebody is.
    """
    rows = list(csv.DictReader(text_of(path, "roster").splitlines()))
    columns = {str(name).strip().casefold() for row in rows for name in row}
    if not columns & {*FILES, *PEOPLE}:
        raise ValueError(
            f"roster: {path} has the columns {', '.join(sorted(columns)) or 'none'}; "
            f"expected one of {', '.join((*FILES, *PEOPLE))}"
        )
    return rows


def known_student(roster: list[dict], name: str) -> str:
    """The student whose row of the roster names the file; "" where none does."""
    for row in roster:
        lower = {str(column).strip().casefold(): str(value or "").strip() for column, value in row.items()}
        if any(lower.get(column) in (name, PurePosixPath(name).name) for column in FILES):
            return next((lower[column] for column in PEOPLE if lower.get(column)), "")
    return ""


def read_rubric(path: Path) -> dict[str, float]:
    """The points of exercises, {"8.1": 2}, where 0 leaves one out: a JSON object, or a CSV of exercise and points.

    Raises: FileNotFoundError; ValueError where it is neither.
    """
    text = text_of(path, "rubric")
    try:
        if path.suffix == ".json":
            table = json.loads(text).items()
        else:
            table = [(row["exercise"], row["points"]) for row in csv.DictReader(text.splitlines())]
        rubric = {str(number).strip(): float(points) for number, points in table}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f'rubric: {path} is neither {{"8.1": 2}} as .json nor a CSV of exercise,points') from None
    for number, points in rubric.items():
        if not (re.fullmatch(r"\d\d?\.\d+", number) and 0 <= points < 1e6):
            raise ValueError(f"rubric: {number!r}: {points}; expected an exercise such as 8.1 and points from 0 on")
    return {number: int(points) if points == int(points) else points for number, points in rubric.items()}


def text_of(path: Path, name: str) -> str:
    """The text of an instructor's file. Raises: FileNotFoundError or ValueError naming it."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{name}: {path} is not UTF-8 text") from None
    except OSError as error:
        raise FileNotFoundError(f"{name}: {path}: {error.strerror}") from None
