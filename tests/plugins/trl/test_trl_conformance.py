"""Our algorithms keep the promises that every algorithm makes; each training in a process of its own."""

import pytest

from influence_cli.plugins.registry import make_registry
from influence_cli.testing.algorithms import AlgorithmConformance

from .conftest import FAST


class Ours(AlgorithmConformance):
    name = ""

    @pytest.fixture(autouse=True)
    def _model(self, model):
        self.base = f"transformers:{model}"

    @pytest.fixture
    def algorithm(self):
        component = make_registry().component("algorithm", self.name)
        return component.load()(component.options(**FAST))


class TestExpertIteration(Ours):
    name = "expert-iteration"


@pytest.mark.slow
class TestKto(Ours):
    name = "kto"


@pytest.mark.slow
class TestDpo(Ours):
    name = "dpo"


@pytest.mark.slow
class TestRloo(Ours):
    name = "rloo"
