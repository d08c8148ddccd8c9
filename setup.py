"""The package, and inside it what lies beside it in the repository: lessons, notebooks, the pages these link to."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

MATERIAL = {"lessons": "*.py", "notebooks": "*.ipynb", "docs": "claims.md", "docs/interactive": "*.html"}


class BuildWithMaterial(build_py):
    """What `build_py` does; and for a wheel, which goes where there is no repository, the course's own files."""

    def run(self):
        super().run()
        for folder, kind in MATERIAL.items() if not self.editable_mode else ():
            target = Path(self.build_lib, "ptlearn", "material", folder)
            target.mkdir(parents=True, exist_ok=True)
            for path in Path(folder).glob(kind):
                shutil.copy2(path, target)


setup(cmdclass={"build_py": BuildWithMaterial})
