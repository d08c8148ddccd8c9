"""The house rules, read from the imports: who may import whom, and which library lives in which room."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ptlearn

PACKAGE = Path(ptlearn.__file__).parent
ROOT = PACKAGE.parent
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "checks" not in path.relative_to(PACKAGE).parts[:-1])
NAMES = [path.relative_to(PACKAGE).as_posix() for path in FILES]
EVERY_FILE = pytest.mark.parametrize("name", NAMES)

IDEAS = {
    *(
        "rollout",
        "policy_gradient",
        "mdp",
        "gridworld",
        "collection",
        "policies",
        "text",
        "text_collection",
        "enumeration",
        "chat",
        "decoding",
        "prompting",
        "tasks",
        "synthetic",
    ),
    *("parameter_efficient", "wrappers", "adapter_files", "memory"),
    *("preferences", "checkpoints", "training", "models", "figures"),
}
ROOMS = IDEAS | {"__init__", "__main__", "pocket", "course"}
OWNERS = {  # the files that may import a library; no other file of the package does
    "gymnasium": {"gridworld.py", "collection.py"},
    "transformers": {"models.py", "decoding.py", "pocket/pretrain.py"},
    "peft": set(),
    "rouge_score": {"prompting.py", "synthetic.py"},
    "accelerate": set(),
    "datasets": set(),
    "pickle": set(),
}


def imports(path: Path) -> set[str]:
    """The dotted names of everything a file imports, also inside its functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: a relative import hides where a name lives"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own(name: str) -> set[str]:
    """The parts of this package that a file imports: module or wing names."""
    return {
        parts[1]
        for parts in (found.split(".") for found in imports(PACKAGE / name))
        if parts[:1] == ["ptlearn"] and parts[1:]
    }


def test_every_file_has_a_room():
    assert {Path(name).parts[0].removesuffix(".py") for name in NAMES} <= ROOMS


@EVERY_FILE
def test_a_library_is_imported_in_its_room_only(name):
    used = {found.partition(".")[0] for found in imports(PACKAGE / name)}
    assert {library for library in used & set(OWNERS) if name not in OWNERS[library]} == set()


@EVERY_FILE
def test_ideas_know_neither_the_classroom_nor_a_test(name):
    if Path(name).stem in IDEAS or name.startswith("pocket/"):
        assert "course" not in own(name)
    assert not any(found.partition(".")[0] in {"tests", "benchmarks", "lessons"} for found in imports(PACKAGE / name))


def test_imports_run_one_way():
    allowed = {"rollout.py": set(), "policy_gradient.py": {"rollout"}}
    for name in set(NAMES) & set(allowed):
        assert own(name) <= allowed[name]
        assert {found.partition(".")[0] for found in imports(PACKAGE / name)} <= {
            "torch",
            "ptlearn",
            *sys.stdlib_module_names,
        }
    worlds = IDEAS - {"training", "preferences", "figures"}
    assert [name for name in NAMES if Path(name).stem in worlds and "training" in own(name)] == []


def test_imports_of_ideas_have_no_circle():
    graph = {name.removesuffix(".py"): own(name) & IDEAS for name in NAMES if name.removesuffix(".py") in IDEAS}
    while graph:
        free = [name for name, needs in graph.items() if not needs & set(graph)]
        assert free, f"a circle among {sorted(graph)}"
        for name in free:
            del graph[name]


def test_the_package_and_the_classroom_load_no_model_library():
    heavy = "{'torch', 'transformers', 'gymnasium', 'matplotlib', 'numpy', 'IPython'}"
    for module in ("ptlearn", "ptlearn.course", "ptlearn.course.cli"):
        code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert run.stdout == "[]\n", module


def test_lessons_run_without_a_notebook():
    for path in sorted(Path(ROOT, "lessons").glob("*.py")):
        assert not {found for found in imports(path) if found.partition(".")[0] in {"IPython", "ipywidgets", "tqdm"}}, (
            path.name
        )


def test_no_code_is_loaded_that_came_with_data():
    for path in [*FILES, *Path(ROOT, "lessons").glob("*.py")]:
        options = [
            node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.keyword)
        ]
        trusting = [option for option in options if option.arg == "trust_remote_code"]
        assert not any(getattr(option.value, "value", True) for option in trusting), path.name
