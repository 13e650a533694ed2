"""The folder of a sweep: found by path and name, and one process's at a time."""

import pytest

from influence_cli.errors import InfluenceError
from influence_cli.store.run_directory import locked
from influence_cli.sweeps.directory import create_sweep, find_sweep, open_sweep


def test_a_sweep_is_found_by_path_and_name_and_only_if_it_is_one(make_sweep, tmp_path, monkeypatch):
    directory = make_sweep("runs/mine")
    monkeypatch.chdir(tmp_path)
    assert find_sweep("mine").resolve() == directory.path
    assert find_sweep("latest").resolve() == directory.path
    assert open_sweep(directory.path).manifest == directory.manifest
    with pytest.raises(InfluenceError, match="Did you mean 'mine'"):
        find_sweep("mien")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InfluenceError, match="is no sweep"):
        find_sweep("empty")
    with pytest.raises(InfluenceError, match="holds another sweep"):
        create_sweep(directory.path, directory.manifest, {})


def test_two_processes_cannot_have_one_sweep(make_sweep):
    directory = make_sweep()
    with (
        locked(directory.path),
        pytest.raises(InfluenceError, match="is being written by process"),
        locked(directory.path),
    ):
        pass
