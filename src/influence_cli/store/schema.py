"""The tables of ``run.db``, their version, and the way from older versions to this one."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from influence_cli.errors import InfluenceError

SCHEMA_VERSION = 3
APPLICATION_ID = 0x696E6672  # "infr"

OF_EPISODE = ("trajectory", "message", "judgement", "score", "label", "call")
"""Tables whose rows each belong to one conversation."""

SCORE = """
CREATE TABLE score (
  id INTEGER PRIMARY KEY,
  episode_id INTEGER NOT NULL REFERENCES episode (id),
  turn INTEGER NOT NULL,
  rubric TEXT NOT NULL,
  rubric_hash TEXT NOT NULL,
  judge TEXT NOT NULL,
  method TEXT NOT NULL,
  value REAL,
  mass REAL,
  usable INTEGER NOT NULL,
  distribution TEXT,
  rationale TEXT,
  quotes TEXT,
  failure TEXT,
  ended REAL NOT NULL,
  UNIQUE (episode_id, turn, rubric_hash, judge, method)
);
CREATE INDEX score_of_rubric ON score (rubric);
"""

LABEL = """
CREATE TABLE label (
  id INTEGER PRIMARY KEY,
  episode_id INTEGER NOT NULL REFERENCES episode (id),
  turn INTEGER NOT NULL,
  rubric TEXT NOT NULL,
  value TEXT,
  note TEXT,
  flag INTEGER NOT NULL DEFAULT 0,
  author TEXT NOT NULL,
  time REAL NOT NULL,
  UNIQUE (episode_id, turn, rubric, author)
);
"""

STAGE = """
CREATE TABLE stage (
  iteration INTEGER NOT NULL,
  name TEXT NOT NULL,
  started REAL NOT NULL,
  finished REAL,
  data TEXT NOT NULL DEFAULT '{}',
  PRIMARY KEY (iteration, name)
);
"""

TABLES = """
CREATE TABLE run (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  run_id TEXT NOT NULL,
  state TEXT NOT NULL,
  created REAL NOT NULL,
  seconds REAL NOT NULL DEFAULT 0
);
CREATE TABLE iteration (
  number INTEGER PRIMARY KEY,
  adapter TEXT,
  started REAL,
  finished REAL
);
CREATE TABLE episode (
  id INTEGER PRIMARY KEY,
  iteration INTEGER NOT NULL,
  environment TEXT NOT NULL,
  scenario TEXT NOT NULL,
  initial_state TEXT NOT NULL,
  sample INTEGER NOT NULL,
  population TEXT,
  cue TEXT NOT NULL,
  split TEXT NOT NULL,
  seed INTEGER NOT NULL,
  profile TEXT NOT NULL,
  UNIQUE (iteration, environment, scenario, initial_state, sample)
);
CREATE TABLE trajectory (
  episode_id INTEGER PRIMARY KEY REFERENCES episode (id),
  status TEXT NOT NULL DEFAULT 'running',
  reason TEXT,
  state TEXT,
  turns INTEGER NOT NULL DEFAULT 0,
  mean_rating REAL,
  final_rating REAL,
  mean_veto REAL,
  unusable INTEGER NOT NULL DEFAULT 0,
  failure TEXT,
  detail TEXT,
  started REAL NOT NULL,
  finished REAL
);
CREATE TABLE message (
  id INTEGER PRIMARY KEY,
  episode_id INTEGER NOT NULL REFERENCES episode (id),
  turn INTEGER NOT NULL,
  speaker TEXT NOT NULL,
  text TEXT NOT NULL,
  state TEXT NOT NULL,
  source TEXT NOT NULL,
  finish_reason TEXT,
  tool_calls TEXT,
  tool_call_id TEXT,
  outcome TEXT,
  dropped INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX message_of_episode ON message (episode_id);
CREATE INDEX message_dropped ON message (id) WHERE dropped = 1;
CREATE TABLE judgement (
  id INTEGER PRIMARY KEY,
  episode_id INTEGER NOT NULL REFERENCES episode (id),
  turn INTEGER NOT NULL,
  role TEXT NOT NULL,
  state TEXT NOT NULL,
  choices TEXT NOT NULL,
  probabilities TEXT NOT NULL,
  mass REAL NOT NULL,
  method TEXT NOT NULL,
  draws INTEGER,
  expected REAL,
  outcome TEXT,
  usable INTEGER NOT NULL
);
CREATE INDEX judgement_of_episode ON judgement (episode_id);
CREATE TABLE call (
  id INTEGER PRIMARY KEY,
  episode_id INTEGER NOT NULL REFERENCES episode (id),
  turn INTEGER NOT NULL,
  role TEXT NOT NULL,
  ordinal INTEGER NOT NULL,
  model TEXT NOT NULL,
  prompt_tokens INTEGER NOT NULL,
  cached_tokens INTEGER NOT NULL,
  completion_tokens INTEGER NOT NULL,
  requests INTEGER NOT NULL,
  latency REAL NOT NULL,
  cost REAL,
  cached INTEGER NOT NULL,
  error TEXT,
  detail TEXT,
  ended REAL NOT NULL
);
CREATE INDEX call_of_episode ON call (episode_id);
CREATE TABLE event (
  id INTEGER PRIMARY KEY,
  time REAL NOT NULL,
  kind TEXT NOT NULL,
  data TEXT NOT NULL
);
"""


def _keep_outcomes_and_scores(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE message ADD COLUMN outcome TEXT")
    connection.execute("DROP TABLE score")  # nothing ever wrote to it
    _create(connection, SCORE)


def _keep_labels_and_stages(connection: sqlite3.Connection) -> None:
    _create(connection, LABEL)
    _create(connection, STAGE)
    connection.execute("CREATE INDEX IF NOT EXISTS message_dropped ON message (id) WHERE dropped = 1")


def _create(connection: sqlite3.Connection, tables: str) -> None:
    for statement in filter(str.strip, tables.split(";")):
        connection.execute(statement)


MIGRATIONS: Sequence[Callable[[sqlite3.Connection], None]] = (_keep_outcomes_and_scores, _keep_labels_and_stages)
"""``MIGRATIONS[v - 1]`` takes a database from version v to v + 1, inside a transaction."""


def create_tables(connection: sqlite3.Connection) -> None:
    """Make an empty database a run database of this version."""
    connection.executescript(
        f"BEGIN;{TABLES}{SCORE}{LABEL}{STAGE}PRAGMA application_id = {APPLICATION_ID};"
        f"PRAGMA user_version = {SCHEMA_VERSION};COMMIT;"
    )


def database_version(connection: sqlite3.Connection) -> int:
    """Return the version of the tables; 0 for an empty file."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def is_empty(connection: sqlite3.Connection) -> bool:
    """Return whether the file holds nothing yet: its writer was killed before it had made the tables."""
    tables: int = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    return not tables and database_version(connection) == 0


def check_version(connection: sqlite3.Connection, path: object) -> int:
    """Return the version; InfluenceError if the file is no run database, or newer than this program."""
    application: int = connection.execute("PRAGMA application_id").fetchone()[0]
    version = database_version(connection)
    if application != APPLICATION_ID:
        raise InfluenceError(f"{path} is no run database.", hint="Name a directory that `influence` made.")
    if version > SCHEMA_VERSION:
        raise InfluenceError(
            f"{path} was written by a newer version of this program (schema {version}, known {SCHEMA_VERSION}).",
            hint="Upgrade: pip install -U influence-cli.",
        )
    return version


def migrate(
    connection: sqlite3.Connection,
    path: object,
    migrations: Sequence[Callable[[sqlite3.Connection], None]] = MIGRATIONS,
) -> None:
    """Bring the tables to this version, one step a transaction; InfluenceError if they are newer."""
    version = check_version(connection, path)
    for number, step in enumerate(migrations[version - 1 :], start=version):
        connection.execute("BEGIN IMMEDIATE")
        step(connection)
        connection.execute(f"PRAGMA user_version = {number + 1}")
        connection.execute("COMMIT")
