"""Figures in words: how numbers, intervals and contrasts read, on a page as in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from influence_cli.sanitize import visible
from influence_cli.schemas.records import GAMEABLE, RESILIENT

Document = Mapping[str, Any]

KINDS = {
    "change": "From the first iteration to the last",
    "targeting-gap": "Targeting gap: gameable less resilient users",
    "heldout-gap": "Held-out less training initial states",
    "run": "Each run less the first one",
}
_MANY = 1_000_000

PARTS = {"before": "before", "after": "after", "shift": "shift", "variation": "total variation",
         "control-shift": "shift with a neutral agent", "over-control": "shift less that of the control"}  # fmt: skip


def number(value: float | None, digits: int = 2) -> str:
    """Return a number, or a dash where there is none."""
    if value is None:
        return "\u2013"
    told = f"{value:,.{digits}f}"
    told = told.lstrip("-") if float(told.replace(",", "")) == 0.0 else told
    return told.replace("-", "\u2212")


def interval(row: Mapping[str, Any], digits: int = 2) -> str:
    """Return the limits of an interval."""
    if row.get("low") is None or row.get("high") is None:
        return "too few units"
    return f"{number(row['low'], digits)} to {number(row['high'], digits)}"


def p_value(value: float | None) -> str:
    """Return a p-value as people write it."""
    if value is None:
        return "\u2013"
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}" if value < 0.1 else f"{value:.2f}"


def digits_of(measure: Mapping[str, Any]) -> int:
    """Return how many decimals a measure's figures need."""
    scale = measure["scale"]
    return 3 if scale and scale[1] - scale[0] <= 1.0 else 2


def titles(document: Document) -> dict[str, str]:
    """Return the title of every measure."""
    return {measure["id"]: visible(measure["title"], newlines=False) for measure in document["measures"]}


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], caption: str, left: int = 1) -> dict[str, Any]:
    """Return a table for a page: its first ``left`` columns hold words, the others numbers."""
    return {"caption": caption, "head": list(head), "rows": [list(map(str, row)) for row in rows], "left": left}


def overview_table(document: Document) -> dict[str, Any]:
    """Return what each run shows, in a line each."""
    rows = []
    for run in document["runs"]:
        counts = run["conversations"]
        told = [run["label"], f"{counts['complete']:,} of {counts['total']:,}", run["reported_iteration"]]
        for measure in ("reward", "aggregate-harm"):
            found = next(
                (
                    row
                    for row in document["estimates"]
                    if row["run"] == run["label"] and row["measure"] == measure and row["by"] == "all"
                    and row["split"] == "all" and row["iteration"] == run["reported_iteration"]
                ),
                None,
            )  # fmt: skip
            told.append(f"{number(found['value'])} ({interval(found)})" if found else "\u2013")
        rows.append(["\u2013" if cell is None else cell for cell in told])
    head = ("run", "complete", "iteration", "reward", "aggregate harm")
    return table(head, rows, "Reward and aggregate harm at the reported iteration, with 95 % intervals")


def estimates_table(document: Document, by: str, iterations: str = "reported") -> dict[str, Any] | None:
    """Return every measure by the groups of a column; of every iteration where ``by`` is ``all``."""
    names, digits = titles(document), {m["id"]: digits_of(m) for m in document["measures"]}
    last = {run["label"]: run["reported_iteration"] for run in document["runs"]}
    rows = []
    for row in document["estimates"]:
        if row["by"] != by or (iterations == "reported" and row["iteration"] != last[row["run"]]):
            continue
        place = {"all": "all conversations", "train": "training", "heldout": "held out"}[row["split"]]
        group = place if by == "all" else row["group"]
        d = digits[row["measure"]]
        figures = (number(row["value"], d), interval(row, d), number(row["sd"], d), f"{row['n']:,}")
        rows.append((names[row["measure"]], row["run"], row["iteration"], group, *figures))
    head = ("measure", "run", "iteration", by if by != "all" else "initial states", "mean", "95 % interval", "sd", "n")
    return table(head, rows, f"Every measure by {by if by != 'all' else 'iteration'}", 4) if rows else None


def several_groups(document: Document, column: str) -> bool:
    """Return whether there is anything to set side by side in a column."""
    return len({row["group"] for row in document["estimates"] if row["by"] == column}) > 1


def contrast_table(document: Document, kind: str) -> dict[str, Any] | None:
    """Return the contrasts of one kind."""
    names, digits = titles(document), {m["id"]: digits_of(m) for m in document["measures"]}
    last = {run["label"]: run["reported_iteration"] for run in document["runs"]}
    found = [
        row
        for row in document["contrasts"]
        if row["kind"] == kind and (kind != "targeting-gap" or row["iteration"] == last[row["run"]])
    ]
    several = len({row["group"] for row in found}) > 1
    rows = []
    for row in found:
        d = digits[row["measure"]]
        means = (number(row["means"][1], d), number(row["means"][0], d))
        told = (number(row["value"], d), interval(row, d), number(row["effect"]), p_value(row["p_corrected"]))
        group = (row["group"],) if several else ()
        rows.append((names[row["measure"]], row["run"], *group, *means, *told, needed(row["needed"])))
    from_to = {"change": ("first", "last"), "targeting-gap": ("resilient", "gameable"),
               "heldout-gap": ("training", "held out"), "run": ("first run", "this run")}[kind]  # fmt: skip
    head = ("measure", "run", *(("cue",) if several else ()), *from_to, "difference", "95 % interval", "g", "p (Holm)",
            "n to see it")  # fmt: skip
    family = max((row["family"] for row in found if "family" in row), default=0)
    return table(head, rows, f"{KINDS[kind]}; p-values corrected for {family}", len(head) - 7) if rows else None


def without_gap(document: Document) -> list[str]:
    """Return a sentence for each run in which no targeting gap can be told, and why."""
    told = []
    for run in document["runs"]:
        if run["reported_iteration"] is None or any(
            row["kind"] == "targeting-gap" and row["run"] == run["label"] for row in document["contrasts"]
        ):
            continue
        here = (
            row["group"] for row in document["estimates"] if row["by"] == "population" and row["run"] == run["label"]
        )
        users = ", ".join(dict.fromkeys(here)) or "of no kind that is known"
        wanted = f"{' or '.join(GAMEABLE)} users with {' or '.join(RESILIENT)} ones"
        told.append(f"No targeting gap in {run['label']}: it compares {wanted}, and the users here are {users}.")
    return told


def needed(count: int | None) -> str:
    """Return a number of conversations that nobody takes to the last one."""
    if count is None:
        return "\u2013"
    return f"{count:,}" if count <= _MANY else "> 1 million"


def shift_table(document: Document) -> dict[str, Any] | None:
    """Return preference shift by probe, part and population."""
    rows = [
        (row["probe"], row["run"], row["population"], PARTS.get(row["part"], row["part"]), number(row["value"]),
         interval(row), f"{row['n']:,}")
        for row in document["preference_shift"]
    ]  # fmt: skip
    head = ("probe", "run", "population", "part", "mean", "95 % interval", "n")
    return table(head, rows, "Answers of simulated users before and after a conversation", 4) if rows else None


def power_table(document: Document) -> dict[str, Any] | None:
    """Return how many conversations each of two groups needs."""
    names, digits = titles(document), {m["id"]: digits_of(m) for m in document["measures"]}
    sizes = list(document["power"][0]["needed"]) if document["power"] else []
    rows = [
        (names[row["measure"]], row["run"], f"{row['n']:,}", number(row["sd"], digits[row["measure"]]),
         number(row["design_effect"], 1), *(f"{row['needed'][size]:,}" for size in sizes),
         number(row["detectable"], digits[row["measure"]]))
        for row in document["power"]
    ]  # fmt: skip
    head = ("measure", "run", "n", "sd", "design effect", *(f"d = {size}" for size in sizes), "seen with n")
    return table(head, rows, "Conversations in each of two groups for 80 % power at 5 %", 2) if rows else None


def judgement_table(document: Document) -> dict[str, Any] | None:
    """Return how often judgements were unusable or failed, by role and judge."""
    rows = []
    for run in document["runs"]:
        for row in run["judgements"]:
            shares = (
                f"{row['n']:,}",
                f"{row['unusable']:,}",
                _share(row["unusable"], row["n"]),
                number(row["mean_mass"]),
            )
            rows.append((run["label"], row["role"], row["method"], *shares, "\u2013"))
        for row in run["scores"]:
            shares = (
                f"{row['n']:,}",
                f"{row['unusable']:,}",
                _share(row["unusable"] + row["failed"], row["n"]),
                "\u2013",
            )
            rows.append((run["label"], row["judge"], row["method"], *shares, f"{row['failed']:,}"))
    head = ("run", "role or judge", "method", "n", "unusable", "share lost", "mean mass", "failed")
    return table(head, rows, "Judgements that enter no mean", 3) if rows else None


def call_table(document: Document) -> dict[str, Any] | None:
    """Return calls, failures, tokens and cost by role and model."""
    rows = []
    for run in document["runs"]:
        for row in run["calls"]:
            cost = "unknown" if row["cost"] is None else f"${row['cost']:,.4f}"
            counts = (f"{row[name]:,}" for name in ("calls", "failed", "retries", "prompt_tokens", "cached_tokens"))
            model = f"{row['model']} with {row['adapters']:,} adapters" if row["adapters"] else row["model"]
            rows.append((run["label"], row["role"], model, *counts, f"{row['completion_tokens']:,}", cost))
    head = ("run", "role", "model", "calls", "failed", "retries", "prompt tokens", "cached", "reply tokens", "cost")
    return table(head, rows, "Calls of models", 3) if rows else None


def failure_table(document: Document) -> dict[str, Any] | None:
    """Return conversations that failed or have not ended."""
    rows: list[tuple[str, str, str]] = []
    for run in document["runs"]:
        rows.extend((run["label"], row["kind"].replace("_", " "), f"{row['n']:,}") for row in run["failures"])
        if run["conversations"]["running"]:
            rows.append((run["label"], "not finished", f"{run['conversations']['running']:,}"))
    return table(("run", "why", "n"), rows, "Conversations that are in no figure", 2) if rows else None


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "\u2013"
