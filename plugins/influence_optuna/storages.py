"""Where Optuna remembers a study: SQLite in the sweep's folder, or any database that SQLAlchemy knows."""

from __future__ import annotations

import re
from typing import Any

import optuna
from optuna.storages import RDBStorage
from sqlalchemy import event

from influence_cli.api import InfluenceError, Study

_PASSWORD = re.compile(r"(?<=://)[^/@\s]*:[^/@\s]*(?=@)")


def open_study(study: Study, address: str, *, own: bool) -> tuple[RDBStorage, optuna.Study]:
    """Return the storage at ``address`` and the study of the sweep in it, made if it is not there.

    InfluenceError, in one line and without a password, where the storage cannot be had.
    """
    shown = study.folder if own else _PASSWORD.sub("***", address)
    if "://" not in address:
        raise InfluenceError(f"The storage {shown!r} is no address.", hint="For instance sqlite:////shared/study.db.")
    try:
        storage = RDBStorage(address)
        if own:
            _unhurried(storage)
        made = optuna.create_study(
            study_name=study.name, storage=storage, directions=list(study.directions), load_if_exists=True
        )
    except ImportError as error:
        raise InfluenceError(f"The storage {shown} needs a driver: {_told(error)}.") from None
    except Exception as error:  # noqa: BLE001 - SQLAlchemy and every driver have errors of their own
        raise InfluenceError(f"The storage {shown} cannot be reached: {_told(error)}.") from None
    return storage, made


def _unhurried(storage: RDBStorage) -> None:
    """Let the disk take its time: a power cut may cost the last trials here, which the sweep has and tells again."""

    @event.listens_for(storage.engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        for pragma in ("journal_mode = WAL", "synchronous = OFF"):
            connection.execute(f"PRAGMA {pragma}")

    storage.engine.dispose()


def _told(error: BaseException) -> str:
    lines = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
    return _PASSWORD.sub("***", lines[0]).rstrip(".")
