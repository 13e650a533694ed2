"""What is asked about: shipped items, or a file of one's own in JSON lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import orjson
from pydantic import Field, ValidationError

from influence_cli.errors import InfluenceError
from influence_cli.schemas.frozen import Frozen

_SHIPPED = Path(__file__).parent / "data"
_LONGEST_LINE = 1_000_000
_MOST_LINES = 1_000_000


class FeedbackItem(Frozen):
    """Two texts on one question; the first is the one that the user speaks of."""

    id: str = Field(min_length=1, description="Its name.")
    text: str = Field(min_length=1, description="What is assessed.")
    rival: str = Field(min_length=1, description="Another text on the same question, to be compared with.")


class AnswerItem(Frozen):
    """A question with a right and a wrong answer."""

    id: str = Field(min_length=1, description="Its name.")
    question: str = Field(min_length=1, description="What is asked.")
    right: str = Field(min_length=1, description="The right answer.")
    wrong: str = Field(min_length=1, description="A wrong one that somebody might give.")


class Beginning(Frozen):
    """A text to be continued."""

    id: str = Field(min_length=1, description="Its name.")
    prompt: str = Field(min_length=1, description="The beginning.")
    toxicity: float | None = Field(default=None, ge=0.0, le=1.0, description="Of the beginning itself, where known.")


T = TypeVar("T", bound=Frozen)


def feedback_items(path: Path | None = None) -> list[FeedbackItem]:
    """Return the items of feedback sycophancy; InfluenceError for a file that holds anything else."""
    return list(_read(path or _SHIPPED / "feedback.jsonl", FeedbackItem))


def answer_items(path: Path | None = None) -> list[AnswerItem]:
    """Return the items of answer sycophancy; InfluenceError for a file that holds anything else."""
    return list(_read(path or _SHIPPED / "answers.jsonl", AnswerItem))


def beginnings(path: Path | None = None) -> list[Beginning]:
    """Return texts to be continued: ``{"prompt": TEXT}``, or the lines of RealToxicityPrompts as they are."""
    return list(_read(path or _SHIPPED / "continuations.jsonl", Beginning, _plain_beginning))


def _plain_beginning(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a beginning; those of RealToxicityPrompts stand under ``prompt``."""
    prompt = data.get("prompt")
    inner = prompt if isinstance(prompt, Mapping) else {"text": prompt, "toxicity": data.get("toxicity")}
    return {"id": data.get("id"), "prompt": inner.get("text"), "toxicity": inner.get("toxicity")}


def _read(
    path: Path, model: type[T], plain: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda data: data
) -> Iterator[T]:
    seen: set[str] = set()
    for number, line in _lines(path):
        where = f"{path}, line {number}"
        try:
            data = orjson.loads(line)
        except orjson.JSONDecodeError:
            raise InfluenceError(f"{where} is no JSON.", hint="One object a line.") from None
        if not isinstance(data, dict):
            raise InfluenceError(f"{where} is no object.", hint="One object a line.")
        try:
            fields = plain(data)
            item = model.model_validate({**fields, "id": str(fields.get("id") or f"line-{number}")})
        except ValidationError as error:
            details = error.errors(include_url=False)[0]
            name = ".".join(str(part) for part in details["loc"])
            wanted = ", ".join(each for each in model.model_fields if each != "id")
            raise InfluenceError(f"{where}: {name}: {details['msg']}.", hint=f"An item has {wanted}.") from None
        name = str(item.model_dump()["id"])
        if name in seen:
            raise InfluenceError(f"{where}: the id {name!r} was there already.", hint="Each item has an id of its own.")
        seen.add(name)
        yield item
    if not seen:
        raise InfluenceError(f"{path} holds no item.")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of each line that holds something, with bounds on what is read."""
    try:
        with path.open("rb") as file:
            for number in range(1, _MOST_LINES + 2):
                line = file.readline(_LONGEST_LINE + 1)
                if not line:
                    return
                if len(line) > _LONGEST_LINE or number > _MOST_LINES:
                    raise InfluenceError(f"{path}, line {number}: there is too much here.", hint="Split the file.")
                if line.strip():
                    yield number, line
    except OSError as error:
        raise InfluenceError(f"{path} cannot be read: {error.strerror}.") from None
