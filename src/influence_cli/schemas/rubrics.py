"""A judge's question about a conversation that is over."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationError, model_validator

from influence_cli.schemas.environment import Choice, Slug
from influence_cli.schemas.frozen import Frozen

Question = Annotated[str, StringConstraints(min_length=1, max_length=4_000)]
"""Plain text, never a template: a rubric fits every environment."""

Scope = Literal["turn", "last", "conversation"]
"""What is judged: each reply of the agent with what came before it, the last one, or the conversation as a whole."""


class RubricScale(Frozen):
    """Whole numbers from ``low`` to ``high``, and what some of them mean."""

    low: int = Field(default=1, ge=-100, le=100, description="The lowest number.")
    high: int = Field(default=10, ge=-100, le=100, description="The highest number.")
    means: dict[str, str] = Field(default_factory=dict, description="What a number means, in words; by number.")

    @model_validator(mode="after")
    def _ordered(self) -> RubricScale:
        if not self.low < self.high:
            raise ValueError("a scale goes from a lower to a higher number")
        for number in self.means:
            if number not in self.answers:
                raise ValueError(f"{number!r} is not on the scale from {self.low} to {self.high}")
        return self

    @property
    def answers(self) -> tuple[str, ...]:
        """The numbers, from low to high."""
        return tuple(str(number) for number in range(self.low, self.high + 1))

    @property
    def reversible(self) -> bool:
        """Whether it can be asked the other way round: both ends are said in words."""
        return str(self.low) in self.means and str(self.high) in self.means

    def mirrored(self, answer: str) -> str:
        """Return the number that stands for ``answer`` where the scale is reversed."""
        return str(self.low + self.high - int(answer))


class Otherwise(Frozen):
    """What to answer where the question does not arise."""

    when: str = Field(min_length=1, max_length=400, description="The case, as it follows the word `If`.")
    answer: str = Field(description="The answer then.")


class Rubric(Frozen):
    """A question with its choices or scale, and what the judge may see."""

    id: Slug = Field(description="Names the rubric.")
    title: str = Field(default="", description="A few words for tables and figures.")
    question: Question = Field(description="Stands after the transcript; scale and choices are added to it.")
    choices: tuple[Choice, ...] = Field(
        default=(), description="What may be answered, where it is no scale; with a scale, its numbers."
    )
    scale: RubricScale | None = Field(default=None, description="Numbers to answer; 1 to 10 unless choices are given.")
    otherwise: Otherwise | None = Field(default=None, description="The answer where the question does not arise.")
    scope: Scope = Field(default="conversation", description="What is judged.")
    sees_tools: bool = Field(default=False, description="Whether the transcript shows tool calls and results.")
    sees_user: bool = Field(default=False, description="Whether the judge is told who the user is and what they want.")
    harmful_direction: Literal["up", "down"] | None = Field(
        default=None, description="Which way is worse; null: neither."
    )
    also_called: tuple[Slug, ...] = Field(default=(), description="Other names that it can be asked for by.")
    tags: tuple[Slug, ...] = Field(default=(), description="Groups that can be asked for together.")
    negates: Slug | None = Field(default=None, description="The rubric that this one asks the other way round.")

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, data: Any) -> Any:
        """Give a rubric without choices those of its scale, and one with neither the scale from 1 to 10."""
        if isinstance(data, dict) and not data.get("choices"):
            try:
                scale = RubricScale.model_validate(data.get("scale") or {})
            except ValidationError:
                return data  # told where it stands, by the field itself
            return {**data, "scale": scale, "choices": scale.answers}
        return data

    @model_validator(mode="after")
    def _answerable(self) -> Rubric:
        if self.scale is not None and self.choices != self.scale.answers:
            raise ValueError("a rubric has choices or a scale, not both")
        if len(self.choices) < 2:
            raise ValueError("a rubric needs at least two choices")
        if len(set(self.choices)) != len(self.choices):
            raise ValueError("a choice stands twice")
        if self.otherwise is not None and self.otherwise.answer not in self.choices:
            raise ValueError(f"{self.otherwise.answer!r} is none of the answers")
        return self

    @property
    def reversible(self) -> bool:
        """Whether it can be asked with its scale the other way round."""
        return self.scale is not None and self.scale.reversible

    def mirrored(self, answer: str) -> str:
        """Return what stands for ``answer`` where the scale is reversed."""
        return (self.scale or RubricScale()).mirrored(answer)

    def asked(self, *, reversed_scale: bool = False) -> str:
        """Return the question with what the numbers mean; ValueError for a reversed scale that has no words."""
        if reversed_scale and not self.reversible:
            raise ValueError(f"{self.id} says not in words what both ends of its scale mean")
        parts = [self.question]
        turned = self.mirrored if reversed_scale else str
        if self.scale is not None and self.scale.means:
            means = {int(turned(number)): words for number, words in self.scale.means.items()}
            parts.append(", ".join(f"{number} = {means[number]}" for number in sorted(means)) + ".")
        if self.otherwise is not None:
            parts.append(f"If {self.otherwise.when}, answer {turned(self.otherwise.answer)}.")
        return " ".join(parts)


class RubricFile(Frozen):
    """A file of rubrics."""

    rubrics: tuple[Rubric, ...] = Field(min_length=1, description="The rubrics.")
