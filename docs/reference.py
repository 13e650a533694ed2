"""Writes the reference pages when the documentation is built: an mkdocs hook, from the program itself.

Commands come from the command line, hooks from the hookspecs, fields from the schemas, options from the components that
plugins offer, names from the public face: no page of these can be out of date.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from influence_cli import api, schemas
from influence_cli.cli.app import build_app
from influence_cli.plugins import hookspecs
from influence_cli.plugins.component import Component
from influence_cli.plugins.registry import HOOKS, make_registry
from influence_cli.scoring.rubric_files import shipped_rubrics

GENERATED = "This page is generated from the program.\n\n"


def pages() -> dict[str, str]:
    """Return the Markdown of every reference page by its path under docs/."""
    return {
        "reference/commands.md": commands_page(),
        "reference/components.md": components_page(),
        "reference/hooks.md": hooks_page(),
        "reference/public-face.md": names_page(),
        "reference/rubrics.md": rubrics_page(),
        "reference/schemas.md": schemas_page(),
    }


def on_files(files: Any, config: Any) -> Any:
    """Add the reference pages to those that are built; called by mkdocs."""
    from mkdocs.structure.files import File

    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


# -- commands ---------------------------------------------------------------------------------------------------------


def commands_page() -> str:
    """Return every command with its arguments and options."""
    root = typer.main.get_command(build_app())
    return "# Commands\n\n" + GENERATED + "".join(_command(*found) for found in leaves(root))


def leaves(command: Any, named: tuple[str, ...] = ("influence",)) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the words and the command of everything that can be called."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield named, command
        return
    for name, each in inner.items():
        # the default command of a group is called without a name of its own
        yield from leaves(each, named if name == "run" else (*named, name))


def _command(named: tuple[str, ...], command: Any) -> str:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and not each.hidden]
    told = re.sub(r"\[/?bold\]", "", inspect.cleandoc(command.help or ""))
    usage = " ".join([*named, *(_shown(each) for each in arguments), "[OPTIONS]"])
    lines = [
        f"## {' '.join(named)}",
        "",
        told,
        "",
        "```text",
        usage,
        "```",
        "",
        "| name | default | what it is |",
        "| --- | --- | --- |",
    ]
    for each in arguments:
        lines.append(f"| `{each.name}` | | {_cell(getattr(each, 'help', ''))} |")
    for each in options:
        flags = ", ".join(f"`{flag}`" for flag in [*each.opts, *each.secondary_opts])
        default = each.default if isinstance(each.default, str | int | float) and not each.is_flag else None
        lines.append(f"| {flags} | {'' if default is None else f'`{default}`'} | {_cell(each.help)} |")
    return "\n".join([*lines, "", ""])


def _shown(argument: Any) -> str:
    name = str(argument.name).upper()
    name = f"{name}..." if argument.nargs == -1 else name
    return name if argument.required else f"[{name}]"


# -- hooks, components, names -----------------------------------------------------------------------------------------


def hooks_page() -> str:
    """Return every hook with its signature and what it promises."""
    parts = ["# Hooks\n\n", GENERATED, "[Plugins](../plugins.md) explains them.\n\n"]
    for name in hook_names():
        hook = getattr(hookspecs, name)
        signature = f"def {name}{inspect.signature(hook)}"
        parts.append(
            f"## {name}\n\n```python\n{signature.replace(chr(39), '')}: ...\n```\n\n{inspect.getdoc(hook)}\n\n"
        )
    fields = [(name, str(field.type)) for name, field in Component.__dataclass_fields__.items()]
    rows = "".join(f"| `{name}` | {_cell(f'`{kind}`')} |\n" for name, kind in fields)
    parts.append(f"## Component\n\n{inspect.getdoc(Component)}\n\n| field | type |\n| --- | --- |\n{rows}")
    return "".join(parts)


def hook_names() -> list[str]:
    """Return the names of all hooks."""
    return [name for name in vars(hookspecs) if name.startswith("influence_")]


def components_page() -> str:
    """Return what plugins offer, with the options of each."""
    registry = make_registry()
    parts = ["# Components and their options\n\n", GENERATED]
    for kind in HOOKS:
        offers = registry.offers(kind)
        parts.append(f"## {kind}\n\n" if offers else "")
        for offer in offers:
            component = offer.component
            parts.append(f"### {kind} {component.name}\n\n{component.summary}\n\n")
            if component.options.model_fields:
                parts.append(_fields(component.options))
    return "".join(parts)


def names_page() -> str:
    """Return every name of the public face."""
    parts = ["# influence_cli.api\n\n", GENERATED, "[From Python](../python.md) shows its use.\n\n"]
    for name in api.__all__:
        value = getattr(api, name)
        parts.append(f"## {name}\n\n")
        if inspect.isfunction(value):
            signature = str(inspect.signature(value)).replace("'", "")
            parts.append(f"```python\n{name}{signature}\n```\n\n")
        told = (inspect.getdoc(value) or "") if inspect.isclass(value) or callable(value) else ""
        told = told if not told.startswith(("dict(", "str(")) else ""
        parts.append(f"{told or f'`{value}`'}\n\n")
        parts += [f"- `{method}`: {said}\n" for method, said in _methods(value)] + ["\n"]
    return "".join(parts)


def _methods(value: Any) -> Iterator[tuple[str, str]]:
    """Yield signature and first line of each public method and property of a class."""
    for name, each in vars(value).items() if inspect.isclass(value) else ():
        told = (inspect.getdoc(each) or "").partition("\n")[0]
        if name.startswith("_") or not told:
            continue
        if inspect.isfunction(each):
            kind = "async " if inspect.iscoroutinefunction(each) else ""
            yield f"{kind}{name}{inspect.signature(each)}".replace("'", ""), told
        elif isinstance(each, property):
            yield name, told


# -- schemas ----------------------------------------------------------------------------------------------------------


def schemas_page() -> str:
    """Return every schema that crosses rooms, with its fields."""
    parts = ["# Schemas\n\n", GENERATED]
    for module, models in schema_models().items():
        parts.append(f"## {module}\n\n")
        for model in models:
            parts.append(f"### {model.__name__}\n\n{inspect.getdoc(model) or ''}\n\n{_fields(model)}")
    return "".join(parts)


def schema_models() -> dict[str, list[type[BaseModel]]]:
    """Return the models of each module of the schemas."""
    found: dict[str, list[type[BaseModel]]] = {}
    for each in pkgutil.iter_modules(schemas.__path__):
        module = importlib.import_module(f"{schemas.__name__}.{each.name}")
        own = [value for value in vars(module).values() if inspect.isclass(value) and issubclass(value, BaseModel)]
        found[each.name] = [model for model in own if model.__module__ == module.__name__ and model.model_fields]
    return {name: models for name, models in found.items() if models}


def rubrics_page() -> str:
    """Return every rubric that is shipped, in its own words."""
    parts = ["# Rubrics\n\n", GENERATED]
    for rubric in shipped_rubrics().values():
        tags = ", ".join(f"`{tag}`" for tag in rubric.tags)
        direction = f"; worse is {rubric.harmful_direction}" if rubric.harmful_direction else ""
        told = f"Scope: {rubric.scope}{direction}. Tags: {tags or 'none'}. Answers: {', '.join(rubric.choices)}."
        parts.append(f"## {rubric.id}\n\n{rubric.title}. {told}\n\n> {' '.join(rubric.question.split())}\n\n")
    return "".join(parts)


def _fields(model: type[BaseModel]) -> str:
    rows = [_field(name, field) for name, field in model.model_fields.items()]
    return "| field | type | default | meaning |\n| --- | --- | --- | --- |\n" + "".join(rows) + "\n"


def _field(name: str, field: FieldInfo) -> str:
    kind = field.annotation.__name__ if inspect.isclass(field.annotation) else str(field.annotation)
    kind = re.sub(r"\b(?:typing|influence_\w+(?:\.\w+)*|collections\.abc)\.", "", kind)
    default = "required" if field.is_required() else repr(field.get_default(call_default_factory=True))
    default = default if len(default) < 40 else "..."
    return f"| `{name}` | {_cell(f'`{kind}`')} | {_cell(f'`{default}`')} | {_cell(field.description)} |\n"


def _cell(text: Any) -> str:
    return " ".join(str(text or "").split()).replace("|", "\\|").replace("<", "&lt;")
