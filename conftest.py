"""`pytest --nbval solutions/` runs a solution as the builder ran it, so that its outputs can be compared.

The kernel gets the builder's environment (threads, hashes, no bars, no personal start-up files) and this Python; what
a clock decides is replaced as `solutions/sanitize.cfg` says before it is compared. `--nbval-lax` compares the lines of
the checks alone, and leaves the environment, with its number of threads, to the caller.

It stands here since the tests import `conftest` by name: one in solutions/ would be loaded after theirs.
"""

import contextlib
import os
import tempfile
from pathlib import Path
from unittest import mock

import pytest

from ptlearn.course.build import environment

SANITIZE = Path(__file__).parent / "solutions" / "sanitize.cfg"
START_UP = tempfile.TemporaryDirectory()


def pytest_configure(config):
    config.option.nbval_current_env = True  # a kernel of the same name may belong to another project
    config.option.nbval_sanitize_with = config.option.nbval_sanitize_with or str(SANITIZE)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    strict = item.config.option.nbval and item.path.suffix == ".ipynb"
    with mock.patch.dict(os.environ, environment(START_UP.name)) if strict else contextlib.nullcontext():
        return (yield)  # nbval starts a notebook's kernel in the setup of its first cell
