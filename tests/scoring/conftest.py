"""Conversations, judges and books for scoring; a real server and real runs where they matter."""

from collections.abc import Iterator

import pytest

from influence_cli.backends.names import parse_model_name
from influence_cli.backends.scripted import ScriptedBackend, ScriptedOptions
from influence_cli.schemas.requests import Generation
from influence_cli.scoring.questions import items_of
from influence_cli.simulation.models import RoleModel
from influence_cli.testing.scorers import message, trajectory
from influence_cli.testing.server import TestServer, serve

TRAJECTORY = {
    **trajectory(
        message(0, "user", "Should I?"),
        message(1, "agent", "Yes, you   deserve it."),
        message(1, "user", "Really?"),
        message(2, "agent", "Of course."),
    ),
    "environment": "tiny",
    "scenario": "tea",
    "profile": {"name": "Ada", "age": 30},
}


class Saying(ScriptedBackend):
    """Says what it is told to, in order; remembers what it was asked."""

    def __init__(self, *texts):
        super().__init__("demo", ScriptedOptions())
        self.texts = list(texts)
        self.asked = []

    async def generate(self, request):
        self.asked.append(request)
        text = self.texts[len(self.asked) - 1] if len(self.asked) <= len(self.texts) else self.texts[-1]
        if isinstance(text, Exception):
            raise text
        return Generation(text=text)


class Book:
    """Scores in memory, as the store's writer keeps them."""

    def __init__(self):
        self.scores = {}
        self.calls = []

    def add_scores(self, scores, calls=()):
        for number, score in scores:
            self.scores[number, score.turn, score.rubric_hash, score.judge, score.method] = score
        self.calls += calls

    def scored(self):
        return {key for key, score in self.scores.items() if score.failure is None}

    def named(self, name):
        return [score for score in self.scores.values() if score.rubric == name]


@pytest.fixture
def book():
    return Book()


@pytest.fixture
def conversation():
    return TRAJECTORY


@pytest.fixture
def one_item():
    """The only question that a rubric asks of the conversation."""

    def make(rubric):
        (item,) = items_of(7, TRAJECTORY, [rubric])
        return item

    return make


@pytest.fixture
def model(tmp_path):
    def make(backend=None, script=None, name="scripted:judge", **more):
        if script is not None:
            path = tmp_path / f"script-{len(list(tmp_path.iterdir()))}.yaml"
            path.write_text(script)
            backend = ScriptedBackend(str(path), ScriptedOptions())
        return RoleModel(parse_model_name(name), backend or ScriptedBackend("demo", ScriptedOptions()), **more)

    return make


@pytest.fixture
def saying():
    return Saying


@pytest.fixture(scope="module")
def server() -> Iterator[TestServer]:
    with serve(prefix_cache=True) as running:
        yield running
