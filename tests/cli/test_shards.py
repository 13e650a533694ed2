"""A run in shards is the run that one process would have made, whatever happens on the way."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path
from threading import Timer

import pytest
from tests.waiting import wait_until

from influence_cli.errors import InfluenceError
from influence_cli.launching.local import LocalLauncher
from influence_cli.store.check import check_run
from influence_cli.store.run_directory import open_run
from influence_cli.store.shards import Shard
from influence_cli.testing.server import serve

N = "10"
SECRET = (
    "An option of the launcher seems to hold a key or a password, and it is kept with the job."
    " Put it in an environment variable.\n"
)
LONG = 1.0
"""Seconds of an answer while shards are awaited: none comes to its end before all have begun."""


def exported(influence, run: str) -> str:
    answer = influence("export", run, "--to", "jsonl", "--out", "-")
    assert answer.code == 0, answer.stderr
    return answer.stdout


@pytest.fixture
def whole(simulate, influence) -> str:
    """What a run of ten conversations comes to in one process."""
    assert simulate("--n", N, "--seed", "3", "--out", "whole", "--quiet").code == 0
    return exported(influence, "whole")


def test_a_run_in_shards_equals_the_run_of_one_process(simulate, influence, whole):
    answer = simulate("--n", N, "--seed", "3", "--out", "split", "--shards", "3", "--json")
    assert answer.code == 0, answer.stderr
    assert "3 shards, 21 conversations at once in each; their logs: split/logs/shard-*.log" in answer.stderr
    assert exported(influence, "split") == whole
    assert check_run(open_run(Path("split"))) == []
    one = influence("simulate", "--resume", "whole", "--json").document
    document = answer.document
    assert (document["state"], document["reason"]) == ("done", None)
    assert document["conversations"] == {"total": 10, "complete": 10, "failed": 0, "earlier": 0}
    assert document["tokens"] == one["tokens"]
    shown = influence("runs", "show", "split", "--json").document
    assert document["turns"] == shown["turns"]
    assert document["mean_rating"] == pytest.approx(one["mean_rating"])
    assert document["mean_rating_of_turns"] == pytest.approx(shown["rating"]["mean"])
    for row in shown["calls"]:
        mine = document["roles"][row["role"]]
        assert [mine[name] for name in ("calls", "requests", "prompt_tokens")] == [
            row[name] for name in ("calls", "requests", "prompt_tokens")
        ]


def test_budgets_hold_over_all_shards_and_any_number_goes_on(simulate, influence, whole):
    settings = ("--n", N, "--seed", "3", "--out", "split", "--concurrency", "2")
    answer = simulate(*settings, "--shards", "2", "--max-tokens", "3000", "--json")
    assert answer.code == 3, answer.stderr
    document = answer.document
    assert (document["state"], document["reason"]) == ("stopped", "the budget of 3,000 tokens is used up")
    assert document["conversations"]["complete"] < int(N)
    assert 3000 <= document["tokens"] < 3000 + 2 * 2 * 5 * 250
    assert check_run(open_run(Path("split"))) == []
    resumed = influence("simulate", "--resume", "split", "--max-tokens", "1000000", "--shards", "3", "--json")
    assert resumed.code == 0, resumed.stderr
    done = resumed.document["conversations"]
    assert done["complete"] + done["earlier"] == int(N)
    assert done["earlier"] == document["conversations"]["complete"]
    assert texts(exported(influence, "split")) == texts(whole)
    assert check_run(open_run(Path("split"))) == []


def texts(exported: str) -> dict:
    """Return what was said and how it was rated, by conversation: a run that was broken off has another order."""
    found = {}
    for document in map(json.loads, exported.splitlines()):
        key = document["scenario"], document["initial_state"], document["sample"]
        said = sorted((m["turn"], m["speaker"], m["text"], m["source"]) for m in document["messages"])
        found[key] = said, document["judgements"], document["status"], document["mean_rating"], document["population"]
    return found


def test_a_run_of_one_process_is_gone_on_with_in_shards_and_back(simulate, influence, whole):
    first = simulate("--n", N, "--seed", "3", "--out", "split", "--max-tokens", "2000", "--concurrency", "2")
    assert first.code == 3
    second = influence("simulate", "--resume", "split", "--max-tokens", "5000", "--shards", "2")
    assert second.code == 3, second.stderr
    third = influence("simulate", "--resume", "split", "--max-tokens", "1000000", "--json")
    assert third.code == 0, third.stderr
    assert texts(exported(influence, "split")) == texts(whole)
    assert check_run(open_run(Path("split"))) == []
    assert influence("runs", "merge", "split", "--json").document["conversations"] == 0


def test_shards_can_be_made_by_hand(simulate, influence, whole):
    settings = ("--n", N, "--seed", "3", "--out", "split", "--quiet")
    for shard in ("2/2", "1/2"):
        assert simulate(*settings, "--shard", shard).code == 0
    assert influence("runs", "merge", "split", "--json").document["conversations"] == int(N)
    assert exported(influence, "split") == whole
    assert influence("simulate", "--resume", "split", "--quiet", "--json").document["conversations"]["earlier"] == int(
        N
    )


@pytest.mark.parametrize(
    "named",
    [["--env", "./e/tiny"], ["--env", "e/../e/tiny"], ["--env", "tiny", "--environments-dir", "e"]],
)
def test_shards_by_hand_name_an_environment_in_the_same_words(influence, place, tiny_folder, named):
    shutil.copytree(tiny_folder, place / "e" / "tiny")
    begin = ("simulate", *named, "-m", "scripted:demo", "--n", "4", "--out", "split", "-q")
    for shard in ("1/2", "2/2"):
        answer = influence(*begin, "--shard", shard)
        assert answer.code == 0, answer.stderr
    assert influence("runs", "merge", "split", "--json").document["conversations"] == 4
    answer = influence("simulate", "--resume", "split", *named, "-q", "--json")
    assert (answer.code, answer.document["conversations"]["earlier"]) == (0, 4)


def test_a_shard_of_another_environment_is_refused(influence, simulate, place, tiny_folder):
    shutil.copytree(tiny_folder, place / "e" / "tiny")
    assert simulate("--n", "4", "--out", "split", "--shard", "1/2").code == 0
    answer = influence(
        "simulate", "--env", "e/tiny", "-m", "scripted:demo", "--n", "4", "--out", "split", "--shard", "2/2"
    )
    assert (answer.code, "was made with another value of '--env'" in answer.stderr) == (2, True)


def test_a_shard_that_comes_while_another_makes_the_run_waits_and_takes_it_up(simulate, influence, whole):
    settings = ("--n", N, "--seed", "3", "--out", "split", "--quiet")
    assert simulate(*settings, "--shard", "1/2").code == 0
    manifest, away = Path("split/run.yaml").absolute(), Path("away.yaml").absolute()
    manifest.rename(away)
    coming = Timer(0.3, away.rename, [manifest])
    coming.start()
    answer = simulate(*settings, "--shard", "2/2")
    coming.join()
    assert answer.code == 0, answer.stderr
    assert influence("runs", "merge", "split").code == 0
    assert exported(influence, "split") == whole


def test_more_shards_than_conversations_are_not_started(simulate):
    answer = simulate("--n", "2", "--out", "split", "--shards", "9")
    assert answer.code == 0, answer.stderr
    assert "2 shards, 32 conversations at once in each" in answer.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--shard", "3/2"], "--shard '3/2' is not NUMBER/OF. For instance 2/4: the second of four."),
        (["--shard", "1/2"], "The shards of a run need one folder. Name it: --out FOLDER."),
        (["--shard", "1/2", "--shards", "2"], "--shard is one part, begun by hand."),
        (["--shards", "2", "--launcher", "lokal"], "Unknown launcher 'lokal'. Did you mean 'local'?"),
        (["--shards", "2", "--launcher-option", "x=1"], "--launcher-option x: local has no such option."),
        (["--shards", "2", "--resources", "gpu=1"], "--resources 'gpu=1' cannot be read."),
        (["--shards", "2", "--launcher-option", "setup=export MY_API_KEY=correct-horse"], SECRET),
        (["--detach", "--shards", "2", "--launcher-option", "token=x"], SECRET),
        (["--resources", "gpus=1"], "Nothing is launched here. Add --shards N or --launcher NAME."),
    ],
)
def test_mistakes_are_one_line(simulate, place, arguments, told):
    answer = simulate("--n", "4", *arguments)
    assert answer.code == 2
    assert f"error: {told}" in answer.stderr
    assert list(place.iterdir()) == []


def test_more_gpus_than_there_are_is_one_line(simulate, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    answer = simulate("--n", "4", "--shards", "2", "--resources", "gpus=1")
    assert answer.code == 2
    assert "error: 1 GPUs are asked for, and this machine offers no GPU. Ask for fewer." in answer.stderr


def test_a_mistake_that_a_shard_finds_ends_all_and_is_told_once(simulate, script):
    model = script("nonsense: 1")
    answer = simulate("--n", "4", "-m", model, "--shards", "2", "--out", "split")
    assert answer.code == 2
    assert answer.stderr.count("Unknown key 'nonsense'") == 1
    assert "cannot go on: " in answer.stderr


@pytest.mark.parametrize(("kind", "code"), [("refused", 1), ("auth", 2)])
def test_conversations_that_all_fail_alike_end_the_run_as_in_one_process(simulate, influence, script, kind, code):
    model = script(f"failures:\n  - {{kind: {kind}}}\n")
    settings = ("-m", model, "--n", "8", "--set", "stop_after_alike=3", "--concurrency", "2")
    for folder, more in (("whole", []), ("split", ["--shards", "2"])):
        assert simulate(*settings, "--out", folder, *more).code == code
        assert influence("runs", "show", folder, "--json").document["state"] == "failed"


def test_of_two_limits_the_one_that_was_reached_is_told(simulate):
    settings = ("--n", N, "--out", "split", "--shards", "2", "--concurrency", "2")
    prices = "prices={scripted:demo: {prompt: 1, completion: 1}}"
    answer = simulate(*settings, "--set", prices, "--max-cost", "0.0001", "--max-tokens", "10000000", "--json")
    assert answer.code == 3, answer.stderr
    assert answer.document["reason"] == "the budget of $0.0001 is used up"


def test_what_is_stored_is_merged_though_the_launcher_fails_in_the_end(simulate, influence, monkeypatch):
    async def fails(_launcher):
        raise InfluenceError("The cluster is away.")

    monkeypatch.setattr(LocalLauncher, "aclose", fails)
    answer = simulate("--n", "4", "--out", "split", "--shards", "2")
    assert (answer.code, "error: The cluster is away." in answer.stderr) == (2, True)
    shown = influence("runs", "show", "split", "--json").document
    assert (shown["state"], shown["conversations"]["complete"]) == ("done", 4)


def test_the_first_of_several_errors_is_raised_and_the_others_are_told(simulate, script, monkeypatch):
    async def fails(_launcher):
        raise InfluenceError("The cluster is away.")

    monkeypatch.setattr(LocalLauncher, "aclose", fails)
    answer = simulate("--n", "4", "-m", script("nonsense: 1"), "--shards", "2", "--out", "split")
    assert answer.code == 2
    assert "Unknown key 'nonsense'" in answer.stderr.splitlines()[-1]
    assert "Then: The cluster is away." in answer.stderr


def test_a_shard_that_dies_again_and_again_is_given_up(simulate, influence, monkeypatch):
    monkeypatch.setenv("PYTHONHASHSEED", "no number")  # no Python starts with this
    answer = simulate("--n", "4", "--shards", "1", "--out", "split", "--restarts", "1", "--json")
    assert answer.code == 1
    assert "Shard 1/1: died with exit code 1; started again (1 of 1)." in answer.stderr
    assert "Shard 1/1: died with exit code 1; given up after 2 starts." in answer.stderr
    assert answer.document["state"] == "stopped"
    assert answer.document["reason"] == "shard 1/1 was given up: died with exit code 1"
    monkeypatch.delenv("PYTHONHASHSEED")
    assert influence("simulate", "--resume", "split", "--quiet").code == 0


def test_a_job_that_may_be_at_work_keeps_others_from_the_run_until_it_is_cancelled(simulate, influence, place):
    assert simulate("--n", "4", "--out", "runs/far", "--max-tokens", "1").code == 3
    record = {"id": "999999999", "launcher": "local", "name": "shard-1of2", "command": ["x"], "started": "2026-01-01"}
    jobs = place / "runs" / "far" / "jobs.json"
    jobs.write_text(json.dumps({"jobs": [{**record, "log": str(place / "x.log")}]}))
    answer = influence("simulate", "--resume", "far", "--max-tokens", "100000")
    assert answer.code == 2
    hint = "End it: influence jobs cancel 999999999 --folder runs/far."
    assert answer.stderr == f"error: The job 999999999 of local may be at work on runs/far. {hint}\n"
    assert influence("jobs", "cancel", "999999999", "--folder", "runs/far").code == 0
    assert influence("simulate", "--resume", "far", "--max-tokens", "100000").code == 0


# -- what goes wrong on the way ---------------------------------------------------------------------------------------


def beats(folder: Path) -> dict[str, dict]:
    """Return what each shard told last."""
    found = {}
    for file in (folder / "logs").glob("shard-*.json"):
        try:
            found[file.stem] = json.loads(file.read_text())
        except (OSError, ValueError):
            continue
    return found


def busy(folder: Path, process: subprocess.Popen, shards: int, calls: int) -> dict[str, int]:
    """Wait until every shard has made so many calls; return their processes."""
    told: dict[str, dict] = {}

    def at_work() -> bool:
        told.update(beats(folder))
        made = [sum(role["calls"] for role in beat["roles"].values()) for beat in told.values()]
        return len(made) == shards and min(made) >= calls

    wait_until(lambda: at_work() or process.poll() is not None)
    assert process.poll() is None, process.communicate()
    return {name: beat["process"] for name, beat in told.items()}


@pytest.mark.timeout(300)
def test_with_one_shard_killed_one_hung_and_the_server_down_the_run_is_complete_and_the_same(
    influence, begin, place, tiny_folder
):
    with serve(latency=LONG, seed=3) as server:
        settings = [
            "--env",
            tiny_folder,
            "--n",
            "32",
            "--seed",
            "5",
            "--base-url",
            server.base_url,
            "-m",
            "openai:test-model",
        ]
        settings += ["-o", "retry_delay=0.2", "-o", "max_retry_delay=0.5", "--concurrency", "8"]
        process = begin(
            "simulate", *settings, "--out", "split", "--shards", "4", "--hang-after", "15", "--restarts", "9", "--json"
        )
        processes = busy(place / "split", process, 4, 1)
        os.kill(processes["shard-1of4"], signal.SIGKILL)
        os.kill(processes["shard-2of4"], signal.SIGSTOP)
        server.configure(faults={"drop": 1.0})
        time.sleep(2)
        server.configure(faults={}, latency=0.02)
        stdout, stderr = process.communicate(timeout=240)
        assert process.returncode == 0, stderr
        assert "Shard 1/4: died of signal 9; started again (1 of 9)." in stderr
        assert "Shard 2/4: nothing new came of it for 15 s; started again (1 of 9)." in stderr
        assert json.loads(stdout)["conversations"] == {"total": 32, "complete": 32, "failed": 0, "earlier": 0}
        server.configure(latency=0.0)
        assert influence("simulate", *settings, "--out", "whole", "--quiet").code == 0
    assert check_run(open_run(place / "split")) == []
    assert texts(exported(influence, "split")) == texts(exported(influence, "whole"))


def test_a_signal_stops_all_shards_resumably(influence, begin, place, tiny_folder):
    settings = ["--env", tiny_folder, "-m", "scripted:demo", "--n", "12", "--seed", "3"]
    process = begin(
        "simulate",
        *settings,
        "-o",
        f"latency={LONG}",
        "--concurrency",
        "4",
        "--out",
        "split",
        "--shards",
        "2",
        "--json",
    )
    processes = busy(place / "split", process, 2, 1)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 3, stderr
    assert (json.loads(stdout)["state"], json.loads(stdout)["reason"]) == ("stopped", "stopped by a signal")
    assert not any(alive(number) for number in processes.values())
    assert "Traceback" not in stderr
    assert check_run(open_run(place / "split")) == []
    resumed = influence("simulate", "--resume", "split", "-o", "latency=0", "--json")
    assert resumed.code == 0, resumed.stderr
    assert influence("simulate", *settings, "--out", "whole", "--quiet").code == 0
    assert texts(exported(influence, "split")) == texts(exported(influence, "whole"))


def test_shards_end_with_whoever_started_them_even_if_that_is_killed_and_nothing_is_lost(
    influence, begin, place, tiny_folder
):
    settings = ["--env", tiny_folder, "-m", "scripted:demo", "-o", "latency=0.5", "--n", "32"]
    process = begin("simulate", *settings, "--out", "split", "--shards", "2", "--quiet")
    shards = busy(place / "split", process, 2, 1).values()
    process.kill()
    process.wait()
    wait_until(lambda: not any(alive(number) for number in shards))
    had = calls(place / "split" / "run-1of2.db") | calls(place / "split" / "run-2of2.db")
    assert had
    assert influence("simulate", "--resume", "split", "-o", "latency=0", "--quiet").code == 0
    now = calls(place / "split" / "run.db")
    assert had <= now
    assert len({call[:-1] for call in now}) == len(now)
    assert check_run(open_run(place / "split")) == []


def calls(database: Path) -> set[tuple]:
    """Return each call by its conversation, turn, role and number, and when it ended."""
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as db:
        columns = "e.scenario, e.initial_state, e.sample, c.turn, c.role, c.ordinal, c.ended"
        return set(db.execute(f"SELECT {columns} FROM call c JOIN episode e ON e.id = c.episode_id"))


def test_a_run_whose_shards_are_at_work_is_not_taken_up(influence, begin, place, simulate, tiny_folder):
    assert simulate("--n", "4", "--out", "split", "--shard", "1/2", "--quiet").code == 0
    with open_run(place / "split").of_shard(Shard(1, 2)).writer():
        for more in ([], ["--shards", "3"]):
            answer = influence("simulate", "--resume", "split", *more)
            assert answer.code == 2
            assert f"error: split/run-1of2.db is being written by process {os.getpid()}." in answer.stderr


def alive(number: int) -> bool:
    """Return whether a process runs; one that has ended and was not asked after does not."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
