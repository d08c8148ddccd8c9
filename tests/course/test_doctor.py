"""The screen of `ptlearn doctor`, for machines that are injected as facts."""

import re
import tomllib
from dataclasses import replace

import pytest

from ptlearn.course import cli, doctor
from ptlearn.course.doctor import GB, Device, Machine, changes, report, runs

LAPTOP = Machine(
    versions={"python": "3.12.1", "torch": "2.13.0+cpu", "transformers": "5.23.0", "ptlearn": "0.2.0"},
    processor="A processor",
    cores=2,
    cpu_bf16=False,
    devices=(),
    memory=6 * GB,
    cache="/home/ada/.cache/ptlearn",
    disk=50 * GB,
    threads=2,
    omp_num_threads=None,
    damaged=(),
    real_model=False,
    seconds=dict.fromkeys(range(14), 60),
)
H100 = Device("NVIDIA H100 80GB HBM3", 80 * GB, (9, 0))
SERVER = replace(
    LAPTOP,
    versions=LAPTOP.versions | {"accelerate": "1.15.0", "peft": "0.21.2"},
    cpu_bf16=True,
    devices=(H100,) * 8,
    real_model=True,
    seconds=dict.fromkeys(range(17), 60),
)


def row(machine: Machine, name: str) -> str:
    [found] = re.findall(rf"^{re.escape(name)} +(.+)$", report(machine), re.MULTILINE)
    return found


def test_two_cores_without_the_real_model():
    assert row(LAPTOP, "lessons 00–13") == "run, about 14 minutes in all on two cores, the longest 60 s"
    assert row(LAPTOP, "lesson 14") == "does not run yet"
    assert row(LAPTOP, "lessons 15–16") == "run with a pocket LM on the CPU, at full size with CUDA and .[gpu]"
    assert row(LAPTOP, "processor") == "A processor, 2 cores, bf16 slow"
    assert changes(LAPTOP) == ["ptlearn get smollm2-135m    (for lesson 14)"] and runs(LAPTOP)


def test_a_server_has_nothing_to_change():
    assert row(SERVER, "GPU") == "8 × NVIDIA H100 80GB HBM3, 80 GB, capability 9.0, bf16 native"
    assert row(SERVER, "lesson 14") == "runs, about 60 s on two cores"
    assert row(SERVER, "lessons 15–16").endswith("and at full size on the GPU")
    assert changes(SERVER) == [] and report(SERVER).endswith("what to change\n  nothing")
    assert "bf16 slow" in row(replace(SERVER, devices=(Device("Tesla T4", 16 * GB, (7, 5)),)), "GPU")
    assert row(replace(LAPTOP, devices=(Device("Apple GPU (mps)"),)), "GPU") == "1 × Apple GPU (mps)"


@pytest.mark.parametrize(
    "machine, line, lessons_run",
    [
        (replace(SERVER, memory=GB), "close other programs: 2 GB of free memory are wanted", False),
        (replace(SERVER, threads=64), "export OMP_NUM_THREADS=2    (64 threads share the cores)", True),
        (
            replace(SERVER, versions=SERVER.versions | {"torch": "2.3.1", "transformers": "4.57.0"}),
            "pip install -U 'torch>=2.4' 'transformers>=5.0'",
            False,
        ),
        (replace(SERVER, damaged=("pocket-m/config.json",)), "git checkout -- ptlearn/pocket/weights    (", False),
        (replace(SERVER, seconds={}), "cd into a copy of the repository and: pip install -e .    (14 lessons", False),
        (replace(SERVER, versions=LAPTOP.versions), "pip install -e '.[gpu]'    (for lessons 15 and 16", True),
        (replace(LAPTOP, disk=GB // 2), "export PTLEARN_HOME=FOLDER    (with 1 GB free", True),
    ],
)
def test_what_to_change(machine, line, lessons_run):
    assert changes(machine)[0].startswith(line) and runs(machine) == lessons_run
    assert ("do not run yet" in row(machine, "lessons 00–13")) == (not lessons_run)


def test_the_worst_machine_still_fits_a_screen():
    cards = tuple(Device(f"A card with a name of length {'x' * 90} {index}", GB, (7, 0)) for index in range(8))
    names = tuple(f"pocket-m/{index}.safetensors" for index in range(9))
    worst = replace(
        LAPTOP, versions={}, devices=cards, memory=0, disk=0, threads=64, damaged=names, seconds={}, cache="c" * 200
    )
    lines = report(worst).splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 95 and len(changes(worst)) == 5


def test_the_command_looks_and_its_code_says_whether_lessons_run(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PTLEARN_HOME", str(tmp_path / "not" / "there"))
    assert cli.main(["doctor"]) in (0, 1)  # whether 2 GB are free here is not this test's business
    out = capsys.readouterr().out
    assert re.search(r"^pocket models +all whole$", out, re.MULTILINE) and "not in the cache" in out
    assert f"free in {tmp_path}"[:40] in out and "what to change" in out
    for machine, code in ((LAPTOP, 0), (replace(LAPTOP, memory=GB), 1)):
        monkeypatch.setattr(doctor, "examine", lambda machine=machine: machine)
        assert cli.main(["doctor"]) == code


def test_every_lesson_says_how_long_it_runs_and_the_bounds_are_those_of_the_project():
    seconds = doctor.recorded_seconds()
    assert all(seconds[number] for number in doctor.EVERYWHERE) and seconds[0] == 100 and seconds[13] == 100
    project = tomllib.loads((doctor.WEIGHTS.parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for name, least in doctor.NEEDED.items():
        [bound] = re.findall(rf"^{name}>=([\d.]+)", "\n".join(project["dependencies"]), re.MULTILINE)
        assert (doctor.release(bound) + (0,))[:2] == least
