"""`pytest --nbval solutions/` runs a solution as the builder ran it, so that its outputs can be compared.

The kernel gets the builder's environment (threads, hashes, no bars, no personal start-up files) and this Python; what a
machine decides, such as seconds, is replaced by `sanitize.cfg` before it is compared.
"""

import os
import tempfile
from pathlib import Path
from unittest import mock

import pytest

from ptlearn.course.build import environment

START_UP = tempfile.TemporaryDirectory()


def pytest_configure(config):
    config.option.nbval_current_env = True  # a kernel of the same name may belong to another project
    config.option.nbval_sanitize_with = config.option.nbval_sanitize_with or str(Path(__file__).with_name("sanitize.cfg"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    with mock.patch.dict(os.environ, environment(START_UP.name)):  # nbval starts the kernel before the first cell
        return (yield)
