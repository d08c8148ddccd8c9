"""SHA256SUMS: what the files of a model's folder were when they were written, and which are not that any more."""

import hashlib
from pathlib import Path

SUMS = "SHA256SUMS"


def checksum(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_checksums(folder: Path) -> None:
    """Write SHA256SUMS for all other files of a folder, in the form of `sha256sum`."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != SUMS)
    lines = [f"{checksum(path)}  {path.name}\n" for path in files]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8", newline="\n")


def damaged_files(folder: Path) -> dict[Path, str]:
    """{file: what is wrong with it, to follow its name} of what SHA256SUMS names; of itself where it is missing."""
    sums, found = folder / SUMS, {}
    if not sums.is_file():
        return {sums: "is missing"}
    for line in sums.read_text(encoding="utf-8").splitlines():
        expected, _, name = line.partition(" ")
        path = folder / name.strip().lstrip("*")
        if not path.is_file():
            found[path] = f"is missing though {SUMS} names it"
        elif (actual := checksum(path)) != expected:
            found[path] = f"is damaged: its SHA-256 is {actual}, expected {expected}"
    return found
