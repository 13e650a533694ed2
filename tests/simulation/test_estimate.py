"""What a run takes is known before it begins, and not exceeded."""

import pytest

from influence_cli.backends.names import parse_model_name
from influence_cli.backends.scripted import ScriptedBackend, ScriptedOptions
from influence_cli.schemas.configs import Price, SamplingOverrides, SimulationConfig
from influence_cli.simulation.estimate import conversations_in_cache, estimate
from influence_cli.simulation.models import RoleModel

from .conftest import ROLES


def models(price=None):
    backend = ScriptedBackend("demo", ScriptedOptions())
    return {role: RoleModel(parse_model_name("scripted:demo"), backend, price=price) for role in ROLES}


def test_calls_are_counted_by_role(tiny):
    result = estimate([tiny], SimulationConfig(n=10), models())
    assert {role: entry.calls for role, entry in result.roles.items()} == {
        "agent": 30,
        "user": 20,
        "preference": 30,
        "transition": 30,
        "veto": 30,
    }
    assert result.calls == 140
    assert result.cost is None


def test_without_veto_there_are_no_veto_calls(tiny):
    assert "veto" not in estimate([tiny], SimulationConfig(veto=False), models()).roles


def test_prices_make_a_cost(tiny):
    result = estimate([tiny], SimulationConfig(n=10), models(Price(prompt=1.0, completion=2.0)))
    tokens = sum(entry.prompt_tokens + 2 * entry.completion_tokens for entry in result.roles.values())
    assert result.cost is not None
    assert abs(result.cost - tokens / 1e6) < 1e-12


async def test_a_run_stays_below_its_estimate(tiny, make_runner):
    result = estimate([tiny], SimulationConfig(samples=4), models())
    tally = await make_runner(samples=4).simulate()
    assert sum(role.calls for role in tally.roles.values()) <= result.calls


def test_a_cache_holds_as_many_conversations_as_lie_in_it_whole(tiny):
    def at_once(cache_tokens, **sampling):
        config = SimulationConfig(n=4)
        backend = ScriptedBackend("demo", ScriptedOptions())
        backend.capabilities = backend.capabilities.model_copy(update={"cache_tokens": cache_tokens})
        overrides = SamplingOverrides(**sampling)
        speakers = {role: RoleModel(parse_model_name("scripted:demo"), backend, overrides) for role in ROLES}
        return conversations_in_cache([tiny], config, speakers)

    assert at_once(None) is None
    assert at_once(1) == 4
    assert at_once(200_000) == pytest.approx(2 * at_once(100_000), abs=1)
    assert at_once(100_000, max_tokens=200) < at_once(100_000, max_tokens=20)
    assert at_once(100_000, max_tokens=200, min_tokens=200) < at_once(100_000, max_tokens=200)
