"""Every command that prints data can print it as JSON, of a schema with a version."""

import re

import pytest
import typer

from influence_cli.cli.app import build_app

WITHOUT_DATA = {"view", "play", "rm", "cancel", "jobs logs", "sweep report"}
"""Commands, by their last word or whole name, that take the terminal or print nothing on stdout."""
SCHEMA = re.compile(r"influence\.[a-z.-]+/\d+")
SHOWN = {
    "env show": ("tiny",),
    "env preview": ("tiny",),
    "env validate": ("tiny",),
    "env new": ("mine",),
    "runs show": ("made",),
    "runs check": ("made",),
    "runs search": ("made", "you"),
    "runs merge": ("made",),
    "plugins show": ("scripted",),
    "plugins new": ("scorer", "mine"),
    "report": ("made",),
    "compare": ("made", "made"),
    "score": ("made", "--with", "computed"),
    "simulate": ("--env", "tiny", "--n", "2", "-m", "scripted:demo"),
    "export": ("made", "--to", "jsonl", "--out", "made.jsonl"),
}
"""What commands that need more than ``--json`` are tried with."""
TRIED_ELSEWHERE = {
    "train", "import", "score calibrate", "env generate", "env import", "env audit", "models show", "models pull",
    "plugins doctor", "doctor",
}  # fmt: skip
"""Commands whose own tests read their JSON."""


def leaves(command, named=()):
    if not hasattr(command, "commands"):
        yield " ".join(named), command
        return
    for name, each in command.commands.items():
        yield from leaves(each, named if name == "run" else (*named, name))


COMMANDS = dict(leaves(typer.main.get_command(build_app())))
WITH_DATA = [name for name in COMMANDS if not {name, name.rpartition(" ")[2]} & WITHOUT_DATA]


@pytest.mark.parametrize("name", WITH_DATA)
def test_it_takes_json(name):
    assert "--json" in {flag for parameter in COMMANDS[name].params for flag in parameter.opts}


@pytest.mark.parametrize("name", [name for name in WITH_DATA if name in SHOWN or name.endswith(("list", "rubrics"))])
def test_its_json_has_a_schema_and_nothing_else_is_printed(name, influence, made_run, tiny_folder, place):
    arguments = [str(tiny_folder) if each == "tiny" else each for each in SHOWN.get(name, ())]
    answer = influence(*name.split(), *arguments, "--json")
    assert answer.code == 0, answer.stderr
    document = answer.document
    schema = document["schema"] if isinstance(document, dict) else document[0]["schema"]
    assert SCHEMA.fullmatch(schema), schema


def test_every_listing_is_tried():
    tried = {*SHOWN, *TRIED_ELSEWHERE, *(name for name in COMMANDS if name.endswith(("list", "rubrics")))}
    assert [name for name in ("env show", "models list", "plugins list", "runs list") if name not in tried] == []
    assert [name for name in {*SHOWN, *TRIED_ELSEWHERE} if name not in COMMANDS] == []
