"""What grading finds out about one submission, as plain data that every report is made from."""

import dataclasses
import json
from dataclasses import dataclass, field

STATUSES = ("pass", "part", "wrong", "todo", "error", "timeout", "missing", "crashed")


@dataclass(frozen=True)
class ExerciseMark:
    """One exercise of a submission.

    Args: status, one of STATUSES; diagnosis, one line, possibly empty; code, the student's source for it; score, where
          the scores of a class are compared.
    """

    exercise: str
    points: float
    maximum: float
    status: str
    diagnosis: str = ""
    seconds: float = 0.0
    code: str = ""
    score: float | None = None


@dataclass(frozen=True)
class Marks:
    """One graded submission; `error` is one line where it could not be graded at all, and then there are no exercises.

    Args: lesson, its file's stem ("08_reinforce"); release and notebook, digests of the released and the submitted
          notebook; flags, short facts an instructor may want to look at ("check 8.2 was edited"); nbval, the
          readable run: passed, failed and seconds, empty where it was not run.
    """

    student: str
    submission: str
    lesson: str = ""
    release: str = ""
    notebook: str = ""
    seed: int = 0
    exercises: tuple[ExerciseMark, ...] = ()
    flags: tuple[str, ...] = ()
    nbval: dict = field(default_factory=dict)
    seconds: float = 0.0
    error: str = ""

    @property
    def points(self) -> float:
        """The sum over exercises."""
        return sum(mark.points for mark in self.exercises)

    @property
    def maximum(self) -> float:
        """What full marks are."""
        return sum(mark.maximum for mark in self.exercises)


def to_json(marks: Marks) -> str:
    """The record as JSON text."""
    return json.dumps(dataclasses.asdict(marks), indent=1, sort_keys=True, ensure_ascii=False)


def from_json(text: str) -> Marks:
    """The record that `to_json` wrote.

    >>> mark = Marks("Ada", "ada.ipynb", exercises=(ExerciseMark("8.1", 1, 1, "pass"),))
    >>> from_json(to_json(mark)) == mark
    True
    """
    fields = json.loads(text)
    fields["exercises"] = tuple(ExerciseMark(**mark) for mark in fields["exercises"])
    return Marks(**fields | {"flags": tuple(fields["flags"])})
