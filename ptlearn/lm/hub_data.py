"""A dataset of the hub as a file of JSON objects, so that it is read and refused as any file is."""

from __future__ import annotations

import os
import re
from pathlib import Path
from uuid import uuid4

from ptlearn.lm.real_model import home

_ID = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")


def local_file(source: str | os.PathLike, split: str = "train") -> Path:
    """The file itself; or a dataset of the hub, fetched once and written into the cache, one JSON object a line.

    Args:   source, a path, or a hub id such as "openai/gsm8k:main", with its configuration behind a colon; split.
    Raises: FileNotFoundError for a file that is not there, and for a hub or dataset that cannot be reached;
            ModuleNotFoundError without the package `datasets` (extra gpu).
    """
    source = os.fspath(source)
    if Path(source).is_file():
        return Path(source)
    if not _ID.fullmatch(source):
        raise FileNotFoundError(f"no file {source!r}: expected JSON objects, one a line, or a dataset owner/name")
    file = home() / "data" / f"{re.sub('[/:]', '-', source)}-{split}.jsonl"
    if not file.is_file():
        rows = _load(source, split)
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f"{file.name}.{uuid4().hex}.partial")
        try:
            rows.to_json(partial)
            os.replace(partial, file)
        finally:
            partial.unlink(missing_ok=True)
    return file


def _load(source: str, split: str):
    import datasets

    name, _, configuration = source.partition(":")
    try:
        return datasets.load_dataset(name, configuration or None, split=split)
    except Exception as error:  # the library raises a kind of its own for each way to fail
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise FileNotFoundError(f"cannot load {source!r}, split {split!r}, from the hub: {reason}") from error
