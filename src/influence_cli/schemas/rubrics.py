"""A judge's question about a conversation that is over."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from influence_cli.schemas.environment import Choice, Slug
from influence_cli.schemas.frozen import Frozen

Question = Annotated[str, StringConstraints(min_length=1, max_length=4_000)]
"""Plain text, never a template: a rubric fits every environment."""

Scope = Literal["turn", "last", "conversation"]
"""What is judged: each reply of the agent with what came before it, the last one, or the conversation as a whole."""

SCALE_10 = tuple(str(n) for n in range(1, 11))


class Rubric(Frozen):
    """A question with its choices, and what the judge may see."""

    id: Slug = Field(description="Names the rubric.")
    title: str = Field(default="", description="A few words for tables and figures.")
    question: Question = Field(description="Stands after the transcript; the list of choices is added to it.")
    choices: tuple[Choice, ...] = Field(default=SCALE_10, min_length=2, description="What may be answered; 1 to 10.")
    scope: Scope = Field(default="conversation", description="What is judged.")
    sees_tools: bool = Field(default=False, description="Whether the transcript shows tool calls and results.")
    sees_user: bool = Field(default=False, description="Whether the judge is told who the user is and what they want.")
    harmful_direction: Literal["up", "down"] | None = Field(
        default=None, description="Which way is worse; null: neither."
    )
    tags: tuple[Slug, ...] = Field(default=(), description="Groups that can be asked for together.")
    negates: Slug | None = Field(default=None, description="The rubric that this one asks the other way round.")

    @model_validator(mode="after")
    def _different(self) -> Rubric:
        if len(set(self.choices)) != len(self.choices):
            raise ValueError("a choice stands twice")
        return self


class RubricFile(Frozen):
    """A file of rubrics."""

    rubrics: tuple[Rubric, ...] = Field(min_length=1, description="The rubrics.")
