"""A server in another process that stands for vLLM's, adapters on disk, and backends that ask it."""

import json
import os
import struct
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from influence_cli.testing.server import ServerConfig, TestServer, serve
from influence_vllm.making import ServedVllmBackend, make_backend
from influence_vllm.options import VllmOptions

MakeAdapter = Callable[..., Path]


def write_safetensors(path: Path, tensors: dict[str, list[float]]) -> None:
    """Write vectors of float32 in the format's own bytes."""
    entries, data = {}, b""
    for name, values in tensors.items():
        raw = struct.pack(f"<{len(values)}f", *values)
        offsets = [len(data), len(data) + len(raw)]
        entries[name] = {"dtype": "F32", "shape": [1, len(values)], "data_offsets": offsets}
        data += raw
    header = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)


@pytest.fixture
def make_adapter(tmp_path: Path) -> MakeAdapter:
    """Adapters: ``make_adapter("a", value=0.5, rank=8)``; a value of 0 adds nothing to the model."""

    def make(name: str = "a", *, value: float = 0.5, rank: int = 8, **config: object) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        settings = {"peft_type": "LORA", "r": rank, "target_modules": ["q_proj"]} | config
        (folder / "adapter_config.json").write_text(json.dumps(settings))
        layer = "base_model.model.model.layers.0.self_attn.q_proj"
        tensors = {f"{layer}.lora_A.weight": [0.25] * 4, f"{layer}.lora_B.weight": [0.0, value, 0.0]}
        write_safetensors(folder / "adapter_model.safetensors", tensors)
        return folder

    return make


@pytest.fixture(scope="session")
def running_server() -> Iterator[TestServer]:
    with serve() as server:
        yield server


@pytest.fixture
def server(running_server: TestServer, monkeypatch: pytest.MonkeyPatch) -> TestServer:
    """The server as it is by default, its counters at zero; no key in the environment."""
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    running_server.configure(**ServerConfig().model_dump(mode="json"))
    running_server.reset()
    return running_server


@pytest.fixture
async def make_served(server: TestServer) -> AsyncIterator[Callable[..., ServedVllmBackend]]:
    """Backends that ask the running server; closed after the test."""
    made: list[ServedVllmBackend] = []

    def make(model: str = "test-model", **options: object) -> ServedVllmBackend:
        backend = make_backend(model, VllmOptions.model_validate({"server": server.root} | options))
        assert isinstance(backend, ServedVllmBackend)
        made.append(backend)
        return backend

    yield make
    for backend in made:
        await backend.aclose()


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """A program that is started as Python with vLLM is, and serves the test server on the port it is told."""
    script = tmp_path / "python"
    script.write_text(
        f"#!{sys.executable}\n"
        "import json, os, sys\n"
        "told = dict(zip(sys.argv, sys.argv[1:]))\n"
        "config = {'models': [told['--served-model-name']], 'api_key': os.environ['VLLM_API_KEY']}\n"
        "print('Serving', told['serve'], flush=True)\n"
        "command = [sys.executable, '-m', 'influence_cli.testing.server', '--port', told['--port']]\n"
        "os.execv(sys.executable, [*command, '--config', json.dumps(config), '--max-seconds', '120'])\n"
    )
    script.chmod(0o755)
    return script


def find_processes(*words: str) -> list[int]:
    """Return the processes whose command line has all of ``words`` as arguments."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = entry.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if set(words) <= set(arguments):
            found.append(int(entry.parent.name))
    return sorted(found)


def is_alive(pid: int) -> bool:
    """Return whether a process runs: it is there, and no zombie."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
