"""``influence models``, over a catalogue that a plugin in this process offers."""

from types import SimpleNamespace

import pytest

from influence_cli.cli import app
from influence_cli.errors import InfluenceError
from influence_cli.plugins.component import Component
from influence_cli.plugins.hookspecs import hookimpl
from influence_cli.plugins.loading import Plugin, load_plugins
from influence_cli.plugins.registry import PluginRegistry
from influence_cli.schemas.frozen import Frozen
from influence_cli.schemas.requests import ModelInfo


class Shelf:
    """A catalogue with one model."""

    def __init__(self, options):
        pass

    def models(self):
        small = ModelInfo(name="shelf:small", state="fetchable", summary="A small one.", size_bytes=12_000_000)
        return [small, ModelInfo(name="shelf:large", state="ready", path="/models/large")]

    def pull(self, name, progress):
        if name != "small":
            raise InfluenceError(f"There is no model {name!r}.")
        progress("halfway", 0.5)
        return "/models/small"


class Closed(Shelf):
    """A server that cannot be asked."""

    def models(self):
        raise InfluenceError("The server is closed.")


@pytest.fixture(autouse=True)
def catalogues(monkeypatch):
    """Replace the plugins that are installed by two catalogues."""

    def offered():
        return [
            Component("shelf", "A shelf.", lambda: Shelf, Frozen),
            Component("closed", "Closed.", lambda: Closed, Frozen),
        ]

    def registry():
        manager, _ = load_plugins([])
        manager.register(SimpleNamespace(influence_model_catalogs=hookimpl(offered)), name="shelf")
        return PluginRegistry(manager, [Plugin("shelf", "shelf", "1.0")])

    monkeypatch.setattr(app, "make_registry", registry)


def test_list_shows_models_and_names_servers_that_cannot_be_asked(influence):
    answer = influence("models", "list")
    assert answer.code == 0
    assert "shelf:small" in answer.stdout
    assert "12" in answer.stdout
    assert answer.stderr == "closed: The server is closed.\n"


def test_list_as_json(influence):
    document = influence("models", "list", "--json").document
    assert document["schema"] == "influence.models.list/1"
    assert [each["name"] for each in document["models"]] == ["shelf:small", "shelf:large"]
    assert document["models"][0]["state"] == "fetchable"


def test_a_backend_that_is_asked_by_name_must_answer(influence):
    assert influence("models", "list", "--backend", "shelf").stderr == ""
    answer = influence("models", "list", "--backend", "closed")
    assert (answer.code, answer.stderr) == (2, "error: The server is closed.\n")
    assert "Did you mean 'shelf'?" in influence("models", "list", "--backend", "shell").stderr


@pytest.mark.parametrize("name", ["shelf:large", "large"])
def test_show_tells_where_a_model_lies(influence, name):
    assert "/models/large" in influence("models", "show", name).stdout
    document = influence("models", "show", name, "--json").document
    assert (document["schema"], document["path"]) == ("influence.models.show/1", "/models/large")


def test_show_of_an_unknown_model_suggests_the_nearest(influence):
    answer = influence("models", "show", "shelf:smal")
    assert answer.code == 2
    assert "Unknown model 'shelf:smal'. Did you mean 'shelf:small'" in answer.stderr


def test_pull_says_where_the_model_lies(influence):
    answer = influence("models", "pull", "shelf:small")
    assert (answer.code, answer.stdout) == (0, "/models/small\n")
    document = influence("models", "pull", "shelf:small", "--json").document
    assert document == {"schema": "influence.models.pull/1", "model": "shelf:small", "path": "/models/small"}


def test_pull_of_an_unknown_model(influence):
    answer = influence("models", "pull", "shelf:huge")
    assert answer.code == 2
    assert "There is no model 'huge'." in answer.stderr
