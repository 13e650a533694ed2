"""A file is whole: the old one or the new one stands there, and it is on the disk before it takes its place."""

import os
from pathlib import Path

import pytest

from influence_cli.whole_files import sync_folder, write_whole, writing_whole


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_a_file_is_replaced_and_nothing_stays_beside_it(tmp_path):
    for data in (b"one", b"two"):
        write_whole(tmp_path / "a", data)
        assert (tmp_path / "a").read_bytes() == data
    assert names(tmp_path) == ["a"]


def test_what_fails_on_the_way_leaves_the_old_file(tmp_path):
    write_whole(tmp_path / "a", b"old")

    def rows():
        yield b"new"
        raise ValueError

    with pytest.raises(ValueError), writing_whole(tmp_path / "a") as file:
        file.writelines(rows())
    assert ((tmp_path / "a").read_bytes(), names(tmp_path)) == (b"old", ["a"])


def test_what_cannot_take_its_place_is_an_error_and_leaves_nothing(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_whole(tmp_path / "a", b"new")
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "nowhere" / "a", b"new")
    assert names(tmp_path) == ["a"]
    sync_folder(tmp_path / "nowhere")


def test_a_file_is_on_the_disk_before_it_takes_its_place_and_its_name_after(tmp_path, monkeypatch):
    steps = []
    sync, replace = os.fsync, Path.replace

    def synced(handle):
        path = Path(f"/proc/self/fd/{handle}").readlink()
        steps.append(("sync", path.name, path.stat().st_size if path.is_file() else None))
        sync(handle)

    def replaced(path, target):
        steps.append(("replace", target.name))
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    write_whole(tmp_path / "a", b"new")
    assert steps == [("sync", f".a.{os.getpid()}", 3), ("replace", "a"), ("sync", tmp_path.name, None)]
