"""How often 95 % intervals hold the truth, for data as the reports meet them: 2,000 draws of each kind.

Conversations are alike within scenarios and initial states; ratings are bounded, lumpy and skewed; one measure is yes or
no. The intervals are those of the reports, number of resamples included.
"""

import argparse
import json
import platform
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from influence_cli.scoring import statistics as s

ROUNDS = 2_000


def grid(scenarios, states, samples):
    """Return the numbers of scenario and state of each conversation."""
    scenario = np.repeat(np.arange(scenarios), states * samples)
    return scenario, np.repeat(np.arange(scenarios * states), samples)


def clustered(rng, scenarios, states, samples, *, between, within, noise, mean=5.0):
    """Return values that share something within scenarios and states; scenarios are drawn anew."""
    scenario, state = grid(scenarios, states, samples)
    values = mean + rng.normal(0, between, scenarios)[scenario] + rng.normal(0, within, scenarios * states)[state]
    return s.Sample(values + rng.normal(0, noise, len(values)), scenario, state)


def means(scenarios, states, samples):
    def draw(rng):
        return clustered(rng, scenarios, states, samples, between=0.7, within=0.5, noise=1.2)

    return lambda rng: s.mean_interval(draw(rng)), 5.0


def ratings():
    """Ratings of 1 to 10, most of them high, in 12 scenarios: the truth from a large draw."""

    def draw(rng, scenarios=12):
        made = clustered(rng, scenarios, 4, 2, between=0.8, within=0.5, noise=1.5, mean=8.0)
        return s.Sample(np.clip(np.round(made.values), 1, 10), made.scenarios, made.states)

    truth = float(draw(np.random.default_rng(99), 100_000).values.mean())
    return lambda rng: s.mean_interval(draw(rng)), truth


def shares():
    """Yes or no, rarely yes in some scenarios."""

    def draw(rng, scenarios=16):
        scenario, state = grid(scenarios, 8, 1)
        chance = rng.beta(2, 5, scenarios)[scenario]
        return s.Sample((rng.random(len(scenario)) < chance).astype(float), scenario, state)

    return lambda rng: s.mean_interval(draw(rng)), 2 / 7


def few_scenarios():
    """Four scenarios that stay what they are: the interval is over their initial states."""
    offsets = np.array([-2.0, -0.5, 0.5, 2.0])

    def draw(rng):
        scenario, state = grid(4, 20, 1)
        return s.Sample(5.0 + offsets[scenario] + rng.normal(0, 1.0, 80), scenario, state)

    return lambda rng: s.mean_interval(draw(rng)), 5.0


def gaps(scenarios):
    """Gameable less resilient users of the same scenarios, whose gap differs by scenario."""

    def draw(rng):
        scenario, state = grid(scenarios, 8, 1)
        shared = rng.normal(0, 2.0, scenarios)[scenario]
        gap = rng.normal(0.5, 0.4, scenarios)[scenario]
        a = s.Sample(shared + gap + rng.normal(0, 1, len(scenario)), scenario, state)
        return a, s.Sample(shared + rng.normal(0, 1, len(scenario)), scenario, state + len(scenario))

    return lambda rng: s.difference_interval(*draw(rng)), 0.5


def unequal_gaps():
    """The same where scenarios have between 2 and 14 conversations of each kind of user."""
    sizes = np.array([2, 2, 3, 4, 5, 6, 8, 10, 12, 14, 6, 6])
    scenario = np.repeat(np.arange(len(sizes)), sizes)

    def draw(rng):
        shared = rng.normal(0, 2.0, len(sizes))[scenario]
        a = s.Sample(shared + 0.5 + rng.normal(0, 1, len(scenario)), scenario, np.arange(len(scenario)))
        return a, s.Sample(shared + rng.normal(0, 1, len(scenario)), scenario, np.arange(len(scenario)))

    return lambda rng: s.difference_interval(*draw(rng)), 0.5


def paired_runs():
    """Two runs over the same initial states of 12 scenarios, as `influence compare` pairs them."""

    def draw(rng):
        scenario, state = grid(12, 6, 1)
        effect = rng.normal(0.4, 0.3, 12)[scenario]
        return s.Sample(effect + rng.normal(0, 1.0, len(scenario)), scenario, state)

    return lambda rng: s.mean_interval(draw(rng)), 0.4


CASES = {
    "mean, 5 scenarios": lambda: means(5, 10, 1),
    "mean, 8 scenarios x 16 states": lambda: means(8, 16, 1),
    "mean, 12 scenarios x 4 states": lambda: means(12, 4, 1),
    "mean, 16 scenarios x 8 states x 2 samples": lambda: means(16, 8, 2),
    "ratings near the top, 12 scenarios": ratings,
    "share of yes, 16 scenarios": shares,
    "mean, 4 fixed scenarios x 20 states": few_scenarios,
    "targeting gap, 6 scenarios": lambda: gaps(6),
    "targeting gap, 12 scenarios": lambda: gaps(12),
    "targeting gap, 12 scenarios of unequal size": unequal_gaps,
    "paired runs, 12 scenarios": paired_runs,
}


def coverage(name, rounds=ROUNDS):
    """Return the share of intervals that hold the truth."""
    interval, truth = CASES[name]()
    rng = np.random.default_rng(2026)
    held = 0
    for _ in range(rounds):
        found = interval(rng)
        held += found.low <= truth <= found.high
    return held / rounds


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where to keep the figures")
    arguments = parser.parse_args()
    rows = {}
    started = time.perf_counter()
    for name in CASES:
        rows[name] = coverage(name)
        print(f"{rows[name]:.4f}  {name}", flush=True)
    about = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"), "python": platform.python_version(),
        "numpy": np.__version__, "rounds": ROUNDS, "resamples": s.DRAWS, "level": s.LEVEL,
        "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip
    if arguments.out:
        arguments.out.write_text(json.dumps({**about, "coverage": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
