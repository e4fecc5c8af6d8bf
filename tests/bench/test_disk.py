"""The suites keep their files on a disk, and on the one that is named."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks import disk  # noqa: E402


def test_files_lie_where_it_was_named(monkeypatch, tmp_path):
    monkeypatch.setenv(disk.NAMED, str(tmp_path))
    monkeypatch.setattr(disk, "filesystem", lambda path: "ext4")
    assert disk.folder() == str(tmp_path)


def test_a_folder_in_memory_is_refused_if_it_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv(disk.NAMED, str(tmp_path))
    monkeypatch.setattr(disk, "filesystem", lambda path: "tmpfs")
    with pytest.raises(disk.NoDiskError, match="costs nothing"):
        disk.folder()


def test_temporary_files_in_memory_are_made_beside_what_is_built(monkeypatch, tmp_path):
    monkeypatch.delenv(disk.NAMED, raising=False)
    monkeypatch.setattr(disk, "BESIDE", tmp_path / "build")
    monkeypatch.setattr(disk, "filesystem",
                        lambda path: "ext4" if "build" in str(path) else "tmpfs")
    assert disk.folder() == str(tmp_path / "build")


def test_a_folder_that_is_not_there_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv(disk.NAMED, str(tmp_path / "none"))
    with pytest.raises(disk.NoDiskError, match="none"):
        disk.folder()
