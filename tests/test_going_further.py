"""docs/going_further.md shows the tables of its script, and the script's arithmetic holds where a hand can follow."""

import importlib.util
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
spec = importlib.util.spec_from_file_location("going_further", DOCS / "going_further.py")
going_further = sys.modules["going_further"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(going_further)
SMALL, MIDDLE, LARGE = going_further.SHAPES
GB = 10**9


def test_the_document_shows_the_tables():
    text = (DOCS / "going_further.md").read_text(encoding="utf-8")
    tables = going_further.tables()
    assert len(tables) == 6 and all(f"\n\n{table}\n\n" in text for table in tables)
    assert len(text.splitlines()) <= 200
    assert [shape.parameters for shape in going_further.SHAPES] == [1_543_714_304, 8_030_261_248, 70_553_706_496]


def test_counts_of_the_8b_shape_by_hand():
    attention = 4096 * (4096 + 1024 + 1024 + 4096)
    assert MIDDLE.layer == attention + 3 * 4096 * 14336 + 2 * 4096
    assert MIDDLE.adapter == 32 * 16 * (2 * (4096 + 4096) + 2 * (4096 + 1024) + 3 * (4096 + 14336))
    assert MIDDLE.cache_per_token == 2 * 32 * 8 * 128 * 2  # keys and values, layers, heads, head size, bytes
    assert SMALL.cache_per_token == 2 * 28 * 2 * 128 * 2 and LARGE.cache_per_token == 2 * 80 * 8 * 128 * 2


def test_memory_by_hand():
    size = 8_030_261_248
    assert going_further.full_bytes(MIDDLE, 1) == 18 * size
    assert going_further.lora_bytes(MIDDLE, 1) == 2 * size + 16 * 41_943_040
    whole = 2 * (2 * 218_112_000 + 2 * 128256 * 4096)
    assert going_further.full_bytes(MIDDLE, 8) == 2 * size + whole
    assert going_further.activation_bytes(MIDDLE, 1) == 2 * (32 + 8) * 4096 + 2 * (2 * 1024 + 4 * 14336) + 8 * 128256


def test_what_moves_by_hand():
    assert going_further.ddp_bytes(100, 1) == going_further.fsdp_bytes(100, 1) == 0
    assert going_further.ddp_bytes(100, 2) == 400  # half of 400 bytes to be summed, half of them to be told
    assert going_further.fsdp_bytes(100, 2) == 400 and going_further.fsdp_bytes(100, 4) == 600


def test_an_rl_step_by_hand():
    step = going_further.rl_seconds(SMALL)
    tokens = 256 * 1024
    assert step["scoring"] == pytest.approx(2 * 1_543_714_304 * tokens / (0.4 * 989e12))
    assert step["update"] == pytest.approx(4 * step["scoring"])
    assert step["sampling"] == pytest.approx(1024 * (2 * 1_543_714_304 + 256 * 512 * 28_672) / 3.35e12)
    free = 0.9 * 80 * GB - 2 * 1_543_714_304
    assert going_further.sequences_that_fit(SMALL) == free // (2048 * 28_672)
