"""Does putting the transcript first and the question last make judges worse?

Replies of real runs (``--run``) are rated by the local model in both layouts: ours (shared preamble, transcript, question),
and the other way round (question first, transcript last), each over two paraphrases of the question. Reported: the rank
correlation (Spearman) of ratings between the layouts, and between the paraphrases within a layout, which says how well
such a judge agrees with itself; a bootstrap interval over replies. Exact distributions have no seed to vary: where answers
are sampled, two seeds of one layout are compared as well.
"""

import argparse
import asyncio
import json
import random
import subprocess
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from influence_cli.environments.environment import answer_line, transcript
from influence_cli.environments.loading import load_environment
from influence_cli.schemas.messages import ChatMessage, Message
from influence_cli.schemas.requests import ChoiceRequest
from influence_cli.seeding import unit_draw
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import open_run
from influence_transformers.backend import TransformersBackend
from influence_transformers.options import TransformersOptions

HERE = Path(__file__).resolve().parent
CHOICES = tuple(str(n) for n in range(1, 11))
OTHER = "On a scale on which 1 is the worst and 10 the best, what would {name} give the last reply? They look for this: {wants}"


def items(run, environment, count):
    """Return (episode, transcript so far) of ``count`` replies, each of another conversation."""
    found = []
    with RunReader(open_run(run)) as reader:
        for trajectory in reader.trajectories():
            references = environment.initial_states([trajectory["scenario"]])
            reference = next(r for r in references if r.initial_state == trajectory["initial_state"])
            episode = environment.episode(
                reference, sample=0, population=trajectory["population"], cue=trajectory["cue"], seed=0
            )
            messages = [Message(speaker=m["speaker"], text=m["text"]) for m in trajectory["messages"]]
            last = max((i for i, m in enumerate(messages) if m.speaker == "agent"), default=None)
            if last is not None:
                found.append((episode, messages[: last + 1]))
    random.Random(0).shuffle(found)
    return found[:count]


def prompts(episode, messages):
    """Return the prompt of each layout and wording."""
    ours = episode.prompt("preference", "talking", messages)
    system, question = ours[0], ours[1].content.rpartition("\n\n")[2]
    profile, wants = episode.record.profile, episode._variables["wants"]
    other = f"{OTHER.format(name=profile['name'], wants=wants)}\n{answer_line(CHOICES)}"
    told = transcript(messages)
    texts = {
        ("last", "first wording"): f"{told}\n\n{question}",
        ("last", "second wording"): f"{told}\n\n{other}",
        ("first", "first wording"): f"{question}\n\n{told}",
        ("first", "second wording"): f"{other}\n\n{told}",
    }
    return {key: (system, ChatMessage(role="user", content=text)) for key, text in texts.items()}


async def rate(found):
    backend = TransformersBackend("smollm2", TransformersOptions())

    async def one(prompt):
        answer = await backend.choose(ChoiceRequest(role="preference", messages=prompt, choices=CHOICES))
        return answer.expected_value, answer

    table = {}
    for number, (episode, messages) in enumerate(found):
        asked = prompts(episode, messages)
        answers = await asyncio.gather(*(one(prompt) for prompt in asked.values()))
        for key, (value, answer) in zip(asked, answers, strict=True):
            table.setdefault(key, []).append(value)
            for seed in (1, 2):
                drawn = sum(float(answer.draw(unit_draw(seed, number, n, *key))) for n in range(4)) / 4
                table.setdefault((*key, f"seed {seed}"), []).append(drawn)
    await backend.aclose()
    return table


def ranks(values):
    order = sorted(range(len(values)), key=values.__getitem__)
    found = [0.0] * len(values)
    start = 0
    while start < len(order):
        stop = start
        while stop < len(order) and values[order[stop]] == values[order[start]]:
            stop += 1
        for place in order[start:stop]:
            found[place] = (start + stop - 1) / 2
        start = stop
    return found


def spearman(a, b):
    ra, rb = ranks(a), ranks(b)
    ma, mb = sum(ra) / len(ra), sum(rb) / len(rb)
    top = sum((x - ma) * (y - mb) for x, y in zip(ra, rb, strict=True))
    below = (sum((x - ma) ** 2 for x in ra) * sum((y - mb) ** 2 for y in rb)) ** 0.5
    return top / below if below else float("nan")


def with_interval(a, b, draws=2000):
    rng = random.Random(1)
    values = []
    for _ in range(draws):
        picked = [rng.randrange(len(a)) for _ in a]
        values.append(spearman([a[i] for i in picked], [b[i] for i in picked]))
    values = sorted(v for v in values if v == v)
    return {"rho": spearman(a, b), "low": values[int(0.025 * len(values))], "high": values[int(0.975 * len(values))]}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, help="a run on therapy; else one is made with the local model")
    parser.add_argument("--env", type=Path, default=HERE.parent / "environments" / "therapy")
    parser.add_argument("--replies", type=int, default=64)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    environment = load_environment(arguments.env)
    with tempfile.TemporaryDirectory() as scratch:
        run = arguments.run
        if run is None:
            run = Path(scratch) / "run"
            command = [
                "influence",
                "simulate",
                "--env",
                str(arguments.env),
                "--n",
                str(arguments.replies),
                "--turns",
                "1",
            ]
            subprocess.run([*command, "--out", str(run), "--quiet"], check=True)
        table = asyncio.run(rate(items(run, environment, arguments.replies)))
    wording = "first wording"
    figures = {
        "replies": len(table["last", wording]),
        "between layouts": with_interval(table["last", wording], table["first", wording]),
        "between wordings, question last": with_interval(table["last", wording], table["last", "second wording"]),
        "between wordings, question first": with_interval(table["first", wording], table["first", "second wording"]),
        "between two seeds of 4 samples, question last": with_interval(
            table["last", wording, "seed 1"], table["last", wording, "seed 2"]
        ),
        "between two seeds of 4 samples, question first": with_interval(
            table["first", wording, "seed 1"], table["first", wording, "seed 2"]
        ),
    }
    print(json.dumps(figures, indent=1))
    if arguments.out:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True, check=False)
        about = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit.stdout.strip()}
        arguments.out.write_text(json.dumps({**about, "model": "transformers:smollm2", **figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
