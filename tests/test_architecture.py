"""The house rules, read from the sources: who may import whom, which library lives in which room, how long things are.

Every rule is a function from sources to what breaks it, and is tried on a planted breach too.
"""

import ast
import functools
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import ptlearn

PACKAGE = Path(ptlearn.__file__).parent
ROOT = PACKAGE.parent
GROUND = ("rollout", "policy_gradient", "processes", "optimization", "checkpoints", "statistics", "figures")
WINGS = ("grid", "lm", "finetuning", "rl", "pocket", "course")  # from the ground up
OWNERS = {  # where a library may be imported in the package; nowhere else
    "gymnasium": ("grid/",),
    "transformers": ("lm/", "pocket/pretrain"),
    "gguf": ("lm/from_gguf", "lm/real_model"),
    "rouge_score": ("lm/prompting", "finetuning/synthetic"),
    "datasets": ("lm/hub_data",),
    **dict.fromkeys(("peft", "trl", "accelerate", "pickle"), ()),
}
LONGEST, MOST_PARAMETERS = 40, 8
Sources = dict[str, str]  # "grid/mdp": its text


def read(*patterns: str, base: Path = PACKAGE) -> Sources:
    paths = sorted(path for pattern in patterns for path in base.glob(pattern))
    return {path.relative_to(base).with_suffix("").as_posix(): path.read_text(encoding="utf-8") for path in paths}


HOUSE = read("**/*.py")
OUTSIDE = read("lessons/*.py", "benchmarks/*.py", base=ROOT)


@functools.cache  # a dozen rules read the same sources
def nodes(source: str) -> list[ast.AST]:
    return list(ast.walk(ast.parse(source)))


def imports(source: str) -> set[str]:
    """The dotted names of everything a file imports, also inside its functions."""
    found = set()
    for node in nodes(source):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import hides where a name lives"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def modules(source: str, sources: Sources) -> set[str]:
    """The files of the house that a file imports."""
    names = {name.removeprefix("ptlearn.").replace(".", "/") for name in imports(source) if name.startswith("ptlearn.")}
    return names & set(sources)


def storey(name: str) -> int:
    """0 on the ground floor, and from 1 on for the wings."""
    wing = name.partition("/")[0]
    return WINGS.index(wing) + 1 if wing in WINGS else 0


# ---------------------------------------------------------------- the rules


def up(sources: Sources) -> list[str]:
    """Imports of what is drawn above, a whole wing or a room of it."""
    return [
        f"{name} imports {other}"
        for name, source in sources.items()
        for other in sorted(imports(source))
        if other.startswith("ptlearn.") and storey(other.split(".")[1]) > storey(name) and not name.startswith("__")
    ]


def circle(sources: Sources) -> list[str]:
    """The first circle among the modules."""
    try:
        TopologicalSorter({name: modules(source, sources) - {name} for name, source in sources.items()}).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def private(sources: Sources) -> list[str]:
    """Names with an underscore that belong to another module."""
    found = []
    for name, source in sources.items():
        aliases = {
            alias.asname or alias.name
            for node in nodes(source)
            if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "ptlearn"
            or isinstance(node, ast.Import)
            for alias in node.names
            if isinstance(node, ast.ImportFrom) or alias.name.partition(".")[0] == "ptlearn"
        }
        looked_into = {
            ast.unparse(node)
            for node in nodes(source)
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) in aliases
        }
        for other in sorted(looked_into | {known for known in imports(source) if known.startswith("ptlearn.")}):
            last = other.rpartition(".")[2]
            if last.startswith("_") and not last.startswith("__"):
                found.append(f"{name} uses {other}")
    return found


def misplaced(sources: Sources) -> list[str]:
    """Libraries out of their room."""
    return [
        f"{name} imports {library}"
        for name, source in sources.items()
        for library in sorted({found.partition(".")[0] for found in imports(source)} & set(OWNERS))
        if not name.startswith(OWNERS[library] or ("nowhere",))
    ]


def too_large(sources: Sources) -> list[str]:
    """Functions of more lines of code, or more parameters without a default, than can be read at once."""
    found = []
    for name, source in sources.items():
        for node in nodes(source):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                given = node.args
                defaults = len(given.defaults) + sum(default is not None for default in given.kw_defaults)
                needed = len(given.posonlyargs + given.args + given.kwonlyargs) - defaults
                lines = code_lines(source, node)
                if lines > LONGEST or needed > MOST_PARAMETERS:
                    found.append(f"{name}: {node.name} has {lines} lines, {needed} parameters without a default")
    return found


def code_lines(source: str, function: ast.FunctionDef) -> int:
    """Lines that are neither blank nor comments nor docstrings."""
    documented = {
        line
        for node in ast.walk(function)
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node)
        for line in range(node.body[0].lineno, node.body[0].end_lineno + 1)
    }
    lines = enumerate(source.splitlines()[function.lineno - 1 : function.end_lineno], function.lineno)
    return sum(bool(text.strip()) and text.strip()[0] != "#" and number not in documented for number, text in lines)


# ---------------------------------------------------------------- kept, and their breaches seen

RECIPES = {"pocket/pretrain"}  # kept as the shipped weights were made
KERNELS = {"lm/decode_attention"}  # a kernel of Triton is given every address and every size by itself
TALL = "def f():\n" + "    x = 1\n\n" * LONGEST
RULES = {
    up: (
        HOUSE,
        {"grid/new": "def f():\n    from ptlearn.rl.tasks import Task\n"}, {"grid/new": "from ptlearn import rl"},
    ),
    circle: (HOUSE, {"rollout": "from ptlearn import figures", "figures": "from ptlearn.rollout import Rollout"}),
    private: (
        HOUSE | OUTSIDE, {"a": "from ptlearn.lm import text\ntext._find()"}, {"a": "from ptlearn.lm.text import _x"},
        {"a": "import ptlearn.lm.text as t\nt._find()"}, {"a": "import ptlearn.lm.text\nptlearn.lm.text._find()"},
    ),
    misplaced: (HOUSE, {"rl/new": "import gymnasium"}, {"lm/new": "from peft import LoraConfig"}),
    too_large: (
        {name: text for name, text in HOUSE.items() if storey(name) < len(WINGS) and name not in RECIPES | KERNELS},
        {"grid/new": TALL}, {"grid/new": f"def f(a, {', '.join(f'x{i}' for i in range(MOST_PARAMETERS))}, b=1): ..."},
    ),
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_rule_is_kept_and_sees_its_breach(rule):
    house, *breaches = RULES[rule]
    assert rule(house) == []
    assert all(rule(breach) for breach in breaches)


def test_every_file_has_a_room():
    tops = {name.partition("/")[0] for name in HOUSE}
    assert tops == {*GROUND, *WINGS, "__init__", "__main__"}
    insides = {f"{wing}/__init__" for wing in (*WINGS, "course/checks", "course/grading")}
    assert {name for name in HOUSE if name.endswith("/__init__")} == insides


@pytest.mark.parametrize("wing", WINGS)
def test_a_wing_has_a_map_of_its_rooms_and_re_exports_nothing(wing):
    tree = ast.parse(HOUSE[f"{wing}/__init__"])
    rooms = {name.partition("/")[2] for name in HOUSE if name.startswith(f"{wing}/") and name.count("/") == 1}
    assert len(tree.body) == 1
    assert [room for room in sorted(rooms - {"__init__"}) if room not in ast.get_docstring(tree)] == []


def test_the_tests_mirror_the_wings():
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and any(path.glob("test_*.py"))}
    assert folders == set(WINGS)


def test_the_ground_floor_and_the_grid_load_no_model_library():
    heavy = "{'torch', 'transformers', 'gymnasium', 'matplotlib', 'numpy', 'IPython'}"
    for modules, allowed in {
        "ptlearn, ptlearn.course, ptlearn.course.cli": set(),
        "ptlearn.rl.training, ptlearn.grid.mdp": {"numpy", "torch"},
        "ptlearn.grid.collection": {"gymnasium", "numpy", "torch"},
        "ptlearn.statistics": {"numpy"},
        "ptlearn.figures": {"matplotlib", "numpy", "torch"},
    }.items():
        code = f"import sys, {modules}; print(sorted({heavy} & set(sys.modules)))"
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert set(ast.literal_eval(run.stdout)) <= allowed, modules


def test_the_house_knows_no_test_and_lessons_run_without_a_notebook():
    for name, source in HOUSE.items():
        assert not {found.partition(".")[0] for found in imports(source)} & {"tests", "benchmarks", "lessons"}, name
    for name, source in OUTSIDE.items():
        assert not {found.partition(".")[0] for found in imports(source)} & {"IPython", "ipywidgets", "tqdm"}, name


def test_no_code_is_loaded_that_came_with_data():
    for name, source in (HOUSE | OUTSIDE).items():
        options = [node for node in nodes(source) if isinstance(node, ast.keyword)]
        trusting = [option for option in options if option.arg == "trust_remote_code"]
        assert not any(getattr(option.value, "value", True) for option in trusting), name
