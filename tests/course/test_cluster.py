"""Grading on a cluster: every submission once, whatever happens to the workers."""

import os
import signal

import pytest
from distributed import LocalCluster

from ptlearn.course.grading import cluster
from ptlearn.course.grading.cluster import grade_on
from ptlearn.course.grading.record import ExerciseMark, Marks


@pytest.fixture(scope="module")
def two_workers():
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as local:
        yield local.scheduler_address


def test_every_submission_is_graded_once_though_a_worker_is_killed(two_workers, tmp_path):
    died = tmp_path / "died"

    def grade(task):
        if task == "3.ipynb" and not died.exists():
            died.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return Marks(f"Student {task[0]}", task, exercises=(ExerciseMark("8.1", int(task[0]), 9, "pass"),))

    tasks = [f"{place}.ipynb" for place in range(8)]
    graded = list(grade_on(two_workers, grade, tasks))
    assert died.exists()
    assert sorted(task for task, _ in graded) == tasks
    assert all(marks.submission == task and marks.points == int(task[0]) for task, marks in graded)


def test_a_task_that_raises_costs_no_other(two_workers):
    def grade(task):
        return [1 / task]

    graded = dict(grade_on(two_workers, grade, [0, 1, 2]))
    assert isinstance(graded.pop(0), ZeroDivisionError) and graded == {1: [1.0], 2: [0.5]}


def test_the_same_submission_twice_is_two_tasks(two_workers):
    assert list(grade_on(two_workers, str, [1, 1])) == [(1, "1"), (1, "1")]


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nowhere at all"])
def test_no_scheduler_is_one_line(address, monkeypatch):
    monkeypatch.setattr(cluster, "SECONDS", 0.5)
    with pytest.raises(ConnectionError) as refused:
        next(grade_on(address, str, [1]))
    assert repr(address) in str(refused.value) and "\n" not in str(refused.value)


def test_no_worker_is_one_line(monkeypatch):
    monkeypatch.setattr(cluster, "SECONDS", 0.5)
    with (
        LocalCluster(n_workers=0, dashboard_address=":0") as empty,
        pytest.raises(ConnectionError, match="no worker has joined .* --nthreads 1"),
    ):
        next(grade_on(empty.scheduler_address, str, [1]))
