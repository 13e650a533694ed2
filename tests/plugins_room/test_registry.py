"""The registry, over plugins registered in this process."""

from types import SimpleNamespace

import pytest

from influence_cli.errors import InfluenceError, UnknownNameError
from influence_cli.plugins.component import Component
from influence_cli.plugins.hookspecs import hookimpl
from influence_cli.plugins.loading import Plugin, load_plugins
from influence_cli.plugins.registry import PluginRegistry
from influence_cli.schemas.frozen import Frozen


def component(name="mine", **changes):
    return Component(**{"name": name, "summary": "A model.", "load": lambda: print, "options": Frozen, **changes})


@pytest.fixture
def make_registry():
    """Make a registry of the built-ins and of plugins given as ``name={hook: function}``."""

    def make(**plugins):
        manager, _ = load_plugins([])
        listed = []
        for name, hooks in plugins.items():
            functions = {hook: hookimpl(function) for hook, function in hooks.items()}
            manager.register(SimpleNamespace(**functions), name=name)
            listed.append(Plugin(name, f"dist-{name}", "1.0"))
        return PluginRegistry(manager, listed)

    return make


def offering(*components):
    return {"influence_backends": lambda: list(components)}


def test_built_ins_belong_to_the_program(make_registry):
    offers = {offer.component.name: offer for offer in make_registry().offers("backend")}
    assert offers["scripted"].distribution == "influence-cli"
    assert offers["scripted"].state == "ok"


def test_a_component_is_found_by_kind_and_name(make_registry):
    mine = component()
    registry = make_registry(a=offering(mine))
    assert registry.component("backend", "mine") is mine
    with pytest.raises(UnknownNameError):
        registry.component("exporter", "mine")


def test_an_unknown_name_is_told_the_nearest(make_registry):
    with pytest.raises(UnknownNameError, match="Unknown backend 'scriptd'. Did you mean 'scripted'?"):
        make_registry().component("backend", "scriptd")


def test_an_unknown_name_is_told_which_plugins_were_skipped(make_registry):
    registry = make_registry(a={"influence_backends": lambda: 1 / 0})
    with pytest.raises(UnknownNameError, match=r"Skipped plugins: a \(influence_backends failed: ZeroDivisionError"):
        registry.component("backend", "scriptd")


def test_a_hook_may_return_nothing(make_registry):
    registry = make_registry(a={"influence_backends": lambda: None})
    assert [offer.component.name for offer in registry.offers("backend")] == ["scripted", "terminal"]
    assert registry.problems == []


def test_a_generator_that_fails_half_way_offers_nothing(make_registry):
    def failing():
        yield component()
        raise OSError("disk")

    registry = make_registry(a={"influence_backends": failing})
    assert [offer.component.name for offer in registry.offers("backend")] == ["scripted", "terminal"]
    assert [problem.name for problem in registry.problems] == ["a"]


def test_a_failing_hook_is_called_once_and_recorded_once(make_registry):
    registry = make_registry(a={"influence_backends": lambda: 1 / 0})
    for _ in range(3):
        registry.offers("backend")
    assert len(registry.problems) == 1


@pytest.mark.parametrize(
    ("offered", "problem"),
    [
        (component(name=""), "without a name"),
        (component(name=7), "without a name"),
        (component(load=None), "load is not callable"),
        (component(options=dict), "options is no pydantic model"),
        (component(requires="torch"), "requires is no tuple of import names"),
        (component(options=None), "options is no pydantic model"),
        ("a string", "offers a str in place of a Component"),
    ],
)
def test_a_malformed_component_is_shown_as_broken(make_registry, offered, problem):
    registry = make_registry(a=offering(offered, component("sound")))
    offers = registry.offers("backend")
    (broken,) = [offer for offer in offers if offer.state == "broken"]
    assert problem in broken.problem
    assert broken.mend == "Upgrade it, or: pip uninstall dist-a"
    assert registry.component("backend", "sound").name == "sound"


def test_a_missing_requirement_makes_a_component_unavailable(make_registry):
    lacking = component(requires=("json", "no_such_library", "json.no_such_part"), extra=None)
    with pytest.raises(InfluenceError, match="no_such_library, json.no_such_part are not installed"):
        make_registry(a=offering(lacking)).component("backend", "mine")


def test_the_extra_mends_a_missing_requirement(make_registry):
    registry = make_registry(a=offering(component(requires=("no_such_library",), extra="mine[all]")))
    with pytest.raises(InfluenceError) as raised:
        registry.component("backend", "mine")
    assert raised.value.hint == "pip install 'mine[all]'"


def test_two_distributions_with_one_component_name_are_both_named(make_registry):
    registry = make_registry(a=offering(component()), b=offering(component()))
    assert [offer.state for offer in registry.offers("backend") if offer.component.name == "mine"] == ["duplicate"] * 2
    with pytest.raises(InfluenceError, match="dist-a and dist-b both offer a backend of this name"):
        registry.component("backend", "mine")


def test_one_distribution_with_one_name_twice_is_named(make_registry):
    registry = make_registry(a=offering(component(), component()))
    with pytest.raises(InfluenceError, match="dist-a offers more than one backend of this name"):
        registry.component("backend", "mine")


def test_a_malformed_component_does_not_spoil_a_sound_one_of_its_name(make_registry):
    registry = make_registry(a=offering(component("scripted", options=dict)))
    assert {offer.state for offer in registry.offers("backend")} == {"ok", "broken"}
    assert registry.component("backend", "scripted").name == "scripted"


def test_a_plugin_cannot_shadow_a_built_in(make_registry):
    registry = make_registry(a=offering(component("scripted")))
    with pytest.raises(InfluenceError, match="dist-a and influence-cli both offer"):
        registry.component("backend", "scripted")


def test_environment_paths_are_paths(make_registry, tmp_path):
    registry = make_registry(
        a={"influence_environment_paths": lambda: [tmp_path, str(tmp_path / "b"), 7]},
        b={"influence_environment_paths": lambda: 1 / 0},
    )
    assert registry.environment_paths() == [tmp_path, tmp_path / "b"]
    problems = {problem.name: problem.problem for problem in registry.problems}
    assert problems["a"] == "influence_environment_paths offers a int in place of a Path"
    assert problems["b"].startswith("influence_environment_paths failed: ZeroDivisionError")


def test_a_command_hook_that_fails_is_passed_over(make_registry):
    def adding(app):
        app.append("command")

    def failing(app):
        raise RuntimeError("no")

    registry = make_registry(a={"influence_commands": failing}, b={"influence_commands": adding})
    assert [(plugin.name, app) for plugin, app in registry.commands(list)] == [("b", ["command"])]
    assert registry.problems[0].problem == "influence_commands failed: RuntimeError: no"


def test_a_keyboard_interrupt_in_a_hook_ends_the_program(make_registry):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_registry(a={"influence_backends": interrupted}).offers("backend")


def test_versions_are_those_of_other_distributions(make_registry):
    registry = make_registry(a=offering(component()))
    assert registry.plugin_versions() == {"dist-a": "1.0"}
