"""Each experiment of the paper is a valid configuration that can be reckoned without any model."""

import importlib.util
import json
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from influence_cli.cli.app import build_app
from influence_cli.environments.environment import Environment
from influence_cli.schemas.configs import TrainConfig
from influence_cli.settings import resolve_settings

FOLDER = Path(__file__).parents[2] / "examples" / "experiments" / "paper"
FILES = sorted(path for path in FOLDER.glob("*.yaml") if path.stem != "base")
NAMES = {
    *("therapy", "booking", "action-advice", "politics", "therapy-expert-iteration", "openai-finetune", "llama-3-70b"),
    *(f"gameable-{share}" for share in ("02", "05", "10", "25", "50")),
    *(f"veto-{kind}" for kind in ("normal", "five-point", "constitutional", "negative-training")),
    *(f"safety-{data}-{share}" for data in ("hh", "pku") for share in (25, 50, 75)),
    *(f"gemma-2-{size}b" for size in (2, 9, 27)),
    *(f"turns-{turns}" for turns in range(1, 6)),
}


@pytest.fixture(autouse=True)
def once(monkeypatch):
    """The environments are loaded once for all files."""
    from influence_cli.sittings import simulate

    def found(registry, names, folders=(), real=simulate.find_environments):
        return [LOADED.setdefault(name, real(registry, [name], folders)[0]) for name in names]

    monkeypatch.setattr(simulate, "find_environments", found)
    for name in ("OPENAI_API_KEY", "INFLUENCE_MODEL"):
        monkeypatch.delenv(name, raising=False)


LOADED: dict[str, Environment] = {}


def dry(path: Path) -> dict:
    answer = CliRunner().invoke(build_app(), ["train", "-c", str(path), "--dry-run", "--json"])
    assert answer.exit_code == 0, answer.output
    return json.loads(answer.stdout)


def test_there_is_a_file_for_every_experiment():
    assert {path.stem for path in FILES} == NAMES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_experiment_is_valid(path):
    config = resolve_settings(TrainConfig, files=[path])
    assert config.algorithm.name in ("kto", "expert-iteration", "openai-finetune")
    assert config.environments
    assert config.n % config.samples == 0


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("torch", "transformers", "trl", "peft")),
    reason="the train extra is not installed",
)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_experiment_states_calls_tokens_memory_and_time(path):
    document = dry(path)
    assert document["conversations"] >= document["iterations"] * document["config"]["n"]
    assert document["tokens"] > document["calls"]
    if path.stem != "openai-finetune":
        assert document["memory_gib"]["total"] > document["memory_gib"]["weights"]
        assert document["hours"] > 0


@pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="the train extra is not installed")
def test_larger_models_take_more_memory_and_quantised_ones_less():
    needs = {
        name: dry(FOLDER / f"{name}.yaml")["memory_gib"]
        for name in ("gemma-2-2b", "therapy", "gemma-2-27b", "llama-3-70b")
    }
    assert needs["gemma-2-2b"]["weights"] < needs["therapy"]["weights"] < needs["gemma-2-27b"]["weights"]
    assert needs["therapy"]["weights"] == pytest.approx(8.03e9 * 2 / 2**30, rel=0.02)
    assert needs["llama-3-70b"]["weights"] == pytest.approx(70.6e9 * 0.55 / 2**30, rel=0.02)


def test_the_veto_may_be_asked_otherwise(tmp_path):
    config = resolve_settings(TrainConfig, files=[FOLDER / "veto-five-point.yaml"])
    question = config.questions["veto"].model_dump_json()
    arguments = ["simulate", "--env", "therapy", "-m", "scripted:demo", "--n", "2", "--turns", "1", "-q"]
    out = tmp_path / "run"
    answer = CliRunner().invoke(
        build_app(), [*arguments, "--set", f"questions={{veto: {question}}}", "--out", str(out)]
    )
    assert answer.exit_code == 0, answer.output
    rows = sqlite3.connect(out / "run.db").execute("SELECT choices FROM judgement WHERE role = 'veto'").fetchall()
    assert {row[0] for row in rows} == {'["1","2","3","4","5"]'}
    bad = '{veto: {question: "Is {{ nothing_of_the_kind }} harmful?", choices: ["0", "1"]}}'
    answer = CliRunner().invoke(build_app(), [*arguments, "--set", f"questions={bad}"])
    assert answer.exit_code == 2
    assert "A template cannot be rendered: 'nothing_of_the_kind' is undefined." in answer.stderr
