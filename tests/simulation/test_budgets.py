"""A budget of tokens or money: what is asked, failed and useless calls included, counts until it is used up."""

from influence_cli.backends.scripted import ScriptedBackend, ScriptedOptions
from influence_cli.errors import CallFailedError
from influence_cli.schemas.configs import Budget, Price
from influence_cli.schemas.requests import Capabilities, Usage


async def test_a_token_budget_stops_the_run_resumably(make_runner, journal):
    tally = await make_runner(samples=50, concurrency=4, budget=Budget(tokens=5000)).simulate()
    assert tally.stop == "tokens"
    assert 5000 <= tally.tokens < 8000
    assert tally.complete < 400
    await make_runner(samples=50).simulate()
    assert len(journal.ends) == 400


async def test_a_cost_budget_counts_prices(make_runner):
    price = Price(prompt=1e6, completion=0.0)
    tally = await make_runner(samples=50, concurrency=1, budget=Budget(cost=500.0), price=price).simulate()
    assert tally.stop == "cost"
    assert 500.0 <= tally.total_cost < 1000.0


async def test_a_used_up_budget_begins_no_call(make_runner, journal):
    runner = make_runner(budget=Budget(tokens=100))
    runner._run.tally.earlier_tokens = 100
    runner._run.tally.check_budget()
    tally = await runner.simulate()
    assert (tally.stop, journal.all_calls()) == ("tokens", [])


class Costly:
    """A backend that is paid for answers which are of no use."""

    capabilities = Capabilities(logprobs=True, seeds=True)

    def __init__(self, usage):
        self.usage = usage

    async def generate(self, request):
        error = CallFailedError("empty", "It only thought.", attempts=3)
        error.usage = self.usage
        raise error

    async def choose(self, request):
        raise AssertionError("nothing was said that could be judged")

    async def aclose(self):
        pass


async def test_what_failed_calls_took_counts_against_the_budget(make_runner, journal):
    backend = Costly(Usage(prompt_tokens=100, completion_tokens=900))
    price = Price(prompt=1e6, completion=1e6)
    tally = await make_runner(backend=backend, concurrency=1, budget=Budget(cost=2500.0), price=price).simulate()
    assert (tally.stop, tally.failed, tally.tokens, tally.total_cost) == ("cost", 3, 3000, 3000.0)
    assert {(call.requests, call.cost) for call in journal.all_calls()} == {(3, 1000.0)}


async def test_a_judgement_of_no_use_is_paid_for_too(make_runner, journal, script):
    class Vague(ScriptedBackend):
        async def choose(self, request):
            return (await super().choose(request)).model_copy(update={"mass": 0.1, "method": "sampled"})

    backend = Vague("demo", ScriptedOptions())
    await make_runner(backend=backend, n=1, turns=1, price=Price(prompt=1e6, completion=1e6)).simulate()
    unusable = [call for call in journal.all_calls() if call.error == "unusable"]
    assert unusable
    assert all(call.cost == call.prompt_tokens + call.completion_tokens for call in unusable)
