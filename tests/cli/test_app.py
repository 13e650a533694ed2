"""How the command line ends: the user's mistakes in one line, bugs with their traceback."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from influence_cli import __version__
from influence_cli.backends.scripted import ScriptedBackend
from influence_cli.cli import output


def one_line(answer, code=2):
    assert answer.code == code
    assert answer.stdout == ""
    assert answer.stderr.count("\n") == 1, answer.stderr
    assert answer.stderr.startswith("error: ")
    return answer.stderr.removeprefix("error: ").rstrip("\n")


def test_version(influence):
    answer = influence("--version")
    assert (answer.code, answer.stdout, answer.stderr) == (0, f"influence {__version__}\n", "")


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_names_every_command(influence, flag):
    answer = influence(flag)
    assert answer.code == 0
    for name in ("simulate", "env", "runs", "export", "models", "plugins"):
        assert re.search(rf"\b{name}\b", answer.stdout)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["simulat"], "simulate"),
        (["run"], "runs"),
        (["env", "lst"], "list"),
        (["plugins", "docter"], "doctor"),
        (["simulate", "--enw", "therapy"], "--env"),
        (["runs", "list", "--jsn"], "--json"),
    ],
)
def test_what_does_not_exist_is_answered_with_the_nearest(influence, typed, meant):
    said = one_line(influence(*typed))
    assert re.search(rf"(Did you mean|Possible options:).*{meant}\b", said), said


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs a device that is always full")
@pytest.mark.parametrize(
    "typed",
    [["runs", "show", "made"], ["runs", "show", "made", "--json"], ["export", "made", "--to", "jsonl", "--out", "-"]],
)
def test_a_full_disk_behind_stdout_is_told_in_one_line(typed, made_run):
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "influence_cli", *typed], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 2
    assert done.stderr.decode().startswith("error: The disk is full")
    assert done.stderr.count(b"\n") == 1


def test_a_closed_stdout_is_no_bug(made_run):
    command = f"{sys.executable} -m influence_cli runs show made --json >&-"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["simulate", "--n", "many"], "--n"),
        (["export"], "Missing argument"),
        (["export", "latest"], "--to"),
        (["simulate", "--env"], "--env"),
    ],
)
def test_wrong_use_is_told_in_one_line(influence, typed, said):
    assert said in one_line(influence(*typed))


def test_a_user_error_is_told_in_one_line(influence):
    assert one_line(influence("runs", "show", "nowhere")).startswith("Unknown run 'nowhere'.")


def test_a_bug_keeps_its_traceback(influence, monkeypatch):
    def broken(*_arguments, **_settings):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(output, "say", broken)
    answer = influence("runs", "list", bugs=True)
    assert isinstance(answer.exception, ZeroDivisionError)
    assert "error:" not in answer.stderr


def test_ctrl_c_ends_with_three(influence, monkeypatch):
    def interrupted(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(output, "say", interrupted)
    answer = influence("runs", "list")
    assert (answer.code, answer.stdout, answer.stderr) == (3, "", "Stopped.\n")


def test_ctrl_c_while_models_load_says_that_nothing_was_begun(influence, made_run, tiny_folder, place, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ScriptedBackend, "__init__", interrupted)
    for command in (("simulate", "--env", tiny_folder), ("score", made_run, "--with", "harm", "-q")):
        named = "--judge" if command[0] == "score" else "--model"
        answer = influence(*command, named, "scripted:demo")
        assert (answer.code, answer.stdout) == (3, "")
        assert answer.stderr.splitlines()[-1] == "Stopped before anything was begun."
    assert list((place / "runs").iterdir()) == [made_run]


def test_a_run_is_named_by_its_last_word_where_no_other_ends_so(influence, simulate, place):
    for name in ("runs/20260101-simulate-heath", "runs/20260102-simulate-heath", "runs/20260102-simulate-cedar"):
        assert simulate("--n", "1", "--out", name, "-q").code == 0
    assert influence("runs", "show", "cedar", "--json").document["run"].endswith("20260102-simulate-cedar")
    told = one_line(influence("runs", "show", "heath"))
    assert told.startswith("'heath' may be any of 2 runs. Name one: 20260101-simulate-heath, 20260102-simulate-heath.")


def test_a_flag_that_is_none_suggests_the_nearest_alone(influence):
    assert one_line(influence("simulate", "--nn", "2")) == "No such option: --nn. Did you mean '--n'?"


def test_an_unanswered_question_ends_with_three(influence, made_run):
    answer = influence("runs", "rm", made_run, answers="")
    assert answer.code == 3
    assert made_run.exists()


def test_nothing_piped_has_escape_sequences(influence, made_run, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    for arguments in (["--help"], ["runs", "list"], ["runs", "show", made_run], ["plugins", "list"], ["nonsense"]):
        answer = influence(*arguments)
        assert "\x1b" not in answer.stdout + answer.stderr, arguments


@pytest.mark.parametrize("typed", ["plugins list --json", "plugins list", "runs list", "--version"])
def test_a_broken_pipe_ends_with_141_and_no_word(typed, made_run):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "influence_cli", *typed.split()]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")
