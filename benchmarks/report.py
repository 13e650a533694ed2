"""How long and how much memory a report of a large run takes: 100,000 conversations of three iterations.

Conversations of two turns in 16 scenarios, 1,024 initial states, two populations, two cues, held-out states; ratings, vetoes,
eight rubrics, computed scores of every turn, calls of models. The run is made through the store's own writer; then
`influence report` and `influence compare` are measured as whole processes, and the steps of a report in this one.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from influence_cli.report.document import report_document
from influence_cli.report.estimates import contrasts_of, estimates_of
from influence_cli.report.measures import Catalogue
from influence_cli.report.pages import report_page
from influence_cli.report.tables import Names, read_table
from influence_cli.schemas.configs import RunManifest, SimulationConfig
from influence_cli.schemas.records import (
    CallRecord,
    EpisodeKey,
    EpisodeRecord,
    JudgementRecord,
    MessageRecord,
    ScoreRecord,
    TrajectoryEnd,
)
from influence_cli.scoring.rubric_files import shipped_rubrics
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import create_run, open_run
from orchestration import HERE, measure

RUBRICS = (
    "deception",
    "harm",
    "manipulation",
    "dissuade",
    "consequences",
    "encouragement",
    "gaslighting",
    "validation",
)
CHOICES = tuple(str(n) for n in range(1, 11))
TURNS = 2
ITERATIONS = 3
SENTENCE = "I hear you, and what you want matters more than what others say about it. "


def conversation(number, rng):
    """Return what is stored of one conversation."""
    iteration, place = number % ITERATIONS, number // ITERATIONS
    state, population = place % 1024, ("gameable", "resilient")[place // 1024 % 2]
    key = EpisodeKey(iteration=iteration, environment="therapy", scenario=f"scenario-{state % 16}",
                     initial_state=f"{population}-{state}", sample=place // 2048)  # fmt: skip
    record = EpisodeRecord(key=key, population=population, cue=("stated", "none")[state // 16 % 2],
                           split="heldout" if state % 5 == 0 else "train", seed=number)  # fmt: skip
    base = 4.0 + iteration + (population == "gameable") * iteration + (state % 16) / 8
    messages, judgements, calls, scores = [], [], [], []
    ratings = np.clip(rng.normal(base, 1.5, TURNS), 1, 10)
    for turn, rating in enumerate(ratings.tolist(), 1):
        messages += [MessageRecord(turn=turn - 1, speaker="user", text=SENTENCE * 3, state="talking",
                                   source="scenario" if turn == 1 else "model"),
                     MessageRecord(turn=turn, speaker="agent", text=SENTENCE * 4, state="talking")]  # fmt: skip
        shares = np.exp(-0.5 * (np.arange(1, 11) - rating) ** 2)
        shares = (shares / shares.sum()).tolist()
        judgements.append(JudgementRecord(turn=turn, role="preference", state="talking", choices=CHOICES,
                                          probabilities=tuple(shares), mass=0.98, method="exact", expected=rating))  # fmt: skip
        judgements.append(JudgementRecord(turn=turn, role="veto", state="talking", choices=("0", "1"), mass=0.9,
                                          probabilities=(0.9, 0.1), method="exact", expected=0.1))  # fmt: skip
        calls += [CallRecord(turn=turn, role=role, model="openai:gpt-4o", prompt_tokens=900, completion_tokens=80, cost=0.001)
                  for role in ("agent", "user", "preference", "veto")]  # fmt: skip
        scores.append(ScoreRecord(turn=turn, rubric="reply-length", rubric_hash="reply-length/1", judge="reply-length",
                                  method="computed", value=float(rng.integers(20, 80))))  # fmt: skip
    for rubric, value in zip(RUBRICS, np.clip(rng.normal(base, 2.0, len(RUBRICS)), 1, 10).tolist(), strict=True):
        scores.append(ScoreRecord(turn=0, rubric=rubric, rubric_hash=rubric, judge="openai:gpt-4o", method="distribution",
                                  value=value, mass=0.97, distribution={"1": (10 - value) / 9, "10": (value - 1) / 9}))  # fmt: skip
    end = TrajectoryEnd(status="complete", reason="turn_limit", state="talking", turns=TURNS,
                        mean_rating=float(ratings.mean()), final_rating=float(ratings[-1]), mean_veto=0.1)  # fmt: skip
    return record, messages, judgements, calls, scores, end


def make_run(folder, conversations):
    manifest = RunManifest(run_id="", command="train", created="2026-01-01T00:00:00+00:00",
                           config=SimulationConfig(environments=("therapy",)), environments={"therapy": "-"})  # fmt: skip
    rng = np.random.default_rng(1)
    directory = create_run(folder, manifest)
    with directory.writer() as writer:
        for number in range(conversations):
            writer.add_conversation(*conversation(number, rng))
        writer.set_state("done")
    return directory


def whole(*arguments):
    figures, out = measure([sys.executable, "-m", "influence_cli", *arguments])
    return {"seconds": figures["wall_s"], "cpu_s": figures["cpu_s"], "peak_mb": figures["peak_mb"]}, out


def steps(directory):
    """Return the seconds of each step of a report, within one process."""
    catalogue, found = Catalogue(shipped_rubrics()), {}

    def timed(name, work):
        started = time.perf_counter()
        result = work()
        found[name] = time.perf_counter() - started
        return result

    with RunReader(directory) as reader:
        table = timed("read_the_tables", lambda: read_table(reader, "run", Names(), catalogue))
    timed("estimates", lambda: list(estimates_of(table, table.measures)))
    timed("contrasts", lambda: list(contrasts_of(table, table.measures)))
    document = timed("whole_document", lambda: report_document([directory], catalogue))
    timed("page", lambda: report_page(document))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conversations", type=int, default=100_000)
    parser.add_argument("--quick", action="store_true", help="300 conversations")
    parser.add_argument("--run", type=Path, help="the run, made if it is not there; else a temporary one")
    parser.add_argument("--out", type=Path, help="where to keep the figures")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.conversations = 300
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.run or Path(scratch) / "large"
        started = time.perf_counter()
        there = folder.exists()
        directory = open_run(folder) if there else make_run(folder, arguments.conversations)
        row = {
            "conversations": arguments.conversations,
            "made_in_s": None if there else time.perf_counter() - started,
            "disk_mb": directory.database.stat().st_size / 1e6,
        }
        page = Path(scratch) / "report.html"
        row["report"], _ = whole("report", str(folder), "--out", str(page), "--quiet")
        row["page_mb"] = page.stat().st_size / 1e6
        row["report_json"], out = whole("report", str(folder), "--json")
        assert json.loads(out)["runs"][0]["conversations"]["complete"] == arguments.conversations
        row["compare"], _ = whole("compare", f"{folder}@0", f"{folder}@2", "--json")
        row["steps_s"] = steps(directory)
    print(json.dumps(row, indent=1), flush=True)
    if arguments.out:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True, check=False)
        about = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit.stdout.strip(),
                 "machine": platform.processor() or platform.machine(), "cores": os.cpu_count(),
                 "python": platform.python_version()}  # fmt: skip
        arguments.out.write_text(json.dumps({**about, **row}, indent=1) + "\n")


if __name__ == "__main__":
    main()
