"""SHA256SUMS in the form that `sha256sum` writes and reads."""

import pytest

from ptlearn.lm.checksums import damaged_files, write_checksums

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of b"abc", FIPS 180-2


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").write_bytes(b"")
    write_checksums(tmp_path)
    return tmp_path


def test_the_known_sum_is_written_and_a_whole_folder_has_no_damage(folder):
    assert (folder / "SHA256SUMS").read_text().splitlines()[0] == f"{ABC}  a"
    write_checksums(folder)  # its own file is not among them
    assert len((folder / "SHA256SUMS").read_text().splitlines()) == 2 and damaged_files(folder) == {}


def test_a_damaged_file_a_missing_one_and_missing_sums_are_named(folder):
    (folder / "a").write_bytes(b"abd")
    (folder / "b").unlink()
    found = damaged_files(folder)
    assert list(found) == [folder / "a", folder / "b"]
    assert f"expected {ABC}" in found[folder / "a"] and found[folder / "b"].startswith("is missing")
    (folder / "SHA256SUMS").unlink()
    assert damaged_files(folder) == {folder / "SHA256SUMS": "is missing"}


def test_the_star_of_binary_mode_is_read(folder):
    (folder / "SHA256SUMS").write_text(f"{ABC} *a\n")
    assert damaged_files(folder) == {}
