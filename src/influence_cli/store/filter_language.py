"""The language of the query bar: ``rating>8 and veto>0.5 and population:gameable "just stay home"``.

    query      = or
    or         = and {"or" and}
    and        = not {["and"] not}            two terms side by side are joined by "and"
    not        = ["not" | "-"] term
    term       = "(" or ")" | field operator value | words
    operator   = ":" | "=" | "!=" | "<" | "<=" | ">" | ">="
    words      = a word, word* or "phrase"    found in the conversation's messages

Invariant: :func:`unparse` of what :func:`parse` returns parses to the same again; every mistake is a :class:`QueryError`
that names its column, counted from 1.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from influence_cli.errors import InfluenceError

Operator = Literal[":", "=", "!=", "<", "<=", ">", ">="]
_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<paren>[()])
    |(?P<quoted>"(?:[^"\\]|\\.)*")
    |(?P<operator>!=|<=|>=|[:=<>])
    |(?P<word>[^\s()":=<>!]+)
    """,
    re.VERBOSE | re.DOTALL,
)
_BARE = re.compile(r"[^\s()\":=<>!-][^\s()\":=<>!]*")
_WORDS = ("and", "or", "not")
_DEEPEST = 40


class QueryError(InfluenceError):
    """A query that cannot be read; ``column`` is where, from 1."""

    def __init__(self, message: str, column: int, *, hint: str | None = None) -> None:
        super().__init__(f"column {column}: {message}", hint=hint)
        self.column = column


@dataclass(frozen=True)
class Comparison:
    """A field against a value; ``:`` also takes a pattern with ``*``. ``column`` does not count for equality."""

    field: str
    operator: Operator
    value: str
    column: int = dataclasses.field(default=1, compare=False)
    value_column: int = dataclasses.field(default=1, compare=False)


@dataclass(frozen=True)
class Words:
    """A phrase that a message holds; with ``prefix`` its last word may go on."""

    text: str
    prefix: bool = False
    column: int = dataclasses.field(default=1, compare=False)


@dataclass(frozen=True)
class Not:
    """What does not hold."""

    term: Node


@dataclass(frozen=True)
class Both:
    """What holds if all terms do."""

    terms: tuple[Node, ...]


@dataclass(frozen=True)
class Either:
    """What holds if one of the terms does."""

    terms: tuple[Node, ...]


Node = Comparison | Words | Not | Both | Either


@dataclass(frozen=True)
class Token:
    """A piece of a query: ``text`` as it is written, ``column`` where it begins, from 1."""

    kind: str
    text: str
    column: int

    @property
    def end(self) -> int:
        """The column after it."""
        return self.column + len(self.text)


def tokens_of(query: str) -> list[Token]:
    """Return the tokens of ``query`` without space; QueryError for a quote that is not closed or a stray sign."""
    found: list[Token] = []
    position = 0
    while position < len(query):
        match = _TOKEN.match(query, position)
        if match is None:
            if query[position] == '"':
                raise QueryError("this quote is not closed.", position + 1, hint='Add a " at its end.')
            raise QueryError(f"{query[position]!r} means nothing here.", position + 1, hint="Put it in quotes.")
        if match.lastgroup != "space":
            found.append(Token(str(match.lastgroup), match.group(), position + 1))
        position = match.end()
    return found


def parse(query: str, fields: Callable[[str], bool], known: Iterable[str] = ()) -> Node | None:
    """Return what ``query`` asks for, None if it is empty; ``fields`` says which fields exist, ``known`` names them.

    Raises QueryError for one that cannot be read.
    """
    tokens = tokens_of(query)
    if not tokens:
        return None
    reader = _Reader(tokens, fields, tuple(known), len(query))
    node = reader.either()
    if reader.peek() is not None:
        raise QueryError("this bracket closes nothing.", reader.column())
    return node


class _Reader:
    """A recursive descent over tokens."""

    def __init__(
        self, tokens: Sequence[Token], fields: Callable[[str], bool], known: tuple[str, ...], length: int
    ) -> None:
        self._tokens = tokens
        self._fields = fields
        self._known = known
        self._length = length
        self._at = 0
        self._depth = 0

    def peek(self, ahead: int = 0) -> Token | None:
        """Return a token that is not read yet."""
        place = self._at + ahead
        return self._tokens[place] if place < len(self._tokens) else None

    def column(self) -> int:
        """Return where the next token stands, or where the query ends."""
        token = self.peek()
        return token.column if token else self._length + 1

    def _next(self) -> Token:
        token = self._tokens[self._at]
        self._at += 1
        return token

    def _keyword(self, *names: str) -> bool:
        token, after = self.peek(), self.peek(1)
        return (
            token is not None
            and token.kind == "word"
            and token.text.lower() in names
            and not (after is not None and after.kind == "operator")
        )

    def either(self) -> Node:
        """Read terms joined by ``or``."""
        terms = [self.both()]
        while self._keyword("or"):
            self._next()
            terms.append(self.both())
        return terms[0] if len(terms) == 1 else Either(tuple(terms))

    def both(self) -> Node:
        """Read terms joined by ``and`` or by nothing."""
        terms = [self.negated()]
        while True:
            if self._keyword("and"):
                self._next()
            elif self.peek() is None or self._keyword("or") or self._closes():
                break
            terms.append(self.negated())
        return terms[0] if len(terms) == 1 else Both(tuple(terms))

    def _closes(self) -> bool:
        token = self.peek()
        return token is not None and token.text == ")"

    def negated(self) -> Node:
        """Read a term, perhaps negated."""
        self._depth += 1
        if self._depth > _DEEPEST:
            raise QueryError("this is nested too deeply.", self.column())
        try:
            if self._keyword("not"):
                self._next()
                return Not(self.negated())
            return self.term()
        finally:
            self._depth -= 1

    def term(self) -> Node:
        """Read a bracket, a comparison or words."""
        token = self.peek()
        if token is None:
            raise QueryError("something is missing at the end.", self.column())
        if self._keyword("and", "or"):
            raise QueryError(f"{token.text!r} joins two terms, and the one before it is missing.", token.column)
        if token.text == "(" and token.kind == "paren":
            self._next()
            node = self.either()
            if not self._closes():
                raise QueryError("this bracket is not closed.", token.column, hint="Add a ) at its end.")
            self._next()
            return node
        if token.kind == "paren":
            raise QueryError("this bracket closes nothing.", token.column)
        if token.kind == "operator":
            raise QueryError(f"a field must stand before {token.text!r}.", token.column, hint="For instance rating>8.")
        after = self.peek(1)
        if token.kind == "word" and after is not None and after.kind == "operator":
            return self._comparison()
        self._next()
        return _words(token)

    def _comparison(self) -> Node:
        name, operator = self._next(), self._next()
        written = name.text
        minus = written.startswith("-") and len(written) > 1
        asked = written[1:] if minus else written
        if not self._fields(asked.lower()):
            near = difflib.get_close_matches(asked.lower(), self._known, n=1, cutoff=0.5)
            hint = f"Did you mean {' or '.join(near)}?" if near else "F1 lists the fields."
            raise QueryError(f"there is no field {asked!r}.", name.column + minus, hint=hint)
        token = self.peek()
        if token is None or token.kind not in ("word", "quoted"):
            raise QueryError(f"a value must stand after {asked}{operator.text}.", self.column())
        self._next()
        value = _unquoted(token.text) if token.kind == "quoted" else token.text
        comparison = Comparison(asked.lower(), operator.text, value, name.column + minus, token.column)  # type: ignore[arg-type]
        return Not(comparison) if minus else comparison


def _words(token: Token) -> Node:
    if token.kind == "quoted":
        return _searchable(_unquoted(token.text), False, token)
    text = token.text
    if text.startswith("-") and len(text) > 1:
        return Not(_searchable(text.lstrip("-").rstrip("*"), text.endswith("*"), token))
    return _searchable(text.rstrip("*"), text.endswith("*"), token)


def _searchable(text: str, prefix: bool, token: Token) -> Words:
    if not any(character.isalnum() for character in text):
        raise QueryError(f"{token.text} holds no word to look for.", token.column)
    return Words(text, prefix, token.column)


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)


def quoted(text: str) -> str:
    """Return ``text`` in quotes, as a query holds it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def unparse(node: Node) -> str:
    """Return ``node`` as a query."""
    match node:
        case Comparison(name, operator, value):
            return f"{name}{operator}{value if _BARE.fullmatch(value) else quoted(value)}"
        case Words(text, prefix):
            bare = _BARE.fullmatch(text) and text.lower() not in _WORDS and not text.endswith("*")
            return f"{text}*" if prefix else (text if bare else quoted(text))
        case Not(term):
            return f"not {_inner(term)}"
        case Both(terms):
            return " and ".join(_inner(term) for term in terms)
        case Either(terms):
            return " or ".join(_inner(term) for term in terms)


def _inner(node: Node) -> str:
    return f"({unparse(node)})" if isinstance(node, Both | Either) else unparse(node)


def words_of(node: Node | None) -> list[str]:
    """Return the words and phrases that ``node`` asks for; those that must be absent are not among them."""
    match node:
        case Words(text):
            return [text]
        case Both(terms) | Either(terms):
            return [word for term in terms for word in words_of(term)]
        case _:
            return []
