"""What is fuzzed: each target takes any bytes, and raises nothing but what a person is told in one line.

Bytes after the first are the input; the first chooses between ways in, where a target has several.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from influence_cli.backends.tool_calls import split_tool_calls
from influence_cli.environments.loading import load_environment
from influence_cli.errors import CallFailedError, InfluenceError
from influence_cli.schemas.configs import RunManifest, SimulationConfig, TrainConfig
from influence_cli.schemas.messages import ChatMessage
from influence_cli.schemas.records import MessageRecord
from influence_cli.schemas.requests import ChoiceRequest, GenerateRequest, Sampling
from influence_cli.settings import parse_assignment, resolve_settings
from influence_cli.store import rows
from influence_cli.store.filter_language import unparse
from influence_cli.store.imports.conversation import ImportReport, store_conversations
from influence_cli.store.imports.files import read_conversations
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import create_run
from influence_cli.store.search import search_messages
from influence_cli.store.trajectory_table import Order, TrajectoryTable
from influence_openai.backend import OpenAIBackend
from influence_openai.failures import failure, retry_after
from influence_openai.options import OpenAIOptions
from influence_transformers.gguf_head import read_head

FIXTURES = Path(__file__).parents[1] / "fixtures"
Target = Callable[[bytes], None]


def told(action: Callable[[], Any]) -> None:
    """Run ``action``; what a person is told is checked to be told in lines that can be shown."""
    try:
        action()
    except (InfluenceError, CallFailedError) as error:
        text = str(error)
        assert text.strip(), "an error without a word"
        text.encode()


@cache
def scratch() -> Path:
    """Return a folder of this process, in memory where there is one, that is gone at its end."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory if os.access(memory, os.W_OK) else None))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def tiny() -> Path:
    folder = scratch() / "tiny"
    shutil.copytree(FIXTURES / "environments" / "tiny", folder)
    return folder


def environment(data: bytes) -> None:
    """A file of an environment's folder, its own or a scenario's."""
    folder = tiny()
    name = ("environment.yaml", "scenarios/tea.yaml")[data[0] % 2 if data else 0]
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(data[1:])
    try:
        told(lambda: load_environment(folder))
    finally:
        (folder / name).write_bytes(whole)


def experiment(data: bytes) -> None:
    """A file of settings, or one assignment of the command line."""
    kind, rest = (data[0] % 3 if data else 0), data[1:]
    if kind == 2:
        text = rest.decode(errors="replace")
        told(lambda: parse_assignment(text))
        told(lambda: resolve_settings(SimulationConfig, assignments=[text]))
        return
    file = scratch() / "experiment.yaml"
    file.write_bytes(rest)
    told(lambda: resolve_settings((SimulationConfig, TrainConfig)[kind], files=[file]))


@cache
def run() -> RunReader:
    """Return a reader of a run with the conversations of a fixture."""
    manifest = RunManifest(run_id="", command="import", created="2026-01-01T00:00:00+00:00", config=SimulationConfig())
    directory = create_run(scratch() / "run", manifest)
    with directory.writer() as writer:
        report = ImportReport()
        store_conversations(read_conversations(FIXTURES / "imports" / "small-talk.json", None, report), writer, report)
    return RunReader(directory)


def query(data: bytes) -> None:
    """What is typed into the query bar: read, written again, and asked of a run."""
    text = data.decode(errors="replace")
    table = TrajectoryTable(run())

    def ask() -> None:
        node = table.read(text)
        if node is not None:
            again = table.read(unparse(node))
            assert again == node, "what is written again means something else"
        table.numbers(node, Order("number"))
        table.summary(node)

    told(ask)
    told(lambda: search_messages(run(), text))


def imported(data: bytes, suffix: str) -> None:
    file = scratch() / f"file{suffix}"
    file.write_bytes(data)
    folder = scratch() / "imported"
    shutil.rmtree(folder, ignore_errors=True)
    manifest = RunManifest(run_id="", command="import", created="2026-01-01T00:00:00+00:00", config=SimulationConfig())

    def read() -> None:
        report = ImportReport()
        found = list(read_conversations(file, None, report))
        if found:
            with create_run(folder, manifest).writer() as writer:
                store_conversations(found, writer, report)

    told(read)


def import_parquet(data: bytes) -> None:
    """A Parquet file."""
    imported(data, ".parquet")


def import_jsonl(data: bytes) -> None:
    """JSON lines: a table or an export of ours."""
    imported(data, ".jsonl")


def import_pickle(data: bytes) -> None:
    """A pickle."""
    imported(data, ".pkl")


def import_inspect(data: bytes) -> None:
    """An Inspect log, as JSON or as a zip."""
    imported(data[1:], ".eval" if data and data[0] % 2 else ".json")


class _Canned:
    """A client that answers with what it was given."""

    answer: Any = None

    async def post(self, _body: bytes) -> Any:
        return self.answer


@cache
def loop() -> asyncio.AbstractEventLoop:
    made = asyncio.new_event_loop()
    atexit.register(made.close)
    return made


def api_answer(data: bytes) -> None:
    """What a server answers: a reply, a judgement, an error."""
    kind, body = (data[0] % 4 if data else 0), data[1:]
    if kind == 3:
        told(
            lambda: _raise(
                failure((400, 401, 404, 429, 500, 503)[len(body) % 6], {}, body, key="secret-key", env="KEY")
            )
        )
        retry_after({"Retry-After": body.decode("latin1")})
        return
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return
    if not isinstance(answer, dict):
        return
    backend = OpenAIBackend("m", OpenAIOptions(base_url="http://127.0.0.1:9", max_attempts=1, draws=2))
    backend._client = _Canned()  # type: ignore[assignment]
    backend._client.answer = answer  # type: ignore[attr-defined]
    said = (ChatMessage(role="user", content="Answer only with a number from 1 to 10."),)

    async def ask() -> None:
        if kind == 2:
            await backend.choose(ChoiceRequest(role="judge", messages=said, choices=("1", "2", "10")))
            return
        schema = {"type": "object"} if kind else None
        request = GenerateRequest(role="agent", messages=said, sampling=Sampling(max_tokens=64), json_schema=schema)
        stored(*_said(await backend.generate(request)))

    told(lambda: loop().run_until_complete(ask()))


def _raise(error: Exception) -> None:
    raise error


def _said(generation: Any) -> tuple[str, Any]:
    return generation.text, generation.tool_calls


def stored(text: str, calls: Any) -> None:
    """Make a row of what was said, as the store does."""
    record = MessageRecord(turn=1, speaker="agent", text=text, state="talking", tool_calls=calls)
    for value in rows.message_row(1, record):
        assert not isinstance(value, str) or value.encode() is not None


def tool_calls(data: bytes) -> None:
    """A reply of a local model, in which tool calls are looked for."""
    text = data.decode(errors="replace")
    rest, calls = split_tool_calls(text, {"book", "search"})
    assert calls or rest == text
    stored(rest, calls)


def gguf(data: bytes) -> None:
    """The head of a GGUF file: metadata and the list of tensors."""
    file = scratch() / "model.gguf"
    file.write_bytes(data)
    try:
        read_head(file)
    except InfluenceError as error:
        assert str(error).strip()
        return
    from gguf import GGUFReader

    with suppress(Exception):  # our conversion turns whatever it raises into one line; it must only stay within bounds
        GGUFReader(file)


TARGETS: dict[str, Target] = {
    "environment": environment,
    "experiment": experiment,
    "query": query,
    "import-parquet": import_parquet,
    "import-jsonl": import_jsonl,
    "import-pickle": import_pickle,
    "import-inspect": import_inspect,
    "api-answer": api_answer,
    "tool-calls": tool_calls,
    "gguf": gguf,
}
