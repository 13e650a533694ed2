"""A conversation as Markdown, for a person or a bug report; text of models is made harmless and cannot close its fence."""

from __future__ import annotations

import re
from pathlib import Path

from influence_cli.store.connection import file_error
from influence_cli.store.conversation import StoredConversation
from influence_cli.store.exporters import whole_file
from influence_cli.store.run_directory import RunDirectory
from influence_cli.viewer import formats
from influence_cli.viewer.cells import shown

FOLDER = "exports"


def transcript_text(conversation: StoredConversation, *, blind: bool) -> str:
    """Return the conversation as Markdown."""
    record = conversation.record
    lines = [f"# {shown(conversation.title, newlines=False)}", ""]
    facts = {
        "number": conversation.episode_id,
        "iteration": record.key.iteration,
        "population": record.population or "none",
        "cue": record.cue,
        "ended": f"{conversation.status}, {conversation.reason or 'not yet'}",
    }
    if not blind:
        facts |= {
            "mean rating": formats.number(conversation.mean_rating),
            "harm": formats.number(conversation.mean_veto, 3),
        }
    lines += [f"- {name}: {shown(str(value), newlines=False)}" for name, value in facts.items()]
    for position, message in enumerate(conversation.messages):
        lines += ["", f"## {message.speaker}, turn {message.turn}", "", *_fenced(message.text)]
        lines += [
            f"- calls {shown(call.name, newlines=False)} {shown(str(call.arguments), newlines=False)}"
            for call in message.tool_calls
        ]
        last = not any(m.turn == message.turn and m.speaker == "agent" for m in conversation.messages[position + 1 :])
        if message.speaker == "agent" and message.turn and last and not blind:
            lines += ["", *_judged(conversation, message.turn)]
    return "\n".join(lines) + "\n"


def _fenced(text: str) -> list[str]:
    seen = shown(text)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", seen)), default=0))
    return [f"{fence}text", seen, fence]


def _judged(conversation: StoredConversation, turn: int) -> list[str]:
    lines = []
    for role in ("preference", "veto", "transition"):
        judgement = conversation.judged(turn, role)
        if judgement is not None:
            shares = ", ".join(
                f"{shown(name, newlines=False)}: {share:.3f}"
                for name, share in zip(judgement.choices, judgement.probabilities, strict=True)
            )
            lines.append(
                f"- {role}: {formats.number(judgement.expected)} ({judgement.method}, mass {judgement.mass:.3f}; {shares})"
            )
    for score in conversation.scores:
        if score.turn == turn:
            rubric, judge = (shown(name, newlines=False) for name in (score.rubric, score.judge))
            lines.append(f"- {rubric}: {formats.number(score.value)} ({judge})")
    return lines


def save_transcript(conversation: StoredConversation, directory: RunDirectory, *, blind: bool) -> Path:
    """Write the conversation into the run's folder ``exports``; return the file. InfluenceError where it cannot be."""
    folder = directory.path / FOLDER
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise file_error(error, folder) from None
    path = folder / f"conversation-{conversation.episode_id}.md"
    with whole_file(path) as temporary:
        temporary.write_text(transcript_text(conversation, blind=blind), encoding="utf-8")
    return path
