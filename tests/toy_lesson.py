"""A lesson with two exercises and a check file of its own, for the tests of the classroom."""

from pathlib import Path

CHECKS = """
from ptlearn.course.exercise import Exercise


def double(values):
    return [2 * value for value in values]


EXERCISES = {
    "99.1": Exercise(
        cases=lambda rng: [{"values": [rng.random() for _ in range(3)]} for _ in range(2)],
        drive=lambda answer, case: answer(case["values"]),
        expect=lambda case: (
            [value + value for value in case["values"]], {"the values come back unchanged": case["values"]}
        ),
        points=2,
        reference=double,
        signature="double(values: list) -> list of number",
    ),
    "99.2": Exercise(
        cases=lambda rng: [None],
        drive=lambda answer, case: len(answer),
        expect=lambda case: (3, {"two prompts, not three": 2}),
        points=1,
        reference=["one", "two", "three"],
    ),
}
"""

LESSON = '''# A lesson for the tests.

# %% [markdown]
# # 99 · A toy: doubling
# In this lesson nothing is learned *(claims C01–C02)*. About 7 minutes.

# %%
import ptlearn.course.checks as checks
checks.__path__.append("CHECKS_FOLDER")
from ptlearn.course.exercise import check
from ptlearn.course.session import arguments
options = arguments("A toy.", model=("pocket-m", "the model"), seed=0)
print(options.model)

# %% ex="99.1" points=2 minutes=5 difficulty="easy"
def double(values):
    """Twice each value."""
    # BEGIN SOLUTION
    secret_of_the_solution = [value + value for value in values]
    return secret_of_the_solution
    # END SOLUTION

# %% ex="99.1" role="check"
double = check("99.1", double)

# %% [markdown] ex="99.1" role="hints"
# <details><summary>Hint 1</summary>Add.</details>
# <details><summary>Hint 2</summary>Multiply.</details>

# %% ex="99.2" points=1 minutes=1 difficulty="hard"
# BEGIN SOLUTION
prompts = ["first secret prompt", "second secret prompt", "third"]
# END SOLUTION

# %% ex="99.2" role="check"
prompts = check("99.2", prompts)

# %% [markdown] ex="99.2" role="hints"
# <details><summary>Hint 1</summary>Three.</details>
# <details><summary>Hint 2</summary>Not two.</details>

# %%
print(double([1, 2]), len(prompts))

# %%
EXTRA
'''


def write_lesson(root: Path, extra: str = "print(len(prompts))") -> Path:
    """A course in `root` with the toy lesson, which ends on the `extra` code, and its checks."""
    checks = root / "checks"
    for folder in (root / "lessons", checks):
        folder.mkdir(exist_ok=True)
    (checks / "99_toy.py").write_text(CHECKS)
    path = root / "lessons" / "99_toy.py"
    path.write_text(LESSON.replace("CHECKS_FOLDER", str(checks)).replace("EXTRA", extra))
    return path
