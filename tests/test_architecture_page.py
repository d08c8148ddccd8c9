"""The page of the house: its picture is what the imports give, and it names every wing."""

from pathlib import Path

import pytest

from conftest import module_of

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def house():
    return module_of(DOCS / "architecture.py")


def test_the_picture_is_what_the_imports_give(house):
    picture = house.PICTURE.read_text(encoding="utf-8")
    assert house.told() in picture, "draw it anew: python docs/architecture.py"


def test_the_picture_shows_every_room(house):
    picture = house.PICTURE.read_text(encoding="utf-8")
    for path in (*house.PACKAGE.glob("*.py"), *house.PACKAGE.glob("*/*.py"), *house.PACKAGE.glob("*/*/__init__.py")):
        name = path.parent.stem if path.stem in house.ENTRIES else path.stem
        assert name == "ptlearn" or picture.count(name) > 1, path  # drawn, not only described


def test_an_import_upwards_would_be_told(house, monkeypatch, tmp_path):
    for name in ("grid", "rl"):
        (tmp_path / name).mkdir()
    (tmp_path / "grid" / "mdp.py").write_text("from ptlearn.rl.training import fit\nfrom ptlearn import rollout\n")
    monkeypatch.setattr(house, "PACKAGE", tmp_path)
    assert "grid (mdp) stands on rl, ground floor" in house.told().splitlines()


def test_the_page_names_every_wing_and_where_to_begin(house):
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    for wing in house.WINGS:
        assert f"\n| {wing} |" in page
    for row in (line for line in page.splitlines() if line.startswith("| ") and "`" in line):
        for name in row.split("|")[3].split(","):
            assert (house.PACKAGE / name.strip(" `")).is_file()
