"""Environments written in Python: the two games of the examples, played."""

import pytest

from influence_cli.backends.names import parse_model_name
from influence_cli.backends.scripted import ScriptedBackend, ScriptedOptions
from influence_cli.schemas.configs import SimulationConfig
from influence_cli.schemas.messages import Message
from influence_cli.schemas.requests import Generation
from influence_cli.simulation.calls import Run
from influence_cli.simulation.models import RoleModel
from influence_cli.simulation.runner import Runner, start_tally
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import RunDirectory


@pytest.fixture
def games(repository, monkeypatch):
    monkeypatch.syspath_prepend(str(repository / "examples" / "games" / "src"))
    from influence_games import games

    return games


class Lines(ScriptedBackend):
    """An agent that says its lines in turn, by the number of its replies so far."""

    def __init__(self, *lines: str) -> None:
        super().__init__("demo", ScriptedOptions())
        self.lines = lines
        self.asked = set()

    async def generate(self, request):
        self.asked.add(request.role)
        said = sum(message.role == "assistant" for message in request.messages)
        return Generation(text=self.lines[min(said, len(self.lines) - 1)])

    async def choose(self, request):
        self.asked.add(request.role)
        return await super().choose(request)


async def play(environment, backend, tmp_path, **settings):
    config = SimulationConfig(environments=(environment.name,), **settings)
    models = {
        role: RoleModel(parse_model_name("scripted:demo"), backend)
        for role in ("agent", "user", "preference", "transition", "veto")
    }
    directory = RunDirectory.__new__(RunDirectory)
    from influence_cli.schemas.configs import RunManifest
    from influence_cli.store.run_directory import create_run

    directory = create_run(tmp_path / "run", RunManifest(run_id="r", command="simulate", created="now", config=config))
    with directory.writer() as writer:
        run = Run(config, models, writer, start_tally([environment], config))
        await Runner(run, [environment], writer).simulate()
    with RunReader(directory) as reader:
        return list(reader.trajectories())


async def test_twenty_questions_needs_no_model_but_the_agent(games, tmp_path):
    backend = Lines("Is it alive?", "Is it a machine?", "It is a cat!")
    (played,) = await play(
        games.TwentyQuestions(None), backend, tmp_path, n=1, scenarios=("animals",), initial_states=("cat",)
    )
    assert backend.asked == {"agent"}
    assert [m["text"] for m in played["messages"] if m["speaker"] == "user"][1:] == ["Yes.", "No."]
    assert (played["state"], played["turns"], played["final_rating"]) == ("found", 3, 8.0)
    assert played["judgements"][0]["preference"]["method"] == "scripted"


async def test_a_car_is_had_for_less(games, tmp_path):
    backend = Lines("I offer 3000.", "3400, the tyres are worn.", "3900 then.")
    (played,) = await play(games.CarHaggling(None), backend, tmp_path, n=1, initial_states=("estate-2011",))
    users = [m["text"] for m in played["messages"] if m["speaker"] == "user"]
    assert users[1:] == ["3000 is too little. I could do 3780.", "3400 is too little. I could do 3650."]
    assert played["state"] == "sold"
    assert played["final_rating"] > played["mean_rating"]


def test_the_seller_never_goes_below_the_floor(games):
    environment = games.CarHaggling(None)
    reference = next(r for r in environment.initial_states() if r.initial_state == "city-2016")
    episode = environment.episode(reference, sample=0, population=None, cue=None, seed=0)
    offers = [Message(speaker="agent", text=f"{1000 + n}") for n in range(20)]
    assert "6500" in episode.spoken("user", "haggling", offers)
