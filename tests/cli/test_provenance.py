"""A run says under which conditions it was made, and never a key."""

import subprocess

import pytest
import yaml

from influence_cli import __version__
from influence_cli.credentials import without_secrets
from influence_cli.sittings.provenance import git_state, versions
from influence_cli.testing.server import serve

KEY = "sk-proj-abcdef0123456789ABCDEF"


def test_no_file_of_a_run_holds_the_key_that_it_was_made_with(influence, tiny_folder, place, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serve() as server:
        arguments = (
            "--env",
            tiny_folder,
            "-m",
            "openai:test-model",
            "--base-url",
            server.base_url,
            "--n",
            "2",
            "--out",
            "made",
        )
        answer = influence("simulate", *arguments)
    assert answer.code == 0, answer.stderr
    assert KEY not in answer.stdout + answer.stderr
    files = [path for path in place.rglob("*") if path.is_file()]
    assert {"run.yaml", "run.db"} <= {path.name for path in files}
    for path in files:
        assert KEY.encode() not in path.read_bytes(), path


def test_a_key_on_the_command_line_is_refused(simulate, place):
    answer = simulate("--n", "1", "--set", f"roles.agent.options.key={KEY}")
    assert answer.code == 2
    assert KEY not in answer.stderr
    assert list(place.iterdir()) == []


def test_versions_of_what_shapes_answers_are_kept(made_run):
    manifest = yaml.safe_load((made_run / "run.yaml").read_text())
    assert manifest["versions"]["influence"] == __version__
    assert {"python", "pydantic", "openai"} <= set(manifest["versions"])
    assert "no-such-library" not in versions()


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def test_the_state_of_the_checkout_is_kept(place):
    assert git_state(place) == {}
    git(place, "init", "-q")
    (place / "a").write_text("1")
    git(place, "add", "a")
    git(place, "commit", "-q", "-m", "a")
    clean = git_state(place)
    assert len(clean["commit"]) == 40
    assert clean["changed"] is False
    (place / "a").write_text("2")
    assert git_state(place) == {**clean, "changed": True}


def test_without_git_nothing_is_said(place, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert git_state(place) == {}


@pytest.mark.parametrize(
    ("argument", "kept"),
    [
        (f"--out={KEY}", "--out=***"),
        ("http://me:secret@host/v1", "http://***@host/v1"),
        ("/data/task-abcdefghijkl", "/data/task-abcdefghijkl"),
    ],
)
def test_what_looks_like_a_key_is_blotted_out_of_the_command_line(argument, kept):
    assert without_secrets(argument) == kept
