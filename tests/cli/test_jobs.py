"""What is left to itself goes on, is found again, read, and ended resumably."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from tests.waiting import wait_until


@pytest.fixture
def jobs(influence):
    """Ask after the jobs until the last one is in one of some states; whatever is left is cancelled in the end."""

    def last(*states: str) -> dict:
        until = time.monotonic() + 60
        while True:
            found = influence("jobs", "list", "--json").document["jobs"]
            if found and (not states or found[-1]["state"] in states):
                return found[-1]
            assert time.monotonic() < until, found
            time.sleep(0.1)

    yield last
    for job in influence("jobs", "list", "--json").document["jobs"]:
        if job["state"] == "running":
            influence("jobs", "cancel", job["job"])


def test_a_detached_run_goes_on_by_itself(simulate, influence, jobs):
    answer = simulate("--n", "6", "--out", "runs/far", "--shards", "2", "--detach", "--json")
    assert answer.code == 0, answer.stderr
    document = answer.document
    assert {name: document[name] for name in ("schema", "run", "launcher", "code")} == {
        "schema": "influence.launched/1",
        "run": "runs/far",
        "launcher": "local",
        "code": None,
    }
    job = jobs("ended")
    assert (job["job"], job["code"], job["run"]) == (document["job"], 0, "runs/far")
    shown = influence("runs", "show", "far", "--json").document["conversations"]
    assert (shown["complete"], shown["total"]) == (6, 6)
    said = influence("jobs", "logs", job["job"])
    assert "2 shards, 32 conversations at once in each" in said.stdout
    assert influence("jobs", "logs", "far", "-n", "1").stdout.strip() == said.stdout.strip().splitlines()[-1]
    listed = influence("jobs", "list").stdout
    assert [word in listed for word in ("local", "far", "ended")] == [True] * 3


def test_a_detached_run_is_cancelled_and_taken_up(simulate, influence, jobs):
    answer = simulate("--n", "6", "--out", "runs/far", "-o", "latency=2", "--detach")
    assert "works on runs/far." in answer.stdout
    job = jobs("running")
    wait_until(Path("runs/far/run.db").exists)
    cancelled = influence("jobs", "cancel", "far", "--json")
    assert cancelled.code == 0, cancelled.stderr
    assert cancelled.document["job"] == job["job"]
    assert jobs()["state"] == "ended"
    assert influence("simulate", "--resume", "far", "-o", "latency=0", "--quiet").code == 0


def test_a_run_says_how_a_job_ended_whose_keeper_was_killed(simulate, influence, jobs):
    assert simulate("--n", "4", "--out", "runs/far", "-o", "latency=0.3", "--detach").code == 0
    job = jobs("running")["job"]
    wait_until(Path("runs/far/run.db").exists)
    os.kill(int(job.partition("-")[0]), signal.SIGKILL)
    assert jobs("running", "ended")["job"] == job
    ended = jobs("ended")
    assert (ended["code"], ended["problem"]) == (None, None)
    assert influence("runs", "show", "far", "--json").document["conversations"]["complete"] == 4


def test_training_runs_on_a_launcher_with_its_log_shown(influence, tiny_folder):
    settings = [
        "--env",
        tiny_folder,
        "-m",
        "scripted:demo",
        "--algo",
        "scripted",
        "--iterations",
        "1",
        "--samples",
        "4",
    ]
    answer = influence("train", *settings, "--out", "runs/learnt", "--launcher", "local", "--json")
    assert answer.code == 0, answer.stderr
    assert (answer.document["code"], answer.document["run"]) == (0, "runs/learnt")
    assert "iteration" in answer.stderr.lower()
    figures = influence("runs", "show", "learnt", "--json").document
    assert (figures["state"], len(figures["iterations"])) == ("done", 2)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--launcher", "local", "--launcher-option", "token=x"], "An option of the launcher seems to hold a key"),
        (["--detach", "--launcher-option", "x=1"], "--launcher-option x: local has no such option."),
        (["--launcher", "lokal"], "Unknown launcher 'lokal'."),
        (["--detach", "--resources", "gpu=1"], "--resources 'gpu=1' cannot be read."),
        (["--resources", "gpus=1"], "Nothing is launched here."),
    ],
)
def test_a_mistake_in_where_training_runs_leaves_nothing_behind(influence, tiny_folder, place, arguments, told):
    begin = ("train", "--env", tiny_folder, "-m", "scripted:demo", "--algo", "scripted", "--out", "runs/learnt")
    answer = influence(*begin, *arguments)
    assert (answer.code, list(place.iterdir())) == (2, [])
    assert f"error: {told}" in answer.stderr


def test_a_launched_command_ends_with_the_code_of_what_was_launched(influence, tiny_folder, script):
    model = script("nonsense: 1")
    settings = ["--env", tiny_folder, "-m", model, "--algo", "scripted", "--out", "made"]
    answer = influence("train", *settings, "--launcher", "local")
    assert answer.code == 2
    assert "Unknown key 'nonsense'" in answer.stderr


def test_nothing_detached_is_said(influence):
    assert "No job was started for a run or sweep in runs." in influence("jobs", "list").stderr
    assert influence("jobs", "list", "--json").document["jobs"] == []


@pytest.mark.parametrize("command", ["logs", "cancel"])
def test_an_unknown_job_is_one_line(influence, made_run, command):
    answer = influence("jobs", command, "nothing")
    assert (answer.code, answer.stderr) == (2, "error: There is no job 'nothing'. See `influence jobs list`.\n")


def test_a_job_of_a_launcher_that_is_gone_is_listed_with_the_reason(influence, made_run):
    record = {"id": "7", "launcher": "gone", "name": "train", "command": ["x"], "log": "x.log", "started": "2026-01-01"}
    (made_run / "jobs.json").write_text(json.dumps({"jobs": [record]}))
    answer = influence("jobs", "list", "--json")
    assert answer.code == 0
    job = answer.document["jobs"][0]
    assert (job["state"], job["problem"]) == ("unknown", "Unknown launcher 'gone'. Known: local, ray, slurm.")


@pytest.fixture
def ended(place):
    """Note a job that has ended, of a run or a sweep."""

    def note(folder: Path, number: str, said: bytes = b"done\n") -> None:
        log = place / f"{number}.log"
        log.write_bytes(said)
        record = {"id": number, "launcher": "local", "name": "train", "command": ["x"], "log": str(log)}
        (folder / "jobs.json").write_text(json.dumps({"jobs": [{**record, "started": f"2026-01-0{number[-1]}"}]}))

    return note


def test_jobs_that_cannot_be_read_are_told_and_hide_no_others(influence, simulate, made_run, ended):
    simulate("--n", "2", "--out", "runs/damaged", "-q")
    Path("runs/damaged/jobs.json").write_text("{")
    ended(made_run, "999999991")
    told = "runs/damaged/jobs.json cannot be read. Remove it: the jobs themselves go on.\n"
    answer = influence("jobs", "list", "--json")
    assert ([job["job"] for job in answer.document["jobs"]], answer.stderr) == (["999999991"], told)
    assert influence("jobs", "logs", "made").stdout == "done\n"
    assert influence("jobs", "cancel", "999999991").code == 0
    for named in (["list", "runs/damaged"], ["logs", "damaged"], ["cancel", "damaged"]):
        answer = influence("jobs", *named)
        assert (answer.code, answer.stderr) == (2, f"error: {told}")


def test_the_jobs_of_sweeps_are_listed_beside_those_of_runs(influence, made_run, ended):
    sweep = made_run.with_name("sweep")
    sweep.mkdir()
    (sweep / "sweep.yaml").touch()
    ended(made_run, "999999992")
    ended(sweep, "999999991")
    found = influence("jobs", "list", "--json").document["jobs"]
    assert [(job["job"], Path(job["run"]).name) for job in found] == [("999999991", "sweep"), ("999999992", "made")]
    assert influence("jobs", "logs", "sweep").stdout == "done\n"


def test_a_log_is_shown_from_its_end(influence, made_run, ended):
    ended(made_run, "999999991", b"first\r\n" * 5000 + b"caf\xe9 \xff\nlast")
    assert influence("jobs", "logs", "made", "-n", "2").stdout == "caf\ufffd \ufffd\nlast\n"
    assert len(influence("jobs", "logs", "made").stdout.splitlines()) == 5002
