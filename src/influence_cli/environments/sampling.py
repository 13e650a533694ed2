"""Which conversations a run holds, in which order, and with which kind of user.

Invariant: the sequence is a pure function of the environments and the settings, and it is lazy: a run of a million
conversations holds no list of them. Every beginning of it is balanced over scenarios and close to the asked mix of
populations; a whole pass over an environment whose scenarios have 2**k initial states matches dyadic fractions exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from influence_cli.environments.environment import Environment, Episode, StateReference
from influence_cli.errors import InfluenceError, UnknownNameError
from influence_cli.schemas.configs import SimulationConfig
from influence_cli.schemas.records import Cue
from influence_cli.seeding import derive_seed

_FULL_TURN_BITS = 53


def count_episodes(environments: Sequence[Environment], config: SimulationConfig) -> int:
    """Return how many conversations the run holds; InfluenceError if nothing fits the scenarios and split asked for."""
    known = {state.initial_state for each in environments for state in each.initial_states()}
    for name in config.initial_states:
        if name not in known:
            raise UnknownNameError("initial state", name, sorted(known))
    available = 0
    for environment in environments:
        scenarios = _scenarios_of(environment, environments, config)
        if config.scenarios and not scenarios:
            continue
        states = _references_of(environment, scenarios, config)
        if not states and not config.scenarios and not config.initial_states:
            raise InfluenceError(f"{environment.name} has no initial state in the split {config.split!r}.")
        available += len(states)
    if not available:
        raise InfluenceError("No initial state fits these scenarios and this split.", hint="See `influence env show`.")
    return config.n if config.n is not None else available * config.samples


def episodes(environments: Sequence[Environment], config: SimulationConfig, *, iteration: int = 0) -> Iterator[Episode]:
    """Yield the conversations of an iteration: environments by turns, each in the order of :func:`_references`."""
    count = count_episodes(environments, config)
    streams = [
        _episodes_of(
            environment,
            config,
            _scenarios_of(environment, environments, config),
            endless=config.n is not None,
            iteration=iteration,
        )
        for environment in environments
    ]
    return islice(_by_turns(streams), count)


def _scenarios_of(
    environment: Environment, environments: Sequence[Environment], config: SimulationConfig
) -> tuple[str, ...]:
    """Return the scenarios asked for that this environment has; UnknownNameError if no environment has one."""
    for name in config.scenarios:
        if not any(name in each.scenarios for each in environments):
            environment.initial_states([name])
    own = tuple(name for name in config.scenarios if name in environment.scenarios)
    return own or config.scenarios[:0]


def _references_of(
    environment: Environment, scenarios: Sequence[str], config: SimulationConfig
) -> list[StateReference]:
    """Return the initial states that the settings leave."""
    wanted = set(config.initial_states)
    mix = environment.mix(config.populations)
    found = environment.initial_states(scenarios, config.split)
    return [
        each
        for each in found
        if (not wanted or each.initial_state in wanted)
        and (each.population is None or mix.get(each.population, 0.0) > 0.0)
    ]


def _by_turns(streams: Sequence[Iterator[Episode]]) -> Iterator[Episode]:
    waiting = list(streams)
    while waiting:
        for stream in list(waiting):
            episode = next(stream, None)
            if episode is None:
                waiting.remove(stream)
            else:
                yield episode


def _episodes_of(
    environment: Environment, config: SimulationConfig, scenarios: Sequence[str], *, endless: bool, iteration: int
) -> Iterator[Episode]:
    if config.scenarios and not scenarios:
        return
    references = _references_of(environment, scenarios, config)
    if not references:
        return
    mix = environment.mix(config.populations)
    cue: Cue | None = config.cue
    first_sample = 0
    while True:
        for reference, position in _references(environment, references, config.seed):
            for sample in range(first_sample, first_sample + config.samples):
                own = van_der_corput(sample) if config.population_by == "sample" else 0.0
                population = pick_population(mix, position + own)
                yield environment.episode(
                    reference, sample=sample, population=population, cue=cue, seed=config.seed, iteration=iteration
                )
        first_sample += config.samples
        if not endless:
            return


def _references(
    environment: Environment, references: Sequence[StateReference], seed: int
) -> Iterator[tuple[StateReference, float]]:
    """Yield each initial state once, scenarios by turns, with its position on the circle that populations share."""
    by_scenario: dict[str, list[StateReference]] = {}
    for reference in references:
        by_scenario.setdefault(reference.scenario, []).append(reference)
    name = environment.name
    order = sorted(by_scenario, key=lambda scenario: derive_seed("order", seed, name, scenario))
    for scenario in order:
        by_scenario[scenario].sort(key=lambda r: derive_seed("order", seed, name, r.scenario, r.initial_state))
    for row in range(max(map(len, by_scenario.values()))):
        for column, scenario in enumerate(order):
            if row < len(by_scenario[scenario]):
                yield by_scenario[scenario][row], van_der_corput(column) + van_der_corput(row)


def van_der_corput(index: int) -> float:
    """Return the ``index``-th point in [0, 1) of the van der Corput sequence in base 2: the bits of index mirrored.

    Source: J. G. van der Corput, Verteilungsfunktionen I, Proc. Akad. Amsterdam 38 (1935), 813-821; any beginning of the
    sequence is spread evenly.
    """
    return int(f"{index:0{_FULL_TURN_BITS}b}"[::-1], 2) / 2.0**_FULL_TURN_BITS


def pick_population(mix: Mapping[str, float], position: float) -> str | None:
    """Return the population at ``position`` (modulo 1) of the circle that ``mix`` divides; None without one."""
    if not mix:
        return None
    point = position % 1.0
    total = 0.0
    for name, share in mix.items():
        total += share
        if point < total - 1e-12:
            return name
    return [name for name, share in mix.items() if share > 0.0][-1]
