"""A pytest plugin for the readable run: what nbval says of each cell, told by the cell and not by its number.

It writes a line of JSON per cell to what was standard output. A kernel that has died ends the run at once, where nbval
would wait for the whole time limit of a cell.
"""

import json
import os
import threading
import time

from ptlearn.course.lesson import remarks

SECONDS = 0.5  # between two looks at the kernel
out = os.dup(1)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def say(**what) -> None:
    """Write one line."""
    os.write(out, json.dumps(what).encode() + b"\n")


def pytest_itemcollected(item):
    """Name the cell in its report."""
    item.user_properties += [("cell", item.cell.get("id", "")), ("exercise", remarks(item.cell).get("ex", ""))]


def pytest_runtest_call(item):
    """Watch the kernel, from the first cell on."""
    file = item.parent
    if file.kernel is not None and not getattr(file, "watched", False):
        file.watched = True
        threading.Thread(target=watch, args=(file.kernel.km.provisioner,), daemon=True).start()


def watch(provisioner) -> None:
    """End the run when the kernel has died."""
    process = provisioner.process
    while process.poll() is None:
        time.sleep(SECONDS)
    if provisioner.process is process:  # which it is no longer once the kernel was shut down
        say(stopped="the kernel died")
        os._exit(1)


def pytest_runtest_logreport(report):
    """A right cell behind one that ran out of time was expected to fail, and is passed all the same."""
    if report.when == "call":
        say(passed=report.outcome == "passed", **dict(report.user_properties))
