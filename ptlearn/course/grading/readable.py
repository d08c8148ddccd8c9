"""The readable run: nbval on the merged notebook, confined. It makes no points, since a kernel can be patched."""

import sys
import time

from ptlearn.course.build import serialized
from ptlearn.course.grading.sandbox import Confined, Limits
from ptlearn.course.grading.talk import Lost, Talk

SECONDS = 300.0  # of a whole run, unless told otherwise
OPTIONS = ("--nbval-lax", "--nbval-current-env", "--noconftest", "-c", "/dev/null", "-p", "no:cacheprovider")


def read(notebook, seconds: float = SECONDS, gpu: bool = False) -> dict:
    """Run nbval on a merged notebook: {"passed", "failed", "seconds"}, and "stopped", why it did not come to its end.

    A cell counts as failed too when it was not reached.
    """
    began = time.monotonic()
    limits = Limits(seconds=int(seconds) + 10, gpu=gpu)
    command = [sys.executable, "-m", "pytest", "submission.ipynb", *OPTIONS, "-p", "ptlearn.course.grading.reader"]
    command += [f"--nbval-cell-timeout={int(seconds)}"]
    environment = {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "PYTHONHASHSEED": "0"}
    passed, stopped = set(), ""
    run = Talk(Confined(command, limits, environment, {"submission.ipynb": serialized(notebook).encode()}))
    try:
        while True:
            said = run.hear(began + seconds)
            stopped = str(said.get("stopped", stopped))
            passed |= {str(said["cell"])} if said.get("passed") is True and "cell" in said else set()
    except Lost as lost:
        stopped = stopped or (f"stopped after {seconds:.0f} s" if lost.args[0] == "timeout" else "")
    finally:
        run.end()
    cells = {cell.id for cell in notebook.cells if cell.cell_type == "code"}
    spent = round(time.monotonic() - began, 1)
    found = {"passed": len(passed & cells), "failed": len(cells - passed), "seconds": spent}
    return found | ({"stopped": stopped} if stopped else {})
