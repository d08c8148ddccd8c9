"""Datasets of the hub as files, with a library of our own in place of the network."""

import json
import sys
from types import SimpleNamespace

import pytest

from ptlearn.lm.chat import read_conversations
from ptlearn.lm.hub_data import local_file
from ptlearn.rl.tasks import read_gsm8k


class Rows(list):
    """What of a dataset is used: rows that can be written."""

    def to_json(self, path):
        path.write_text("".join(json.dumps(row) + "\n" for row in self), encoding="utf-8")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    asked = []

    def load_dataset(name, configuration, split):
        asked.append((name, configuration, split))
        if name == "openai/gsm8k":
            return Rows([{"question": "1 + 1?", "answer": "It is 2.\n#### 2"}])
        if name == "some/columns":
            return Rows([{"prompt": "Hello"}])
        raise ConnectionError("no such thing\nand much more")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    monkeypatch.setenv("PTLEARN_HOME", str(tmp_path))
    return asked


def test_a_dataset_is_fetched_once_and_read_as_a_file(hub):
    problems = read_gsm8k(local_file("openai/gsm8k:main", "test"))
    assert [(p.prompt, p.score("#### 2"), p.score("#### 3")) for p in problems] == [("1 + 1?", 1.0, 0.0)]
    assert local_file("openai/gsm8k:main", "test").name == "openai-gsm8k-main-test.jsonl"
    assert hub == [("openai/gsm8k", "main", "test")]


def test_a_missing_column_is_named_with_its_line(hub):
    with pytest.raises(ValueError, match=r"some-columns-train.jsonl, line 1: no instruction and no output"):
        read_conversations(local_file("some/columns"))


def test_what_cannot_be_reached_is_one_line_and_leaves_nothing(hub, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^cannot load 'no/body', split 'train', from the hub: no such thing$"):
        local_file("no/body")
    with pytest.raises(FileNotFoundError, match="no file 'data.jsonl'"):
        local_file("data.jsonl")
    assert not list(tmp_path.iterdir())


def test_a_file_is_itself(tmp_path):
    (tmp_path / "mine.jsonl").write_text("{}")
    assert local_file(tmp_path / "mine.jsonl") == tmp_path / "mine.jsonl"
