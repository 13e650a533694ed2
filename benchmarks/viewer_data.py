"""Large runs made directly through SQL, for measuring the viewer: no model is asked."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import orjson

from influence_cli.schemas.configs import RunManifest, SimulationConfig
from influence_cli.store.run_directory import create_run

WORDS = (
    "the a to and of you I it that is in for on with this my not be have do me so what can but know just think feel "
    "about like want people time really would should help need good talk day night home work friend family plan small "
    "step true honest better worse maybe always never before after today tomorrow sleep drink smoke angry calm book "
    "ticket price visit doctor choice reason question answer trust kind hard easy change habit"
).split()
SCENARIOS = ("smoking", "anger", "lying", "shoplifting", "isolation", "gambling", "overwork", "grief")
CHOICES = orjson.dumps([str(n) for n in range(1, 11)]).decode()
TURNS = 5


def make_run(path: Path, conversations: int, *, turns: int = TURNS, iterations: int = 4, seed: int = 0) -> int:
    """Make a finished run of ``conversations`` in ``path``; return how many messages it holds."""
    manifest = RunManifest(
        run_id="",
        command="simulate",
        created="2026-01-01T00:00:00+00:00",
        config=SimulationConfig(environments=("therapy",)),
    )
    directory = create_run(path, manifest)
    with directory.writer() as writer:
        writer.set_state("done")
    db = sqlite3.connect(directory.database, isolation_level=None)
    rng = random.Random(seed)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(15, 60))).capitalize() + "." for _ in range(4096)]
    distributions = [_distribution(rng) for _ in range(512)]
    messages = 0
    db.execute("PRAGMA synchronous = OFF")
    for first in range(1, conversations + 1, 2_000):
        db.execute("BEGIN")
        for number in range(first, min(first + 2_000, conversations + 1)):
            messages += _conversation(db, number, turns, iterations, rng, texts, distributions)
        db.execute("COMMIT")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    return messages


def _distribution(rng: random.Random) -> tuple[str, float]:
    centre = rng.uniform(2.0, 9.5)
    weights = [2.718281828 ** (-0.5 * ((k - centre) / 1.4) ** 2) for k in range(1, 11)]
    total = sum(weights)
    shares = [round(w / total, 6) for w in weights]
    return orjson.dumps(shares).decode(), sum((k + 1) * s for k, s in enumerate(shares))


def _conversation(db, number, turns, iterations, rng, texts, distributions) -> int:
    population = "gameable" if rng.random() < 0.5 else "resilient"
    scenario = SCENARIOS[number % len(SCENARIOS)]
    place = number // len(SCENARIOS)
    db.execute(
        "INSERT INTO episode VALUES (?, ?, 'therapy', ?, ?, ?, ?, 'implied', 'train', ?, '{}')",
        (number, place % iterations, scenario, f"person-{place // iterations}", 0, population, number),
    )
    rows, judged, calls = [(number, 0, "user", rng.choice(texts), "scenario")], [], []
    ratings, vetoes = [], []
    for turn in range(1, turns + 1):
        text = rng.choice(texts)
        if rng.random() < 0.002:
            text = f"Perhaps you should just stay home. {text}"
        rows.append((number, turn, "agent", text, "model"))
        shares, rating = rng.choice(distributions)
        veto = rng.random() ** 3
        ratings.append(rating)
        vetoes.append(veto)
        judged.append((number, turn, "preference", CHOICES, shares, rating))
        judged.append((number, turn, "veto", '["0","1"]', f"[{1 - veto:.4f},{veto:.4f}]", veto))
        calls.extend((number, turn, role, 400 + 80 * turn, 40) for role in ("agent", "user", "preference"))
        if turn < turns:
            rows.append((number, turn, "user", rng.choice(texts), "model"))
    db.execute(
        "INSERT INTO trajectory VALUES (?, 'complete', 'turn_limit', 'talking', ?, ?, ?, ?, 0, NULL, NULL, 0, 0)",
        (number, turns, sum(ratings) / turns, ratings[-1], sum(vetoes) / turns),
    )
    db.executemany(
        "INSERT INTO message (episode_id, turn, speaker, text, state, source) VALUES (?, ?, ?, ?, 'talking', ?)", rows
    )
    db.executemany(
        "INSERT INTO judgement (episode_id, turn, role, state, choices, probabilities, mass, method, expected, usable)"
        " VALUES (?, ?, ?, 'talking', ?, ?, 0.98, 'exact', ?, 1)",
        judged,
    )
    db.executemany(
        "INSERT INTO call (episode_id, turn, role, ordinal, model, prompt_tokens, cached_tokens, completion_tokens, requests,"
        " latency, cached, ended) VALUES (?, ?, ?, 0, 'scripted:demo', ?, 300, ?, 1, 0.4, 0, 0)",
        calls,
    )
    db.execute(
        "INSERT INTO score (episode_id, turn, rubric, rubric_hash, judge, method, value, usable, ended)"
        " VALUES (?, 0, 'sycophancy', 'x', 'scripted:demo', 'distribution', ?, 1, 0)",
        (number, rng.uniform(1, 10)),
    )
    return len(rows)
