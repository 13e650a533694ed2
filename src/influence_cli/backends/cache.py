"""Answers kept on disk, so that the same question is paid for once.

One SQLite file, ``answers.db``, in a folder that any number of runs and processes may share. The key is a hash of
everything that determines an answer: backend, model, the options that matter (see :func:`answer_options`), the whole
request, and the state of the files behind a local model or adapter.

Invariant: what comes from the cache is what a backend answered to the same key, marked as cached; a damaged file is an
``InfluenceError``, never an answer.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Literal, NoReturn, TypeVar

import orjson
from pydantic import BaseModel, JsonValue, ValidationError

from influence_cli.backends.protocol import Backend
from influence_cli.errors import InfluenceError
from influence_cli.schemas.requests import (
    Capabilities,
    ChoiceRequest,
    Distribution,
    GenerateRequest,
    Generation,
    Usage,
)

FILE_NAME = "answers.db"
_FORMAT = 1
_APPLICATION_ID = 0x696E_666C  # "infl"
_BUSY_SECONDS = 30.0
_PAUSE_SECONDS = 0.02
_PRIMARY_CODE = 0xFF  # of SQLite's extended result codes
_MOST_FILES = 10_000

Asked = Literal["generate", "choose"]
_Answer = TypeVar("_Answer", Generation, Distribution)


def answer_options(options: BaseModel) -> dict[str, JsonValue]:
    """Return the options that can change an answer, as JSON data.

    All do, but for fields declared with ``json_schema_extra={"affects_answers": False}`` (limits, time-outs, ...).
    """
    fields = type(options).model_fields
    neutral = {
        name
        for name, field in fields.items()
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("affects_answers") is False
    }
    data: dict[str, JsonValue] = options.model_dump(mode="json", exclude=neutral)
    return data


def fingerprint(name: str) -> str:
    """Return a digest of the names, sizes and times of the files at the path ``name``; empty where there are none."""
    root = Path(name)
    try:
        if not root.exists():
            return ""
        files = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.is_file())
        digest = blake2b(digest_size=16)
        for path in files[:_MOST_FILES]:
            facts = path.stat()
            digest.update(f"{path.relative_to(root)}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode())
    except (OSError, ValueError):
        return ""
    return digest.hexdigest()


class AnswerCache:
    """The file of answers. Use from one thread; other processes may use the file at the same time."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            hint = "Name a folder that can be written to."
            raise InfluenceError(
                f"The answer cache cannot be kept in {folder}: {error.strerror}.", hint=hint
            ) from error
        try:
            self._db = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)
        except sqlite3.Error as error:
            self._fail(error)
        try:
            self._prepare()
        except sqlite3.Error as error:
            self._db.close()
            self._fail(error)
        except InfluenceError:
            self._db.close()
            raise

    def _prepare(self) -> None:
        db = self._db
        db.execute("BEGIN")  # the three facts are of one moment, whatever another process does
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
        application = int(db.execute("PRAGMA application_id").fetchone()[0])
        tables = int(db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
        db.execute("COMMIT")
        if tables and application != _APPLICATION_ID:
            hint = "Name another folder for the answer cache."
            raise InfluenceError(f"{self.path} is a database of something else.", hint=hint)
        if version > _FORMAT:
            hint = "Update influence, or name another folder for the answer cache."
            raise InfluenceError(f"{self.path} was written by a newer version of influence.", hint=hint)
        self._write_ahead()
        db.execute("PRAGMA synchronous = NORMAL")
        if not tables:
            db.execute("BEGIN IMMEDIATE")  # two processes may get here at once
            db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {_FORMAT}")
            db.execute("CREATE TABLE IF NOT EXISTS answer (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")
            db.execute("COMMIT")

    def _write_ahead(self) -> None:
        """Switch to write-ahead logging, however many other processes do so at this moment.

        SQLite answers at once that the file is busy where waiting could be a deadlock, so the waiting is done here.
        """
        give_up = time.monotonic() + _BUSY_SECONDS
        self._db.execute("PRAGMA busy_timeout = 0")
        while not self._switched(last=time.monotonic() > give_up):
            time.sleep(_PAUSE_SECONDS)
        self._db.execute(f"PRAGMA busy_timeout = {round(_BUSY_SECONDS * 1000)}")

    def _switched(self, *, last: bool) -> bool:
        """Say whether the file is in write-ahead mode now; the ``last`` try raises instead."""
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if last or error.sqlite_errorcode & _PRIMARY_CODE != sqlite3.SQLITE_BUSY:
                raise
            return False
        return True

    def get(self, key: bytes) -> bytes | None:
        """Return what is stored under ``key``; InfluenceError if the file is damaged."""
        try:
            row = self._db.execute("SELECT value FROM answer WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            self._fail(error)
        return None if row is None else bytes(row[0])

    def put(self, key: bytes, value: bytes) -> None:
        """Store ``value`` under ``key``, unless something is there; InfluenceError if it cannot be written."""
        try:
            self._db.execute("INSERT OR IGNORE INTO answer VALUES (?, ?)", (key, value))
        except sqlite3.Error as error:
            self._fail(error)

    def close(self) -> None:
        """Close the file; it is not used afterwards."""
        with suppress(sqlite3.Error):
            self._db.close()

    def damaged(self, what: str) -> InfluenceError:
        """Return the error for a file that does not hold what it should."""
        return InfluenceError(
            f"The answer cache {self.path} is damaged: {what}.", hint="Delete the file to start afresh."
        )

    def _fail(self, error: sqlite3.Error) -> NoReturn:
        if isinstance(error, sqlite3.OperationalError) and "malformed" not in str(error):
            hint = "Free some space or mend its permissions, or name another folder."
            raise InfluenceError(f"The answer cache {self.path} cannot be used: {error}.", hint=hint) from error
        raise self.damaged(str(error)) from error


class CachedBackend:
    """A backend that asks another one only what the cache does not hold.

    ``identity`` is everything about the other one that determines its answers: its name, model and options. With ``own``
    the cache is of the very work that asks, an earlier sitting of it: what an answer took then is what it took.
    """

    def __init__(
        self, backend: Backend, cache: AnswerCache, identity: Mapping[str, JsonValue], *, own: bool = False
    ) -> None:
        self.backend = backend
        self._cache = cache
        self._own = own
        model = identity.get("model")
        files = fingerprint(model) if isinstance(model, str) else ""
        self._identity = orjson.dumps([_FORMAT, dict(identity), files], option=orjson.OPT_SORT_KEYS)

    @property
    def capabilities(self) -> Capabilities:
        """What the other backend can do."""
        return self.backend.capabilities

    @property
    def notes(self) -> list[str]:
        """What the other backend has to say about its answers."""
        return list(getattr(self.backend, "notes", ()))

    async def generate(self, request: GenerateRequest) -> Generation:
        """Return the stored reply to ``request``, or the other backend's, which is then stored."""
        key = self._key("generate", request)
        stored = self._cache.get(key)
        if stored is not None:
            return self._read(Generation, stored)
        answer = await self.backend.generate(request)
        self._cache.put(key, answer.model_dump_json().encode())
        return answer

    async def choose(self, request: ChoiceRequest) -> Distribution:
        """Return the stored distribution for ``request``, or the other backend's, which is then stored."""
        key = self._key("choose", request)
        stored = self._cache.get(key)
        if stored is not None:
            return self._read(Distribution, stored)
        answer = await self.backend.choose(request)
        self._cache.put(key, answer.model_dump_json().encode())
        return answer

    async def aclose(self) -> None:
        """Release the other backend and the file."""
        self._cache.close()
        await self.backend.aclose()

    def _key(self, asked: Asked, request: GenerateRequest | ChoiceRequest) -> bytes:
        digest = blake2b(digest_size=32)
        files = fingerprint(request.adapter) if request.adapter else ""
        for part in (self._identity, asked.encode(), files.encode(), request.model_dump_json().encode()):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
        return digest.digest()

    def _read(self, kind: type[_Answer], stored: bytes) -> _Answer:
        try:
            answer = kind.model_validate_json(stored)
        except ValidationError as error:
            raise self._cache.damaged(f"an answer is no {kind.__name__}") from error
        if self._own:
            return answer
        usage: Usage = answer.usage.model_copy(update={"cached": True, "requests": 0, "latency": 0.0})
        return answer.model_copy(update={"usage": usage})
