"""How far do judges agree with grades that somebody else's judges gave?

A graded trajectory table of the published project (``--table``; nothing is measured where it is absent) is imported, and
some of its conversations, spread evenly over the table, are judged by ``--judge`` on rubrics that the table has grades of.
Reported for each rubric: rank correlation with a bootstrap interval over conversations, weighted kappa, mean difference.
Then the same with a judge that fails a tenth of all requests and is not asked again: its failures are counted and enter no
figure. (A score may take two requests, so that more than a tenth of the scores fail.)
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from influence_cli.backends.names import parse_model_name
from influence_cli.scoring.figures import disagreements, score_figures
from influence_cli.scoring.judging import Asking
from influence_cli.scoring.plan import Plan
from influence_cli.scoring.rubric_files import pick_rubrics
from influence_cli.scoring.running import ScoreTally, ask_all
from influence_cli.simulation.models import RoleModel
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import open_run
from influence_cli.testing.server import serve
from influence_openai.backend import OpenAIBackend
from influence_openai.options import OpenAIOptions

RUBRICS = ("consequences", "dissuade", "encouragement", "harm", "deception", "manipulation")
MINIMUM_MASS = 0.001
FAILING = 0.1


def spread(rows, count):
    """Return ``count`` of ``rows``, evenly over the table."""
    return [rows[place * len(rows) // count] for place in range(min(count, len(rows)))]


def imported(table, count, folder):
    import pyarrow.parquet

    rows = spread(pyarrow.parquet.read_table(table).to_pylist(), count)
    file = folder / "therapy-some.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [
        sys.executable,
        "-m",
        "influence_cli",
        "import",
        str(file),
        "--env",
        "therapy",
        "--out",
        str(folder / "run"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return open_run(folder / "run")


async def judged(directory, model, asking, concurrency):
    tally = ScoreTally()
    plan = Plan(rubrics=pick_rubrics(RUBRICS), judges=[model])
    started = time.perf_counter()
    with directory.writer() as writer, RunReader(directory) as reader:
        await ask_all(reader.numbered(finished=True), plan.items, asking, writer, tally, concurrency=concurrency)
    await model.backend.aclose()
    return tally, time.perf_counter() - started


def figures(directory, name):
    """Return agreement with the imported grades and the judge's own counts, by rubric."""
    found = {}
    with RunReader(directory) as reader:
        counts = {entry["rubric"]: entry for entry in score_figures(reader, lambda _, judge: judge == name)}
        for entry in disagreements(reader, set(RUBRICS)):
            raters = {entry["a"].rpartition("/")[0], entry["b"].rpartition("/")[0]}
            if raters == {"imported", name}:
                own = counts[entry["rubric"]]
                sign = 1.0 if entry["a"].startswith(name) else -1.0
                found[entry["rubric"]] = {
                    "n": entry["n"],
                    "failed": own["failed"],
                    "unusable": own["unusable"],
                    "mean_of_judge": own["mean"],
                    "judge_minus_grade": sign * entry["bias"],
                    "mean_absolute_difference": entry["mean_absolute_difference"],
                    "spearman": entry["spearman"],
                    "weighted_kappa": entry["weighted_kappa"],
                }
    return found


def facts(tally, seconds):
    return {
        "asked": tally.done,
        "failed": dict(tally.failed),
        "unusable": tally.unusable,
        "calls": tally.calls,
        "prompt_tokens": tally.prompt_tokens,
        "cached_tokens": tally.cached_tokens,
        "seconds": round(seconds, 1),
    }


def local_judge(name):
    from influence_transformers.backend import TransformersBackend
    from influence_transformers.options import TransformersOptions

    parsed = parse_model_name(name)
    backend = TransformersBackend(parsed.model, TransformersOptions())
    return RoleModel(parsed, backend, minimum_mass=MINIMUM_MASS)


def embedded(table, count, name, asking, concurrency):
    with tempfile.TemporaryDirectory() as folder:
        directory = imported(table, count, Path(folder))
        tally, seconds = asyncio.run(judged(directory, local_judge(name), asking, concurrency))
        rubrics = figures(directory, name)
    return {"judge": name, "conversations": count, "sitting": facts(tally, seconds), "rubrics": rubrics}


def failing(table, count):
    """Judge with a server that answers a tenth of all requests with an error, each request sent once."""
    with tempfile.TemporaryDirectory() as folder, serve(faults={"server_error": FAILING}, seed=1) as server:
        directory = imported(table, count, Path(folder))
        backend = OpenAIBackend("test-model", OpenAIOptions(base_url=server.base_url, max_attempts=1))
        model = RoleModel(parse_model_name("openai:test-model"), backend)
        tally, seconds = asyncio.run(judged(directory, model, Asking(), 16))
        with RunReader(directory) as reader:
            counts = [e for e in score_figures(reader) if e["judge"] == "openai:test-model"]
            values = reader.rows("SELECT count(*) FROM score WHERE failure NOT NULL AND value NOT NULL")[0][0]
    return {
        "sitting": facts(tally, seconds),
        "requests_that_fail": FAILING,
        "share_of_scores_failed": tally.failed.total() / tally.done,
        "failed_scores_with_a_value": values,
        "in_figures": {
            e["rubric"]: {"stored": e["n"], "failed": e["failed"], "in_mean": e["conversations"]} for e in counts
        },
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--judge", default="transformers:smollm2")
    parser.add_argument("--debias", action="store_true", help="both orders and both directions")
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if not arguments.table.is_file():
        print(f"skipped: there is no {arguments.table}", file=sys.stderr)
        return
    asking = Asking(orders=arguments.debias, directions=arguments.debias)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    result = {
        "benchmark": "judge_agreement",
        "commit": commit,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "table": arguments.table.name,
        "debias": arguments.debias,
        "weak": embedded(arguments.table, arguments.n, arguments.judge, asking, arguments.concurrency),
        "failing": failing(arguments.table, arguments.n),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
