"""The generated reference pages hold everything that the program has."""

import importlib.util

import pytest
import typer

from influence_cli import api
from influence_cli.cli.app import build_app
from influence_cli.plugins.registry import HOOKS, make_registry


@pytest.fixture(scope="module")
def reference(repository):
    spec = importlib.util.spec_from_file_location("reference", repository / "docs" / "reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(reference):
    return reference.pages()


def test_every_command_and_flag_is_there(reference, pages):
    page = pages["reference/commands.md"]
    found = list(reference.leaves(typer.main.get_command(build_app())))
    assert len(found) > 30
    for named, command in found:
        assert f"## {' '.join(named)}\n" in page
        flags = [flag for each in command.params if each.param_type_name == "option" for flag in each.opts]
        assert [flag for flag in flags if f"`{flag}`" not in page] == []


def test_every_hook_component_and_option_is_there(reference, pages):
    assert [name for name in reference.hook_names() if f"## {name}\n" not in pages["reference/hooks.md"]] == []
    page, registry = pages["reference/components.md"], make_registry()
    for offer in [offer for kind in HOOKS for offer in registry.offers(kind)]:
        assert f"### {offer.kind} {offer.component.name}\n" in page
        assert [name for name in offer.component.options.model_fields if f"| `{name}` |" not in page] == []


def test_every_schema_field_and_public_name_is_there(reference, pages):
    page = pages["reference/schemas.md"]
    models = [model for models in reference.schema_models().values() for model in models]
    assert {"TrainConfig", "EnvironmentSpec", "Distribution", "Rubric"} <= {model.__name__ for model in models}
    for model in models:
        assert f"### {model.__name__}\n" in page
        assert [name for name in model.model_fields if f"| `{name}` |" not in page] == []
    assert [name for name in api.__all__ if f"## {name}\n" not in pages["reference/public-face.md"]] == []


def test_tables_have_as_many_cells_in_every_row(pages):
    for path, page in pages.items():
        width = None
        for line in page.splitlines():
            cells = line.replace("\\|", "").count("|")
            width = None if not line.startswith("|") else width or cells
            assert width is None or cells == width, f"{path}: {line}"


def test_the_navigation_names_every_generated_page(pages, repository):
    navigation = (repository / "mkdocs.yml").read_text()
    assert [path for path in pages if f": {path}\n" not in navigation] == []
