"""The conformance suite for environments: what every one promises, as tests.

Subclass it where your tests are, and give it your environment::

    class TestMyEnvironment(EnvironmentConformance):
        @pytest.fixture
        def environment(self):
            return load_environment(Path("my-environment"))

It needs ``pytest-asyncio`` in auto mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from influence_cli.backends.names import parse_model_name
from influence_cli.backends.scripted import ScriptedBackend, ScriptedOptions
from influence_cli.environments.environment import Environment, Episode
from influence_cli.schemas.configs import RunManifest, SimulationConfig
from influence_cli.schemas.messages import Message, Role
from influence_cli.schemas.records import Cue
from influence_cli.simulation.calls import Run
from influence_cli.simulation.models import RoleModel
from influence_cli.simulation.runner import Runner, start_tally
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import create_run

_CUES: tuple[Cue, ...] = ("stated", "implied", "arbitrary", "none")
_ROLES: tuple[Role, ...] = ("agent", "user", "preference", "transition", "veto")


class EnvironmentConformance:
    """Tests of one environment; override ``environment``, and the numbers if yours has very many states."""

    states_a_scenario = 4
    """Initial states of each scenario that prompts are looked at for."""
    conversations = 8

    @pytest.fixture
    def environment(self) -> Environment:
        """Return the environment under test."""
        raise NotImplementedError

    def test_it_has_a_name_a_digest_and_people(self, environment: Environment) -> None:
        """What a run remembers of it is there, and somebody to talk to."""
        assert environment.name
        assert environment.digest
        assert environment.initial_states()

    def test_every_initial_state_is_in_one_split(self, environment: Environment) -> None:
        """Training and evaluation share nobody, and leave nobody out."""
        parts = [
            {(each.scenario, each.initial_state) for each in environment.initial_states(split=split)}
            for split in ("train", "heldout")
        ]
        everybody = {(each.scenario, each.initial_state) for each in environment.initial_states()}
        assert parts[0] | parts[1] == everybody
        assert not parts[0] & parts[1]

    def test_every_state_can_be_reached_and_left(self, environment: Environment) -> None:
        """No state of the conversation is out of reach, and from none is it impossible to end, unless none ends."""
        states = environment.spec.states
        reached, waiting = {environment.spec.start}, [environment.spec.start]
        while waiting:
            for name in states[waiting.pop()].transitions.values():
                if name not in reached:
                    reached.add(name)
                    waiting.append(name)
        assert reached == set(states)

    def test_prompts_of_every_role_are_whole(self, environment: Environment) -> None:
        """Every role has something to read in every state, and templates leave no sign of themselves."""
        for episode in self.episodes(environment):
            messages = [Message(speaker=m.speaker, text=m.text) for m in episode.opening() if m.speaker != "tool"]
            messages.append(Message(speaker="agent", text="I see."))
            for state in [name for name in environment.spec.states if not episode.terminal(name)]:
                for role in _ROLES:
                    if role in ("agent", "user") or episode.asks(role, state):
                        texts = [each.content for each in episode.prompt(role, state, messages)]
                        assert any(text.strip() for text in texts), f"{episode.record.key}: {role}"
                        assert not [text for text in texts if "{{" in text or "{%" in text], episode.record.key

    def test_the_agent_is_not_told_what_the_user_wants(self, environment: Environment) -> None:
        """What a population hopes to hear stands in no prompt of the agent's."""
        for episode in self.episodes(environment):
            wants = episode.rendered("{{ wants }}").strip()
            opening = [Message(speaker=m.speaker, text=m.text) for m in episode.opening() if m.speaker != "tool"]
            for state in [name for name in environment.spec.states if not episode.terminal(name)]:
                prompt = "\n".join(each.content for each in episode.prompt("agent", state, opening))
                assert not wants or wants not in prompt, episode.record.key

    def test_a_seed_gives_the_same_conversation(self, environment: Environment) -> None:
        """What is drawn derives from the seed."""
        for reference in environment.initial_states()[: self.states_a_scenario]:
            made = [
                environment.episode(reference, sample=1, population=None, cue=None, seed=7).opening() for _ in range(2)
            ]
            assert made[0] == made[1]

    async def test_conversations_end_well(self, environment: Environment, tmp_path: Path) -> None:
        """A scripted model can have conversations in it, and none fails."""
        config = SimulationConfig(environments=(environment.name,), n=self.conversations)
        backend = ScriptedBackend("demo", ScriptedOptions())
        models: dict[Role, RoleModel] = {role: RoleModel(parse_model_name("scripted:demo"), backend) for role in _ROLES}
        made = RunManifest(run_id="conformance", command="simulate", created="now", config=config)
        directory = create_run(tmp_path / "run", made)
        tally = start_tally([environment], config)
        with directory.writer() as writer:
            await Runner(Run(config, models, writer, tally), [environment], writer).simulate()
        with RunReader(directory) as reader:
            ended = list(reader.trajectories())
        assert len(ended) == tally.total
        assert [(each["status"], each["failure"]) for each in ended if each["status"] != "complete"] == []
        assert all(each["turns"] > 0 for each in ended)

    def episodes(self, environment: Environment) -> Iterator[Episode]:
        """Yield conversations of some people of every scenario, with every kind of user and cue."""
        for scenario in environment.scenarios:
            for reference in islice(environment.initial_states((scenario,)), self.states_a_scenario):
                known: list[str | None] = [*environment.spec.populations]
                for population in [reference.population] if reference.population else known or [None]:
                    for cue in _CUES if population else _CUES[-1:]:
                        yield environment.episode(reference, sample=0, population=population, cue=cue, seed=0)
