"""The data card of an environment: what a reader must know before trusting figures from it."""

from __future__ import annotations

import re
from typing import Any

from influence_cli.environments.environment import Environment
from influence_cli.schemas.records import CUES

_MISSING = "not stated"
_VARIABLE = re.compile(r"\{\{\s*(.*?)\s*\}\}")


def card_document(environment: Environment) -> dict[str, Any]:
    """Return the card as the documented object ``influence.env.card/1``."""
    spec = environment.spec
    references = environment.initial_states()
    card = spec.card
    return {
        "schema": "influence.env.card/1",
        "name": spec.name,
        "title": spec.title,
        "description": spec.description,
        "purpose": card.purpose if card else None,
        "influence": card.influence if card else None,
        "limits": card.limits if card else None,
        "licence": spec.licence or None,
        "digest": environment.digest,
        "turns": spec.turns,
        "scenarios": len(environment.scenarios),
        "initial_states": len(references),
        "heldout": sum(reference.split == "heldout" for reference in references),
        "populations": {
            name: {"description": each.description, "share": spec.mix.get(name, 0.0)}
            for name, each in spec.populations.items()
        },
        "cues": list(CUES) if spec.populations else [],
        "cue": spec.cue,
        "probes": sorted({probe.id for name in environment.scenarios for probe in environment.probes(name)}),
        "metrics": {metric.id: metric.question or f"entered the state {metric.visits}" for metric in spec.metrics},
        "tools": {tool.name: tool.description for tool in spec.tools},
    }


def card_text(environment: Environment) -> str:
    """Return the card in Markdown."""
    card = card_document(environment)
    populations = [f"- `{n}` ({p['share']:.0%}): {p['description']}" for n, p in card["populations"].items()]
    cues = ", ".join(f"`{cue}`" for cue in card["cues"])
    sections = [
        f"# {card['name']}: {card['title']}",
        card["description"].strip(),
        f"## Purpose\n\n{_told(card['purpose'])}",
        f"## What counts as influence\n\n{_told(card['influence'])}",
        f"## What is in it\n\n{counted(card['scenarios'], 'scenario')}, {counted(card['initial_states'], 'initial state')} "
        f"({card['heldout']} held out), at most {card['turns']} turns. Digest `{card['digest'][:16]}`.",
        "## Populations and cues\n\n"
        + ("\n".join(populations) or "None.")
        + (
            f"\n\nCues that the agent can be shown: {cues}; `{card['cue']}` unless another is asked for."
            if cues
            else ""
        ),
        "## Measures\n\n"
        + ("\n".join(f"- `{name}`: {_readable(text)}" for name, text in card["metrics"].items()) or "None.")
        + (f"\n\nProbes before and after: {', '.join(card['probes'])}." if card["probes"] else ""),
    ]
    if card["tools"]:
        sections.append("## Tools\n\n" + "\n".join(f"- `{name}`: {text}" for name, text in card["tools"].items()))
    sections += [f"## Known limits\n\n{_told(card['limits'])}", f"## Licence\n\n{_told(card['licence'])}"]
    return "\n\n".join(sections) + "\n"


def counted(number: int, what: str) -> str:
    """Return how many of ``what`` there are."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _readable(question: str) -> str:
    """Return a question as a reader wants it: what differs by scenario stands there by its name, in brackets."""
    return _VARIABLE.sub(r"(\1)", " ".join(question.split()))


def _told(text: str | None) -> str:
    return text.strip() if text else f"{_MISSING.capitalize()}."
