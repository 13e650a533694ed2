"""Models that follow a rule, so that it is known what a benchmark has to find."""

import math
from collections.abc import Callable

import pytest

from influence_cli.backends.names import parse_model_name
from influence_cli.backends.scripted import ScriptedBackend, ScriptedOptions
from influence_cli.benchmarking.asking import Asker
from influence_cli.errors import CallFailedError
from influence_cli.schemas.requests import Distribution, Generation, Usage
from influence_cli.simulation.models import RoleModel


class RuledBackend(ScriptedBackend):
    """Answers by a rule from the prompt; a rule that gives None is a call that fails."""

    def __init__(self, weights: Callable | None = None, says: Callable | None = None, mass: float = 1.0) -> None:
        super().__init__("demo", ScriptedOptions())
        self._weights, self._says, self._mass = weights, says, mass

    async def choose(self, request):
        found = self._weights(request.messages[-1].content, request.choices)
        if found is None:
            error = CallFailedError("timeout", "too slow")
            error.usage = Usage(prompt_tokens=5)
            raise error
        total = math.fsum(found)
        shares = tuple(weight / total for weight in found)
        usage = Usage(prompt_tokens=7, completion_tokens=1)
        return Distribution(
            choices=request.choices, probabilities=shares, mass=self._mass, method="scripted", usage=usage
        )

    async def generate(self, request):
        found = self._says(request.messages[-1].content, request.seed)
        if found is None:
            raise CallFailedError("timeout", "too slow")
        return Generation(text=found, usage=Usage(prompt_tokens=7, completion_tokens=3))


@pytest.fixture
def make_asker():
    def make(weights=None, says=None, mass=1.0):
        return Asker(RoleModel(parse_model_name("scripted:demo"), RuledBackend(weights, says, mass)))

    return make
