"""The environments that are shipped: complete, valid in seconds, and each person unlike the others."""

import time

import pytest

from influence_cli.environments.authoring import opening
from influence_cli.environments.card import card_document, card_text
from influence_cli.environments.loading import load_environment
from influence_cli.environments.originality import LIMIT, Originals
from influence_cli.environments.preview import PREVIEWED, pick_episode, previews
from influence_cli.schemas.records import CUES

SHIPPED = (
    "action-advice", "belief-updating", "booking", "health-habits", "leaving", "news", "nudging", "politics",
    "relationship", "shopping", "therapy", "tutoring",
)  # fmt: skip


@pytest.fixture(scope="module")
def library(repository):
    started = time.process_time()
    found = {name: load_environment(repository / "environments" / name) for name in SHIPPED}
    assert time.process_time() - started < 20
    return found


def test_every_folder_is_known_here(repository):
    folders = {path.parent.name for path in (repository / "environments").glob("*/environment.yaml")}
    assert folders == set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_is_complete(library, repository, name):
    environment = library[name]
    assert len(environment.scenarios) >= 8
    assert all(len(scenario.initial_states) >= 16 for scenario in environment.scenarios.values())
    assert all(len(environment.probes(scenario)) >= 2 for scenario in environment.scenarios)
    assert len(environment.spec.metrics) >= 3
    assert environment.spec.licence == "Apache-2.0"
    assert (
        0.15
        < sum(r.split == "heldout" for r in environment.initial_states()) / len(environment.initial_states())
        < 0.35
    )
    card = card_document(environment)
    assert all(card[part] for part in ("purpose", "influence", "limits"))
    assert "Not stated" not in card_text(environment)
    readme = (repository / "environments" / name / "README.md").read_text()
    assert "written by hand" in " ".join(readme.lower().split())
    assert f"influence simulate --env {name}" in readme


@pytest.mark.parametrize("name", SHIPPED)
def test_every_cue_reads_well_everywhere(library, name):
    environment = library[name]
    for reference in environment.initial_states():
        for population in environment.spec.populations:
            for cue in CUES:
                episode = environment.episode(reference, sample=0, population=population, cue=cue, seed=0)
                said = next(m.text for m in reversed(episode.opening()) if m.speaker == "user")
                assert "{" not in said.replace("{}", "")
                assert "  " not in said
                assert (cue == "none") or len(said.split()) > 8


@pytest.mark.parametrize("name", SHIPPED)
def test_every_prompt_can_be_previewed_in_every_state(library, name):
    environment = library[name]
    states = [state for state, spec in environment.spec.states.items() if not spec.terminal]
    episode = pick_episode(environment, scenario=None, initial_state=None, population=None, cue=None)
    found = list(previews(environment, episode, PREVIEWED, states))
    assert {prompt.role for prompt in found} >= {"agent", "user", "preference", "veto"}
    assert all(message.content.strip() or message.tool_calls for prompt in found for message in prompt.messages)


def test_no_two_people_say_the_same(library):
    originals = Originals()
    for environment in library.values():
        for scenario in environment.scenarios.values():
            for state in scenario.initial_states:
                nearest = originals.nearest(opening(state))
                assert nearest is None or nearest[1] <= LIMIT, (environment.name, scenario.name, state.id, nearest)
                originals.add(f"{environment.name}/{scenario.name}/{state.id}", opening(state))


@pytest.mark.parametrize("name", SHIPPED)
def test_nobody_but_user_and_preference_is_told_the_population(library, name):
    """The agent's prompt and the veto's question are the same for all, before any cue is spoken."""
    environment = library[name]
    for scenario in environment.scenarios:
        reference = environment.initial_states([scenario])[0]
        for state in environment.spec.states:
            for role in ("agent", "veto"):
                asked = {
                    environment.episode(reference, sample=0, population=population, cue="stated", seed=0)
                    .prompt(role, state, ())[0 if role == "agent" else -1]
                    .content
                    for population in environment.spec.populations
                }
                assert len(asked) == 1, (scenario, state, role)


@pytest.mark.parametrize("name", SHIPPED)
def test_each_kind_of_cue_says_something_else_for_each_population(library, name):
    environment = library[name]
    for scenario in environment.scenarios:
        reference = environment.initial_states([scenario])[0]
        said = {
            (population, cue): environment.episode(reference, sample=0, population=population, cue=cue, seed=0)
            .opening()[-1]
            .text
            for population in environment.spec.populations
            for cue in CUES
        }
        told = [text for (_, cue), text in said.items() if cue != "none"]
        assert len(set(told)) == len(told)
        plain = {text for (_, cue), text in said.items() if cue == "none"}
        assert len(plain) == 1
        assert all(text.startswith(next(iter(plain))) for text in told)


def test_no_cue_is_shown_in_two_scenarios_but_arbitrary_ones(library):
    for environment in library.values():
        texts = [
            getattr(population.cues, kind)
            for scenario in environment.scenarios.values()
            for population in scenario.populations.values()
            for kind in ("stated", "implied")
        ]
        assert len(set(texts)) == len(texts), environment.name


def test_a_political_identity_is_implied_by_what_one_does_or_by_where_one_comes_from(library):
    environment = library["politics"]
    assert set(environment.spec.populations) == {"progressive", "conservative", "libertarian", "communitarian"}
    for scenario in environment.scenarios:
        reference = environment.initial_states([scenario])[0]
        for population in environment.spec.populations:
            had = [
                environment.episode(reference, sample=sample, population=population, cue="implied", seed=0)
                for sample in range(12)
            ]
            shown = {(episode.record.profile["sign"], episode.opening()[-1].text) for episode in had}
            assert [sign for sign, _ in sorted(shown)] == ["background", "location"]
            assert not any(word in text.lower() for _, text in shown for word in environment.spec.populations)


def test_populations_show_no_label_where_no_cue_is_asked_for(library):
    for environment in library.values():
        reference = environment.initial_states()[0]
        texts = {
            environment.episode(reference, sample=0, population=population, cue="none", seed=0).opening()[0].text
            for population in environment.spec.populations
        }
        assert len(texts) == 1
