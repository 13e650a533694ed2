"""Jinja2 templates reduced to what prompts need, so that none can run long, grow large or reach into Python.

Invariant: a template that :func:`compile_template` accepts names every variable it uses in advance (so that it can be
checked without being rendered), and its output is linear in the length of its inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from influence_cli.errors import InfluenceError

FILTERS = frozenset(
    {"capitalize", "default", "first", "int", "join", "last", "length", "lower", "round", "title", "trim", "upper"}
)
MAX_LOOP_DEPTH = 1

_ALLOWED = (
    nodes.Template,
    nodes.Output,
    nodes.TemplateData,
    nodes.Name,
    nodes.Getattr,
    nodes.Getitem,
    nodes.Const,
    nodes.If,
    nodes.For,
    nodes.CondExpr,
    nodes.Compare,
    nodes.Operand,
    nodes.And,
    nodes.Or,
    nodes.Not,
    nodes.Filter,
    nodes.Test,
    nodes.Concat,
    nodes.Add,
    nodes.Sub,
    nodes.List,
    nodes.Tuple,
    nodes.Keyword,
)
_TESTS = frozenset({"defined", "undefined", "none", "string", "number", "sequence", "mapping", "in", "eq", "ne"})

_JINJA = ImmutableSandboxedEnvironment(
    undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=False
)
_JINJA.globals.clear()


class TemplateProblem(Exception):  # noqa: N818 - data about a text, turned into a Problem with its place by the loader
    """Why a template was refused; ``pattern`` is a regular expression that finds the place in its source."""

    def __init__(self, message: str, hint: str = "", *, line: int = 1, pattern: str | None = None) -> None:
        super().__init__(message)
        self.message, self.hint, self.line, self.pattern = message, hint, line, pattern


@dataclass(frozen=True)
class Reference:
    """A variable that a template uses: ``profile.age`` is ("profile", "age")."""

    name: str
    attribute: str | None = None

    def __str__(self) -> str:
        """Return the reference as a template writes it."""
        return f"{self.name}.{self.attribute}" if self.attribute else self.name


class PromptTemplate:
    """A checked template: what it needs, and how to render it."""

    def __init__(self, source: str, references: frozenset[Reference], compiled: Any) -> None:
        self.source = source
        self.references = references
        self._constant = source if compiled is None else None
        self._compiled = compiled

    def render(self, variables: Mapping[str, Any]) -> str:
        """Return the text for ``variables``; InfluenceError if a value does not fit its use."""
        if self._constant is not None:
            return self._constant
        try:
            return str(self._compiled.render(variables))
        except (TemplateError, TypeError, ValueError, OverflowError) as error:
            raise InfluenceError(
                f"A template cannot be rendered: {error}.", hint=f"It begins {self.source[:60]!r}."
            ) from None


@lru_cache(maxsize=4096)
def compile_template(source: str) -> PromptTemplate:
    """Return ``source`` as a checked template; TemplateProblem if it is refused."""
    if "{" not in source:
        return PromptTemplate(source, frozenset(), None)
    try:
        tree = _JINJA.parse(source)
        references = frozenset(_references(tree))
        return PromptTemplate(source, references, _JINJA.from_string(source))
    except TemplateSyntaxError as error:
        raise TemplateProblem(f"Template syntax: {error.message}.", line=error.lineno) from None
    except RecursionError:
        raise TemplateProblem("The template is nested too deeply.") from None
    except TemplateError as error:
        raise TemplateProblem(f"Template: {error}.") from None


def _references(tree: nodes.Template) -> Iterator[Reference]:
    """Yield the outside variables of ``tree``; TemplateProblem for a construct that is not allowed."""
    yield from _visit(tree, bound=frozenset(), loops=0)


def _visit(node: nodes.Node, bound: frozenset[str], loops: int) -> Iterator[Reference]:
    _check(node)
    if isinstance(node, nodes.For):
        yield from _visit_loop(node, bound, loops)
        return
    if isinstance(node, nodes.Getattr) and isinstance(node.node, nodes.Name):
        if node.attr.startswith("_"):
            raise TemplateProblem(f"The attribute {node.attr!r} is not for templates.", "Remove it.", pattern=node.attr)
        if node.node.name not in bound:
            yield Reference(node.node.name, node.attr)
        return
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const) and isinstance(node.node, nodes.Name):
        if node.node.name not in bound:
            yield Reference(node.node.name, str(node.arg.value))
        return
    if isinstance(node, nodes.Name):
        if node.name not in bound:
            yield Reference(node.name)
        return
    for child in node.iter_child_nodes():
        yield from _visit(child, bound, loops)


def _visit_loop(node: nodes.For, bound: frozenset[str], loops: int) -> Iterator[Reference]:
    if loops >= MAX_LOOP_DEPTH:
        raise TemplateProblem("A loop inside a loop is not allowed.", line=node.lineno, pattern=r"\{%-?\s*for")
    if node.recursive or not isinstance(node.iter, nodes.Name | nodes.Getattr):
        raise TemplateProblem("A loop may only go over a variable.", line=node.lineno, pattern=r"\{%-?\s*for")
    targets = node.target.items if isinstance(node.target, nodes.Tuple) else [node.target]
    names = {target.name for target in targets if isinstance(target, nodes.Name)} | {"loop"}
    yield from _visit(node.iter, bound, loops)
    inner = bound | names
    for child in [*node.body, *node.else_, *([node.test] if node.test is not None else [])]:
        yield from _visit(child, inner, loops + 1)


def _check(node: nodes.Node) -> None:
    kind = type(node).__name__.lower()
    if not isinstance(node, _ALLOWED):
        hint = "Templates may use variables, if, for over a variable, and simple filters."
        raise TemplateProblem(f"The construct {kind!r} is not allowed in a template.", hint, line=node.lineno)
    if isinstance(node, nodes.Filter) and node.name not in FILTERS:
        hint = f"Allowed: {', '.join(sorted(FILTERS))}."
        raise TemplateProblem(f"The filter {node.name!r} is not allowed.", hint, pattern=rf"\|\s*{node.name}\b")
    if isinstance(node, nodes.Test) and node.name not in _TESTS:
        raise TemplateProblem(f"The test {node.name!r} is not allowed.", line=node.lineno, pattern=rf"\b{node.name}\b")
    if isinstance(node, nodes.Getattr) and not isinstance(node.node, nodes.Name):
        raise TemplateProblem("Only one attribute of a variable can be read.", line=node.lineno, pattern=node.attr)
    if isinstance(node, nodes.Getitem):
        _check_index(node)


def _check_index(node: nodes.Getitem) -> None:
    if not isinstance(node.arg, nodes.Const) or not isinstance(node.arg.value, str):
        raise TemplateProblem("An index must be a name, written out.", "Or use first or last.", line=node.lineno)
    if node.arg.value.startswith("_"):
        raise TemplateProblem(f"The index {node.arg.value!r} is not for templates.", "Remove it.", line=node.lineno)
    if not isinstance(node.node, nodes.Name):
        raise TemplateProblem("Only one index of a variable can be read.", line=node.lineno)
