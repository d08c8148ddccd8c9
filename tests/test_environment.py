"""pip, conda and make install the same thing: ranges in pyproject.toml, exact versions in constraints.txt."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, metadata, packages_distributions, version

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import ptlearn
from ptlearn.course.lesson import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
RANGES = [Requirement(line) for line in PROJECT["dependencies"] + EXTRAS["notebooks"] + EXTRAS["dev"][1:]]
LINES = (line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#"))
PINS = {canonicalize_name(pin.name): pin for pin in map(Requirement, LINES)}
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())


def test_who_develops_has_what_the_notebooks_need():
    assert EXTRAS["dev"][0] == "ptlearn[notebooks]"


@pytest.mark.parametrize("wanted", RANGES, ids=str)
def test_every_requirement_is_pinned_inside_its_range(wanted):
    (pin,) = PINS[canonicalize_name(wanted.name)].specifier
    assert pin.operator == "==" and wanted.specifier.contains(pin.version)


@pytest.mark.parametrize("wanted", RANGES, ids=str)
def test_what_runs_here_is_in_range(wanted):
    assert wanted.specifier.contains(version(wanted.name))


def test_constraints_are_exact_and_belong_to_no_machine():
    assert next(iter(PINS)) == "torch"
    for pin in PINS.values():
        assert pin.url is None and re.fullmatch(r"==[\w.]+", str(pin.specifier)), f"{pin}: exact, without a local build"


def test_conda_brings_python_and_leaves_the_rest_to_pip():
    (pip,) = (entry["pip"] for entry in CONDA["dependencies"] if isinstance(entry, dict))
    assert pip == ["-c constraints.txt", "-e .[dev]"]
    names = [entry for entry in CONDA["dependencies"] if isinstance(entry, str)]
    assert [re.split("[=<>]", name)[0] for name in names] == ["python", "pip"]
    assert SpecifierSet(PROJECT["requires-python"]).contains(names[0].partition("=")[2])


def test_make_takes_torch_alone_from_another_index():
    makefile = (ROOT / "Makefile").read_text()
    installs = re.findall(r"pip install --no-compile -c constraints\.txt (.+)", makefile)
    assert installs == ["--no-deps --index-url $(TORCH_INDEX) torch)", "-e '.[dev]'"]


def test_every_pin_allows_the_oldest_python():
    oldest = "3.11.0"
    assert SpecifierSet(PROJECT["requires-python"]).contains(oldest)
    allowed = {pin: metadata(pin).get("Requires-Python", "") for pin in PINS if is_installed(pin)}
    assert len(allowed) > 100
    assert [pin for pin, wanted in allowed.items() if not SpecifierSet(wanted).contains(oldest)] == []


def is_installed(pin):
    """Whether the pinned version runs here: only then is its metadata at hand."""
    try:
        return PINS[pin].specifier.contains(version(pin).partition("+")[0])
    except PackageNotFoundError:
        return False


@pytest.mark.skipif(not shutil.which("make"), reason="make is not there")
def test_an_old_python_is_one_line_and_leaves_nothing_behind(tmp_path):
    old = tmp_path / "python3.9"
    old.write_text("#!/bin/sh\necho 'is 3.9.18'\n")
    old.chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # not within make test
    run = subprocess.run(["make", f"PYTHON={old}", "run"], cwd=tmp_path, env=outside, capture_output=True, text=True)
    assert run.returncode and run.stdout == "" and run.stderr.count("\n") == 1
    assert f"Python 3.11 or newer (on Debian with python3-venv): {old} is 3.9.18" in run.stderr
    assert not (tmp_path / ".venv").exists()


def test_everything_imported_is_declared():
    places = packages_distributions()
    declared = {canonicalize_name(wanted.name) for wanted in RANGES}
    for extra in ("gpu", "bench", "site-test"):
        declared |= {canonicalize_name(Requirement(line).name) for line in PROJECT["optional-dependencies"][extra]}
    for path in [*ROOT.glob("ptlearn/**/*.py"), *ROOT.glob("lessons/*.py"), *ROOT.glob("tests/**/*.py")]:
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
        # triton comes with a torch for GPUs, vllm is brought by who wants it
        ours = {"ptlearn", "IPython", "triton", "vllm"}
        tops = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - ours
        beside = (path.parent, ROOT / "tests", ROOT / "benchmarks" / "gpu", ROOT / "docs" / "site")
        tops -= {sibling.stem for folder in beside for sibling in folder.glob("*.py")}
        missing = {top for top in tops if not {canonicalize_name(name) for name in places.get(top, [top])} & declared}
        assert not missing, f"{path.relative_to(ROOT)} imports {missing}, which pyproject.toml does not name"


def test_the_tested_pythons_are_those_that_the_package_names():
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    named = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if ":: 3." in line]
    assert workflow["jobs"]["systems"]["strategy"]["matrix"]["python"] == named


def test_the_citation_and_the_package_are_of_one_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (cited["version"], cited["license"]) == (ptlearn.__version__, PROJECT["license"])
