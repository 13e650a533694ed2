"""``influence plugins``, over what is installed and a broken plugin in this process."""

from types import SimpleNamespace

import pytest

from influence_cli.cli import app
from influence_cli.plugins.component import Component
from influence_cli.plugins.hookspecs import hookimpl
from influence_cli.plugins.loading import Plugin, load_plugins
from influence_cli.plugins.registry import PluginRegistry
from influence_cli.schemas.frozen import Frozen


@pytest.fixture
def broken(monkeypatch):
    """Offer a backend whose load fails and one that lacks a library; a third plugin was skipped."""

    def failing():
        raise OSError("libmodel.so\nis missing")

    def offered():
        return [
            Component("heavy", "A heavy one.", failing, Frozen),
            Component("needy", "A needy one.", lambda: print, Frozen, requires=("no_such_library",)),
        ]

    def registry():
        manager, _ = load_plugins([])
        manager.register(SimpleNamespace(influence_backends=hookimpl(offered)), name="mine")
        skipped = Plugin("gone", "gone-dist", "2.0", "ImportError: no", "pip uninstall gone-dist")
        return PluginRegistry(manager, [Plugin("mine", "mine-dist", "1.0"), skipped])

    monkeypatch.setattr(app, "make_registry", registry)


def test_list_shows_kind_name_origin_and_state(influence):
    answer = influence("plugins", "list")
    assert (answer.code, answer.stderr) == (0, "")
    rows = [line.split() for line in answer.stdout.splitlines()]
    assert ["backend", "scripted", "influence-cli"] in [row[:3] for row in rows]
    assert ["exporter", "jsonl", "influence-cli"] in [row[:3] for row in rows]


def test_list_as_json(influence):
    document = influence("plugins", "list", "--json").document
    assert document["schema"] == "influence.plugins.list/1"
    found = {(each["kind"], each["name"]) for each in document["components"]}
    assert {("backend", "scripted"), ("backend", "openai"), ("exporter", "jsonl"), ("exporter", "parquet")} <= found


def test_show_documents_every_option(influence):
    answer = influence("plugins", "show", "scripted")
    assert answer.code == 0
    assert "latency" in answer.stdout
    assert "Mean seconds before an answer." in " ".join(answer.stdout.split())
    assert ">= 0.0, <= 60.0" in " ".join(answer.stdout.split())


def test_show_as_json_holds_the_schema_of_the_options(influence):
    document = influence("plugins", "show", "scripted", "--json").document
    assert document["schema"] == "influence.plugins.show/1"
    assert document["components"][0]["options"]["properties"]["jitter"]["maximum"] == 1.0


def test_show_of_an_unknown_component_suggests_the_nearest(influence):
    answer = influence("plugins", "show", "script")
    assert answer.code == 2
    assert "Unknown component 'script'. Did you mean 'scripted'?" in answer.stderr


def test_show_of_an_unavailable_component_tells_the_mend(influence, broken):
    answer = influence("plugins", "show", "needy")
    assert answer.code == 0
    assert "no_such_library is not installed. pip install no_such_library" in answer.stderr


def test_the_doctor_loads_what_is_offered(influence, broken):
    answer = influence("plugins", "doctor")
    assert answer.code == 1
    assert "backend scripted: ok" in answer.stdout
    assert "backend heavy: broken: OSError: libmodel.so is missing." in answer.stdout
    assert "backend needy: unavailable: no_such_library is not installed." in answer.stdout
    assert "The plugin gone (gone-dist 2.0) was skipped: ImportError: no. pip uninstall gone-dist" in answer.stderr


@pytest.mark.slow
def test_the_doctor_finds_nothing_wrong_with_ours(influence):
    answer = influence("plugins", "doctor", "--json")
    assert {each["state"] for each in answer.document["components"]} <= {"ok", "unavailable"}
    assert answer.document["problems"] == []
    assert answer.code == 0
