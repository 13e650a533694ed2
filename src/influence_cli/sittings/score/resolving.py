"""From names to a request: rubrics, scorers, environments, and a model for every role that is asked.

Invariant: nothing is asked or stored before every name, option and model has been resolved; a model that no question goes
to is not loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from influence_cli.backends.names import parse_model_name
from influence_cli.environments.environment import Environment
from influence_cli.errors import InfluenceError, UnknownNameError
from influence_cli.listening import Listener
from influence_cli.plugins.loading import OWN_DISTRIBUTION
from influence_cli.plugins.registry import PluginRegistry
from influence_cli.resolution import find_environments
from influence_cli.schemas.configs import RoleConfig, SimulationConfig
from influence_cli.schemas.messages import Role
from influence_cli.schemas.rubrics import Rubric
from influence_cli.scoring.computed import NamedScorer
from influence_cli.scoring.injection import INJECTION_PROBE
from influence_cli.scoring.judging import Asking
from influence_cli.scoring.plan import FIRST_PERSON, METRICS, THIRD_PERSON, WHOLE_PREFERENCE, Plan
from influence_cli.scoring.rubric_files import meant_by, pick_rubrics, shipped_rubrics, tags_of
from influence_cli.scoring.sitting import ScoreRequest, control_config
from influence_cli.settings import assignment, parse_assignment, resolve_settings
from influence_cli.sharding.gathering import gather_shards
from influence_cli.simulation.models import RoleModel
from influence_cli.simulation.shards import shard_config
from influence_cli.sittings.loading import role_models
from influence_cli.sittings.provenance import refuse_secrets
from influence_cli.sittings.sources import Sources
from influence_cli.store.merge import unmerged
from influence_cli.store.queries import conversation_counts
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import RunDirectory, find_run, open_run
from influence_cli.store.shards import Shard

CORE = "core"
COMPUTED = "computed"
"""What stands for all scorers of the program's own where rubrics are named."""
_CONCURRENCY = 32
_OF_RUN = ("prices", "judges", "concurrency")
"""Settings whose defaults are not those of a new run."""


@dataclass(frozen=True)
class Wanted:
    """What was asked for."""

    names: Sequence[str]
    files: Sequence[Path]
    probes: bool = False
    control: bool = False
    judges: Sequence[str] = ()
    user: str | None = None
    control_agent: str | None = None

    @property
    def anything(self) -> bool:
        """Whether anything was asked for by name."""
        return bool(self.names or self.files or self.probes)


@dataclass
class Resolved:
    """A run, and everything that scoring it needs."""

    directory: RunDirectory
    wanted: Wanted
    config: SimulationConfig
    plan: Plan
    scorers: list[NamedScorer] = field(default_factory=list)
    control: dict[Role, RoleModel] | None = None

    def request(self, asking: Asking, **how: Any) -> ScoreRequest:
        """Return the request of a sitting."""
        return ScoreRequest(
            self.plan,
            asking,
            self.scorers,
            self.config.budget,
            self.config.concurrency,
            control=self.control,
            **how,
        )

    def arguments(self, request: ScoreRequest) -> list[str]:
        """Return what tells another ``influence score`` of the same run what ``request`` and this ask for."""
        asking, wanted = request.asking, self.wanted
        turned = [name for name, asked in (("orders", asking.orders), ("directions", asking.directions)) if asked]
        given = {
            "--with": wanted.names,
            "--rubric": [path.resolve() for path in wanted.files],
            "--judge": wanted.judges,
            "--user": [wanted.user] if wanted.user else [],
            "--method": [asking.method],
            "--votes": [asking.votes],
            "--debias": turned,
            "--limit": [] if request.limit is None else [request.limit],
            "--set": _assignments(self.config),
        }
        arguments = [part for flag, values in given.items() for value in values for part in (flag, str(value))]
        return [*arguments, "--probes"] if wanted.probes else arguments

    def models(self) -> list[RoleModel]:
        """Return every model that is asked."""
        user = [self.plan.user] if self.plan.user else []
        return [*self.plan.judges, *user, *(self.control or {}).values()]


def resolve(
    registry: PluginRegistry,
    run: str,
    wanted: Wanted,
    sources: Sources,
    heard: Listener,
    *,
    gather: bool = True,
) -> Resolved:
    """Return what is to be scored, how and by whom; InfluenceError for whatever the user can mend.

    The models have names and settings until :func:`load_models`. With ``gather`` a run whose complete conversations are
    in its shards alone has them brought together first.
    """
    if wanted.control and not wanted.probes:
        raise InfluenceError("--control compares what probes find.", hint="Add --probes.")
    directory = open_run(find_run(run))
    if gather and not _has_complete(directory):
        gather_shards(directory)
    _refuse_nothing_to_score(directory)
    of_run = directory.manifest.config.model_dump(mode="json", include={"prices", "judges"})
    config = resolve_settings(
        SimulationConfig,
        base={**of_run, "concurrency": _CONCURRENCY},
        files=sources.files,
        assignments=sources.assignments,
        flags=sources.flags,
        flag_names=sources.flag_names,
    )
    refuse_secrets(config)
    plan, scorers = chosen(registry, wanted)
    resolved = Resolved(directory, wanted, config, plan, scorers)
    if plan.metrics or plan.asks_user or plan.third_person or scorers:
        plan.environments = run_environments(registry, directory, heard)
    _find_models(registry, resolved, heard, load=False)
    return resolved


def load_models(registry: PluginRegistry, resolved: Resolved, heard: Listener) -> None:
    """Load every model that is asked; InfluenceError for a key or a model that does not fit."""
    _find_models(registry, resolved, heard, load=True)


def _find_models(registry: PluginRegistry, resolved: Resolved, heard: Listener, *, load: bool) -> None:
    directory, config, plan, wanted = resolved.directory, resolved.config, resolved.plan, resolved.wanted
    if plan.asks_judges:
        named: list[str | None] = [*dict.fromkeys(wanted.judges)] or [None]
        plan.judges = [_judge(registry, config, name, heard, load=load) for name in named]
    if plan.asks_user:
        plan.user = _user(registry, directory, config, wanted.user, heard, load=load)
    if wanted.control:
        assert plan.user is not None
        resolved.control = _control(registry, directory, config, plan.user, wanted.control_agent, heard, load=load)


def _assignments(config: SimulationConfig) -> list[str]:
    """Return ``key=value`` of every setting that is not the default, and of those that a run says first of all."""
    told = config.model_dump(mode="json", exclude_defaults=True) | config.model_dump(mode="json", include=set(_OF_RUN))
    return [assignment(key, value) for key, value in told.items()]


def shared(resolved: Resolved, shard: Shard) -> Resolved:
    """Return what one shard has to score: its part of the run and of the limits."""
    return replace(resolved, directory=resolved.directory.of_shard(shard), config=shard_config(resolved.config, shard))


def _has_complete(directory: RunDirectory) -> bool:
    """Return whether a conversation is complete in the run's own database."""
    with suppress(InfluenceError), RunReader(directory) as reader:
        return conversation_counts(reader)["complete"] > 0
    return False


def _refuse_nothing_to_score(directory: RunDirectory) -> None:
    """Raise InfluenceError where no conversation is complete."""
    with RunReader(directory) as reader:
        counts, state = conversation_counts(reader), reader.state()
    if counts["complete"]:
        return
    there = (f"{counts['running']:,} not finished", f"{counts['failed']:,} failed") if counts["total"] else ("none",)
    command = directory.manifest.command
    if state == "running":
        hint = "It is being made: come again when some are complete."
    elif unmerged(directory):
        hint = f"Its shards hold more: influence runs merge {directory.path}"
    elif command in ("simulate", "train"):
        hint = f"Go on with it: influence {command} --resume {directory.path}"
    else:
        hint = "See `influence runs show`."
    raise InfluenceError(f"{directory.path} has no complete conversation to score: {', '.join(there)}.", hint=hint)


def chosen(registry: PluginRegistry, wanted: Wanted) -> tuple[Plan, list[NamedScorer]]:
    """Return what is asked and computed; with nothing named: core rubrics, the environment's metrics, our own scorers."""
    names = list(wanted.names) if wanted.anything else [CORE, METRICS, COMPUTED]
    offers = {offer.component.name: offer for offer in registry.offers("scorer")}
    known = shipped_rubrics()
    own_rubrics = {rubric.id for path in wanted.files for rubric in pick_rubrics((), [path])}
    special = (METRICS, COMPUTED, THIRD_PERSON, FIRST_PERSON, WHOLE_PREFERENCE, INJECTION_PROBE)
    plan = Plan(probes=wanted.probes)
    asked: list[str] = []
    scorers: dict[str, NamedScorer] = {}
    for name in names:
        plain, _, settings = name.partition(":")
        if name in special:
            plan.metrics |= name == METRICS
            plan.injection |= name == INJECTION_PROBE
            plan.third_person |= name in (THIRD_PERSON, WHOLE_PREFERENCE)
            plan.first_person |= name in (FIRST_PERSON, WHOLE_PREFERENCE)
            if name == COMPUTED:
                mine = [n for n, o in offers.items() if o.distribution == OWN_DISTRIBUTION and o.state == "ok"]
                scorers.update({each: named_scorer(registry, each, "") for each in mine if each not in scorers})
        elif plain in offers:
            scorers[plain] = named_scorer(registry, plain, settings)
        elif meant_by(name, known) or name in own_rubrics or name in tags_of(known.values()):
            asked.append(name)
        else:
            everything = [*known, *own_rubrics, *tags_of(known.values()), *special, *offers]
            raise UnknownNameError("rubric, tag or scorer", name, everything)
    plan.rubrics = rubrics_of(asked, wanted.files)
    return plan, list(scorers.values())


def rubrics_of(names: Sequence[str], files: Sequence[Path]) -> list[Rubric]:
    """Return the rubrics named, and all of ``files``."""
    return pick_rubrics(names, files) if names or files else []


def named_scorer(registry: PluginRegistry, name: str, settings: str) -> NamedScorer:
    """Return the scorer ``name`` with ``key=value`` settings, colons between them."""
    from influence_cli.plugins.options import validate_options

    component = registry.component("scorer", name)
    given = dict(parse_assignment(text, flag=f"--with {name}:") for text in settings.split(":") if text)
    options = validate_options(component, given)
    scorer = component.load()(options)
    identity = str(scorer.version)
    if given:
        identity += "/" + sha256(options.model_dump_json().encode()).hexdigest()[:8]
    return NamedScorer(name, scorer, identity)


def run_environments(registry: PluginRegistry, directory: RunDirectory, heard: Listener) -> dict[str, Environment]:
    """Return the environments of a run that are here; what is missing or has changed is said."""
    found: dict[str, Environment] = {}
    for name in directory.manifest.config.environments:
        try:
            environment = find_environments(registry, [name])[0]
        except InfluenceError as error:
            heard.warn(f"What {name} itself asks is left out: {error}")
            continue
        digest = directory.manifest.environments.get(environment.name)
        if digest is not None and digest != environment.digest:
            heard.warn(f"{environment.name} has changed since the run was made; it is asked as it is now.")
        found[environment.name] = environment
    return found


def _judge(
    registry: PluginRegistry, config: SimulationConfig, name: str | None, heard: Listener, *, load: bool
) -> RoleModel:
    own = config.roles.get("judge", RoleConfig())
    role = own.model_copy(update={"model": name}) if name else own
    asked = config.model_copy(update={"roles": {"judge": role}})
    return role_models(registry, asked, heard, roles=("judge",), load=load)["judge"]


def _of_run(directory: RunDirectory, config: SimulationConfig) -> SimulationConfig:
    """Return the run's settings of models, with this command's prices, options and limits."""
    manifest = directory.manifest.config
    options = {**manifest.default.options, **config.default.options}
    default = manifest.default.model_copy(update={"options": options})
    limits = {name: getattr(config, name) for name in ("prices", "judges", "budget")}
    return manifest.model_copy(update={"default": default, "cache": None, **limits})


def _user(
    registry: PluginRegistry,
    directory: RunDirectory,
    config: SimulationConfig,
    name: str | None,
    heard: Listener,
    *,
    load: bool,
) -> RoleModel:
    settings = _of_run(directory, config)
    known = name or directory.manifest.models.get("user")
    role = settings.roles.get("user", RoleConfig()).model_copy(update={"model": known})
    asked = settings.model_copy(update={"roles": {"user": role}})
    return role_models(registry, asked, heard, roles=("user",), load=load)["user"]


def _control(
    registry: PluginRegistry,
    directory: RunDirectory,
    config: SimulationConfig,
    user: RoleModel,
    agent: str | None,
    heard: Listener,
    *,
    load: bool,
) -> dict[Role, RoleModel]:
    """Return the models of the control conversations: the run's own user and transition, and a neutral agent."""
    control_config(directory.manifest)
    settings = _of_run(directory, config)
    models = directory.manifest.models
    named = agent or parse_model_name(models["agent"]).base
    roles: dict[Role, RoleConfig] = {
        "agent": settings.roles.get("agent", RoleConfig()).model_copy(update={"model": named}),
        "transition": settings.roles.get("transition", RoleConfig()).model_copy(
            update={"model": models.get("transition")}
        ),
    }
    asked = settings.model_copy(update={"roles": {**settings.roles, **roles}})
    return {**role_models(registry, asked, heard, roles=("agent", "transition"), load=load), "user": user}
