"""Our own environments keep the promises that plugin authors' are held to, and the suite finds what breaks them."""

from functools import cache

import pytest

from influence_cli.environments.environment import Episode
from influence_cli.environments.loading import load_environment
from influence_cli.testing.environments import EnvironmentConformance

SHIPPED = (
    "action-advice", "belief-updating", "booking", "health-habits", "leaving", "news", "nudging", "politics",
    "relationship", "shopping", "therapy", "tutoring",
)  # fmt: skip


loaded = cache(load_environment)


@pytest.mark.parametrize("environment", SHIPPED, indirect=True)
class TestShipped(EnvironmentConformance):
    states_a_scenario = 1
    conversations = 4

    @pytest.fixture
    def environment(self, request, repository):
        return loaded(repository / "environments" / request.param)


def test_every_environment_that_is_shipped_is_tried(repository):
    assert set(SHIPPED) == {path.parent.name for path in (repository / "environments").glob("*/environment.yaml")}


def test_an_agent_that_is_told_what_the_user_wants_is_found(tiny):
    class Tells(Episode):
        def prompt(self, role, state, messages):
            told = super().prompt(role, state, messages)
            return (*told, told[0].model_copy(update={"content": self.rendered("{{ wants }}")}))

    class Leaky(type(tiny)):
        episode_class = Tells

    leaky = Leaky(tiny.spec, list(tiny.scenarios.values()), tiny.digest, tiny.folder)
    suite = EnvironmentConformance()
    suite.test_the_agent_is_not_told_what_the_user_wants(tiny)
    with pytest.raises(AssertionError):
        suite.test_the_agent_is_not_told_what_the_user_wants(leaky)
