"""Directories of runs are made, found and removed with care."""

import fcntl
import json
import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Timer

import pytest

from influence_cli.errors import InfluenceError
from influence_cli.store import run_directory
from influence_cli.store.run_directory import create_run, find_run, holder, open_run, remove_run, run_directories
from influence_cli.store.steering import stop_run

from .conftest import manifest


def test_a_run_without_a_name_gets_one(tmp_path):
    names = {create_run(None, manifest(), root=tmp_path).path.name for _ in range(5)}
    assert len(names) == 5
    assert all("-simulate-" in name for name in names)


def test_the_manifest_comes_back_as_it_was(tmp_path):
    made = create_run(tmp_path / "a", manifest(models={"agent": "scripted:demo"}))
    assert open_run(tmp_path / "a").manifest == made.manifest
    assert made.manifest.run_id == "a"


def test_a_directory_in_use_is_not_taken(tmp_path):
    create_run(tmp_path / "a", manifest())
    with pytest.raises(InfluenceError, match=r"is not empty. To go on with it: --resume --out"):
        create_run(tmp_path / "a", manifest())


def test_an_empty_directory_may_be_used(tmp_path):
    (tmp_path / "a").mkdir()
    assert create_run(tmp_path / "a", manifest()).path == tmp_path / "a"


def test_a_file_in_the_way_is_one_line(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(InfluenceError, match="File exists"):
        create_run(tmp_path / "a", manifest())


def test_runs_are_found_by_path_name_and_age(tmp_path):
    old, new = (create_run(tmp_path / name, manifest()).path for name in ("a", "b"))
    os.utime(old / "run.yaml", (1, 1))
    assert run_directories(tmp_path) == [old, new]
    assert find_run("latest", root=tmp_path) == new
    assert find_run("a", root=tmp_path) == old
    assert find_run(str(old), root=tmp_path) == old


def test_an_unknown_run_suggests_the_nearest(tmp_path):
    create_run(tmp_path / "20260101-simulate-maple", manifest())
    with pytest.raises(InfluenceError, match="Did you mean '20260101-simulate-maple'"):
        find_run("20260101-simulate-mapel", root=tmp_path)


def test_without_runs_there_is_no_latest(tmp_path):
    with pytest.raises(InfluenceError, match="There is no run in"):
        find_run("latest", root=tmp_path / "none")


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(InfluenceError, match="is no run: it has no run.yaml"):
        find_run(str(tmp_path), root=tmp_path)


def test_a_newer_manifest_is_refused_with_its_mend(tmp_path):
    path = create_run(tmp_path / "a", manifest()).path / "run.yaml"
    path.write_text(path.read_text().replace("schema_version: 1", "schema_version: 99"))
    with pytest.raises(InfluenceError, match="newer version .*pip install -U"):
        open_run(tmp_path / "a")


def test_a_damaged_manifest_has_its_line(tmp_path):
    path = create_run(tmp_path / "a", manifest()).path / "run.yaml"
    path.write_text(path.read_text() + "commnd: x\n")
    with pytest.raises(InfluenceError, match=r"run.yaml:\d+:1: Unknown key 'commnd'"):
        open_run(tmp_path / "a")


def test_removing_takes_only_runs(tmp_path):
    (tmp_path / "precious").mkdir()
    with pytest.raises(InfluenceError, match="is no run"):
        remove_run(tmp_path / "precious")
    run = create_run(tmp_path / "a", manifest())
    (tmp_path / "link").symlink_to(run.path)
    with pytest.raises(InfluenceError, match="is a link"):
        remove_run(tmp_path / "link")
    with run.writer(), pytest.raises(InfluenceError, match="is being written"):
        remove_run(run.path)
    remove_run(run.path)
    assert not run.path.exists()


def test_the_holder_of_a_run_is_known(tmp_path):
    run = create_run(tmp_path / "a", manifest())
    assert holder(run.path) is None
    with run.writer():
        assert holder(run.path) == os.getpid()
    assert holder(run.path) is None


def test_a_process_of_another_machine_is_named_and_nobody_here_is_stopped_for_it(run, monkeypatch):
    with subprocess.Popen(["sleep", "600"]) as stranger, (run.path / "run.lock").open("wb", buffering=0) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lock.write(f"node-7.cluster {stranger.pid}".encode())
            assert holder(run.path) == stranger.pid
            with pytest.raises(
                InfluenceError, match=rf"Process {stranger.pid} runs on node-7\.cluster\. Stop it there"
            ):
                stop_run(run.path)
            with pytest.raises(InfluenceError, match=rf"by process {stranger.pid} on node-7\.cluster\."), run.writer():
                pass
            assert stranger.poll() is None
            monkeypatch.setattr("socket.gethostname", lambda: "node-7.cluster")
            assert stop_run(run.path) == stranger.pid
            assert stranger.wait(60) == -signal.SIGTERM
        finally:
            stranger.kill()


@pytest.mark.parametrize(("text", "process"), [(b"4711", 4711), (b"", 0), (b"\x1b[2J 1", 0), (b"\xff\xfe 1", 0)])
def test_a_lock_that_says_less_or_something_else_is_held_all_the_same(run, text, process):
    with (run.path / "run.lock").open("wb", buffering=0) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(text)
        assert holder(run.path) == process


def test_when_no_name_is_free_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(run_directory, "_WORDS", [])
    with pytest.raises(InfluenceError, match="No name is free"):
        create_run(None, manifest(), root=tmp_path)


def test_the_manifest_is_data_only(tmp_path):
    text = (create_run(tmp_path / "a", manifest()).path / "run.yaml").read_text()
    assert "!!" not in text
    assert json.dumps("simulate")[1:-1] in text


def test_processes_that_begin_in_the_same_second_get_different_directories(tmp_path):
    with ThreadPoolExecutor(16) as pool:
        runs = list(pool.map(lambda _: create_run(None, manifest(), root=tmp_path), range(32)))
    assert len({run.path for run in runs}) == 32


def test_who_looks_at_a_run_does_not_keep_its_writer_out(tmp_path):
    run = create_run(tmp_path / "a", manifest())
    with (run.path / "run.lock").open("a+") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        assert holder(run.path) is None
        Timer(0.1, lambda: fcntl.flock(looking, fcntl.LOCK_UN)).start()
        with run.writer():
            assert holder(run.path) == os.getpid()


def test_a_name_that_is_no_utf_8_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(InfluenceError, match="is no name in UTF-8"):
        create_run(tmp_path / os.fsdecode(b"b\xffd"), manifest())
    assert list(tmp_path.iterdir()) == []


def test_the_directory_that_one_stands_in_can_be_removed(tmp_path, monkeypatch):
    run = create_run(tmp_path / "a", manifest())
    monkeypatch.chdir(run.path)
    remove_run(Path())
    assert not run.path.exists()


def test_settings_are_remembered_and_the_run_stays_as_old(tmp_path):
    run = create_run(tmp_path / "a", manifest())
    made = (run.path / "run.yaml").stat().st_mtime_ns
    with run.writer():
        run.remember(run.manifest.config.model_copy(update={"n": 7}))
    assert open_run(run.path).manifest.config.n == 7
    assert (run.path / "run.yaml").stat().st_mtime_ns == made
