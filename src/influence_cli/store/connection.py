"""Opening ``run.db``, and what SQLite's errors mean to a person."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from influence_cli.errors import InfluenceError

BUSY_SECONDS = 30.0
DISK_FULL = "the disk is full"
"""What a person is told, and what a sweep looks for among the last words of a run."""
_NO_ROOM = 64 * 1024

_MEANINGS = {
    sqlite3.SQLITE_FULL: (DISK_FULL, "Free some space, then go on with --resume: what is stored is safe."),
    sqlite3.SQLITE_READONLY: ("it is read-only", "Make the directory writable, or write elsewhere with --out."),
    sqlite3.SQLITE_CANTOPEN: ("it cannot be opened", "Check that the directory exists and is yours to write."),
    sqlite3.SQLITE_IOERR: ("the disk gives an error", "Check the disk and its space, then go on with --resume."),
    sqlite3.SQLITE_BUSY: ("another process holds it", "Wait for it, or stop it."),
    sqlite3.SQLITE_CORRUPT: ("it is damaged", "See `influence runs check`; restore a copy."),
    sqlite3.SQLITE_NOTADB: ("it is no database", "Name a directory that `influence` made."),
    sqlite3.SQLITE_PERM: ("it may not be accessed", "Check the permissions."),
}


def store_error(error: sqlite3.Error, path: Path) -> InfluenceError:
    """Return what ``error`` means: one line with the path and the mend."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None and code & 0xFF == sqlite3.SQLITE_IOERR and is_full(path.parent):
        code = sqlite3.SQLITE_FULL  # the log's index cannot grow: SQLite does not say why
    meaning = _MEANINGS.get(code & 0xFF) if code is not None else None
    if meaning is None:
        return InfluenceError(f"{path}: {error}.", hint="See `influence runs check`.")
    return InfluenceError(f"{path}: {meaning[0]}.", hint=meaning[1])


def is_full(folder: Path) -> bool:
    """Return whether the disk that ``folder`` is on has no room left."""
    try:
        return shutil.disk_usage(folder).free < _NO_ROOM
    except OSError:
        return False


def file_error(error: OSError, path: Path) -> InfluenceError:
    """Return what an error of the file system means: one line with the path and the mend."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InfluenceError(f"{path}: {DISK_FULL}.", hint="Free some space.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return InfluenceError(f"{path} cannot be written.", hint="Write elsewhere with --out, or change permissions.")
    return InfluenceError(f"{path}: {os.strerror(error.errno or 0)}.")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors inside the block into InfluenceError."""
    try:
        yield
    except sqlite3.Error as error:
        raise store_error(error, path) from None


def connect(path: Path, *, write: bool) -> sqlite3.Connection:
    """Return a connection in autocommit mode, for writing or for reading only; InfluenceError if there is none.

    Durability: WAL with ``synchronous=NORMAL`` keeps every commit over ``kill -9``; a power cut may cost the last ones.
    Where nothing can be written, SQLite reads only what it is told will not change: a run without a log beside it.
    """
    with explained(path):
        if write:
            return _opened(path, "mode=rwc", "journal_mode = WAL", "synchronous = NORMAL", "wal_autocheckpoint = 4000")
        try:
            return _opened(path, "mode=ro", "query_only = ON", "schema_version")
        except sqlite3.OperationalError:
            if os.access(path.parent, os.W_OK) or not _settled(path):
                raise
            return _opened(path, "mode=ro&immutable=1", "query_only = ON")


def _settled(path: Path) -> bool:
    """Return whether everything is in the database itself, and nothing in a log beside it."""
    log = path.with_name(f"{path.name}-wal")
    return path.is_file() and not (log.exists() and log.stat().st_size)


def _opened(path: Path, how: str, *pragmas: str) -> sqlite3.Connection:
    uri = f"{path.resolve().as_uri()}?{how}"
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, cached_statements=64)
    try:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA foreign_keys = OFF")
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection
