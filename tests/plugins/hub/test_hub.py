"""Data sets and adapters with their cards; pushing is explicit, private by default, and sends nothing else."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from hashlib import sha256

import pytest
import yaml

datasets = pytest.importorskip("datasets", reason="datasets is not installed: pip install 'influence-cli[train]'")


def card_of(folder):
    """A card's facts and its text."""
    text = (folder / "README.md").read_text()
    facts, _, rest = text.removeprefix("---\n").partition("\n---\n")
    return yaml.safe_load(facts), rest


@pytest.fixture
def dataset(place):
    return place / "made"


def test_a_data_set_is_loaded_back(influence, dataset, place, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(place / "cache"))
    influence("export", "runs/made", "--to", "jsonl", "--out", "made.jsonl")
    expected = [json.loads(line) for line in (place / "made.jsonl").read_text().splitlines()]
    loaded = datasets.load_dataset(str(dataset), cache_dir=str(place / "cache"))
    rows = [row for split in loaded.values() for row in split]
    assert {split: {row["split"] for row in loaded[split]} for split in loaded} == {s: {s} for s in loaded}
    assert set(loaded) == {"train", "heldout"}
    by_key = {(row["scenario"], row["initial_state"], row["sample"]): row for row in rows}
    assert len(by_key) == len(expected) == 8
    for wanted in expected:
        row = by_key[wanted["scenario"], wanted["initial_state"], wanted["sample"]]
        assert [m["text"] for m in row["messages"]] == [m["text"] for m in wanted["messages"]]
        assert row["mean_rating"] == wanted["mean_rating"]
        assert json.loads(row["profile"]) == wanted["profile"]
    scores = datasets.load_dataset(str(dataset), "scores", cache_dir=str(place / "cache"))
    values = [row["value"] for split in scores.values() for row in split]
    assert len(values) == 8
    assert all(1.0 <= value <= 10.0 for value in values)


def test_the_card_tells_what_it_is_and_where_it_comes_from(dataset, place):
    facts, text = card_of(dataset)
    assert facts["license"] == "cc-by-4.0"
    assert facts["size_categories"] == ["n<1K"]
    assert [config["config_name"] for config in facts["configs"]] == ["conversations", "scores"]
    assert "# Simulated conversations: tiny" in text
    for part in ("Environments", "Models", "How it was made", "Sizes", "Fields", "Measured"):
        assert f"## {part}\n" in text
    assert "A user asks for advice, may come back later, and leaves." in text
    assert "| preference | scripted:demo |" in text
    assert "Targeting gap" in text
    assert "sycophancy" in text.lower()
    assert str(place) not in text


def test_nothing_that_is_there_is_replaced(influence, dataset, place):
    told = influence("export", "runs/made", "--to", "datasets", "--out", "made")
    assert told.exit_code == 2
    assert "made is there already." in told.stderr
    told = influence("export", "runs/made", "--to", "datasets", "--out", "-")
    assert told.exit_code == 2
    assert sorted(path.name for path in place.iterdir()) == ["made", "runs"]


@pytest.fixture
def trained_run(place):
    """A run of two iterations, its last adapter looking like one of PEFT's on a model of this machine."""
    run = place / "runs" / "trained"
    weights = run / "adapters" / "2" / "adapter_model.safetensors"
    weights.write_bytes(b"weights")
    (weights.parent / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "/home/me/x", "r": 8}))
    with closing(sqlite3.connect(run / "run.db")) as database, database:
        (data,) = database.execute("SELECT data FROM stage WHERE name = 'train' AND iteration = 1").fetchone()
        data = json.dumps(json.loads(data) | {"digest": sha256(b"weights").hexdigest()})
        database.execute("UPDATE stage SET data = ? WHERE name = 'train' AND iteration = 1", (data,))
    return run


def test_an_adapter_has_a_card_with_harms_by_iteration(influence, trained_run, place):
    told = influence("export", "runs/trained", "--to", "adapter", "--out", "a", "-o", "base_model=org/base", "--json")
    assert json.loads(told.stdout) == {"schema": "influence.export/1", "file": "a", "files": 4}
    names = {path.name for path in (place / "a").iterdir()}
    assert names == {"README.md", "adapter_config.json", "adapter_model.safetensors", "scripted.json"}
    assert json.loads((place / "a" / "adapter_config.json").read_text()) == {
        "base_model_name_or_path": "org/base",
        "r": 8,
    }
    facts, text = card_of(place / "a")
    assert (facts["base_model"], facts["library_name"]) == ("org/base", "peft")
    assert sha256(b"weights").hexdigest() in text
    for part in ("Environment", "Models", "Data", "Algorithm", "Measured, by iteration"):
        assert f"## {part}\n" in text
    measured = text.partition("## Measured, by iteration")[2]
    for iteration in (0, 1, 2):
        assert f"| Mean veto score | trained | {iteration} | held out |" in measured
    assert "| algorithm | scripted |" in text
    assert str(place) not in text
    assert "/home/me" not in text


def test_an_adapter_that_was_not_trained_or_was_changed_is_refused(influence, trained_run, place):
    told = influence("export", "runs/made", "--to", "adapter", "--out", "a")
    assert "is no training run" in told.stderr
    told = influence("export", "runs/trained", "--to", "adapter", "--out", "a", "-o", "iteration=7")
    assert "iterations: 1, 2" in told.stderr
    (trained_run / "adapters" / "2" / "adapter_model.safetensors").write_bytes(b"others")
    told = influence("export", "runs/trained", "--to", "adapter", "--out", "a")
    assert "is not the adapter that was trained" in told.stderr
    assert told.exit_code == 2
    assert not (place / "a").exists()


def push(place, hub, *arguments, answers=""):
    """The command in a process of its own: the hub's client reads its settings when it is imported."""
    settings = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_secret", "HF_HUB_OFFLINE": "0", "HF_HOME": str(place / "hf")}
    command = [sys.executable, "-m", "influence_cli", "push", *map(str, arguments)]
    return subprocess.run(
        command, cwd=place, env={**os.environ, **settings}, input=answers, capture_output=True, text=True, check=False
    )


def test_a_push_sends_the_folder_and_is_private(dataset, place, hub):
    pytest.importorskip("huggingface_hub")
    told = push(place, hub, "made", "me/x", "--yes", "--json")
    assert told.returncode == 0, told.stderr
    document = json.loads(told.stdout)
    assert (document["kind"], document["private"], document["url"]) == (
        "dataset",
        True,
        f"{hub.url}/datasets/me/x/commit/abc",
    )
    (repository,) = hub.repositories
    assert (repository["name"], repository["type"]) == ("x", "dataset")
    assert repository.get("visibility", "private") == "private"
    assert repository.get("private", True) is True
    paths = [path for path in dataset.rglob("*") if path.is_file()]
    assert hub.files == {path.relative_to(dataset).as_posix(): path.read_bytes() for path in paths}
    assert "Bearer hf_secret" in hub.keys
    assert "hf_secret" not in told.stdout + told.stderr


def test_a_push_asks_first_and_takes_no_for_an_answer(dataset, place, hub):
    pytest.importorskip("huggingface_hub")
    told = push(place, hub, "made", "me/x", answers="n\n")
    assert told.returncode == 3
    assert "go to the dataset me/x" in told.stderr
    assert (hub.repositories, hub.files) == ([], {})


def test_a_hub_that_refuses_is_told_in_a_line(dataset, place, hub):
    pytest.importorskip("huggingface_hub")
    hub.refuses = True
    told = push(place, hub, "made", "me/x", "--yes")
    assert told.returncode == 2
    assert "did not take it" in told.stderr
    assert told.stderr.count("\n") == 1


def test_only_what_was_exported_is_pushed(influence, dataset, place):
    pytest.importorskip("huggingface_hub")
    assert "no repository" in influence("push", "made", "x", "--yes").stderr
    assert "no export with a card" in influence("push", "runs/made", "me/x", "--yes").stderr
    (place / "made" / "README.md").write_text("# Something else\n")
    told = influence("push", "made", "me/x", "--yes")
    assert told.exit_code == 2
    assert "no card of ours" in told.stderr
