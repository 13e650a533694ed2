"""Whatever is wrong with a plugin stands under its name with a mend, and the rest of the program works."""

import pytest

BACKEND = """
    from influence_cli.api import Component, Frozen, hookimpl

    class Options(Frozen):
        pass

    @hookimpl
    def influence_backends():
        return [Component(name={name!r}, summary="A model.", load=lambda: print, options={options}{more})]
"""


def backend(name: str, options: str = "Options", more: str = "") -> str:
    return BACKEND.format(name=name, options=options, more=more)


@pytest.fixture
def broken(install, site):
    """A folder with one distribution for everything that can be wrong, and two sound ones beside them."""
    install("no-dependency", "import a_library_that_nobody_has")
    install("raises", "raise RuntimeError('it is\\nMonday')")
    install("exits", "import sys; sys.exit(3)")
    install("no-module", None)
    install(
        "misspelt", "from influence_cli.api import hookimpl\n\n@hookimpl\ndef influence_backend():\n    return []\n"
    )
    install(
        "hook-raises", "from influence_cli.api import hookimpl\n\n@hookimpl\ndef influence_backends():\n    1 / 0\n"
    )
    install(
        "hook-exits", "from influence_cli.api import hookimpl\n\n@hookimpl\ndef influence_exporters():\n    exit()\n"
    )
    install(
        "garbage", "from influence_cli.api import hookimpl\n\n@hookimpl\ndef influence_backends():\n    return [42]\n"
    )
    install("number", "from influence_cli.api import hookimpl\n\n@hookimpl\ndef influence_backends():\n    return 42\n")
    install("bad-options", backend("loose", options="dict"))
    install("needy", backend("needy", more=', requires=("a_missing_library",), extra="needy[all]"'))
    install("twin-a", backend("twin"))
    install("twin-b", backend("twin"))
    install("same-a", backend("from-same-a"), entry="same")
    install("same-b", backend("from-same-b"), entry="same")
    install(
        "takes-runs",
        """
        from influence_cli.api import hookimpl

        @hookimpl
        def influence_commands(app):
            @app.command()
            def runs():
                print("mine")
        """,
    )
    install(
        "odd-command",
        """
        from influence_cli.api import hookimpl

        @hookimpl
        def influence_commands(app):
            @app.command()
            def odd(thing: 'NeverImported'):
                print(thing)
        """,
    )
    install(
        "load-raises",
        """
        from influence_cli.api import Component, Frozen, hookimpl

        def load():
            raise OSError("no such library")

        @hookimpl
        def influence_backends():
            return [Component(name="heavy", summary="", load=load, options=Frozen)]
        """,
    )
    install("good", backend("good-one"))
    return site


SKIPPED = {
    "no-dependency": ("ModuleNotFoundError: No module named 'a_library", "pip install a_library_that_nobody_has"),
    "raises": ("RuntimeError: it is Monday", "pip uninstall raises"),
    "exits": ("SystemExit: 3", "pip uninstall exits"),
    "no-module": ("No module named 'no_module'", "pip install no_module"),
    "misspelt": ("influence_backend'", "pip uninstall misspelt"),
    "hook-raises": ("influence_backends failed: ZeroDivisionError: division by zero", "pip uninstall hook-raises"),
    "hook-exits": ("influence_exporters failed: SystemExit", "pip uninstall hook-exits"),
    "number": ("influence_backends failed: TypeError", "pip uninstall number"),
    "same": ("another plugin is called 'same' too", "pip uninstall same-b"),
    "takes-runs": ("its command 'runs' exists already", "pip uninstall takes-runs"),
    "odd-command": (
        "its commands cannot be built: NameError: name 'NeverImported' is not",
        "pip uninstall odd-command",
    ),
}
COMPONENTS = {
    "<int>": ("broken", "offers a int in place of a Component", "pip uninstall garbage"),
    "loose": ("broken", "options is no pydantic model", "pip uninstall bad-options"),
    "needy": ("unavailable", "a_missing_library is not installed", "pip install 'needy[all]'"),
    "twin": ("duplicate", "twin-a and twin-b both offer a backend", "pip uninstall twin-"),
    "heavy": ("broken", "OSError: no such library", "pip uninstall load-raises"),
}


def test_the_doctor_names_everything_that_is_broken_with_its_mend(broken, influence):
    answer = influence("plugins", "doctor", "--json", site=broken)
    assert answer.code == 1
    assert answer.stderr == ""
    problems = {each["name"]: each for each in answer.document["problems"]}
    assert problems.keys() == SKIPPED.keys()
    for name, (problem, mend) in SKIPPED.items():
        assert problem in problems[name]["problem"], name
        assert mend in problems[name]["mend"], name
        assert "\n" not in problems[name]["problem"]
    components = {each["name"]: each for each in answer.document["components"]}
    for name, (state, problem, mend) in COMPONENTS.items():
        assert components[name]["state"] == state
        assert problem in components[name]["problem"]
        assert mend in components[name]["mend"]
    for name in ("good-one", "from-same-a", "scripted", "openai", "jsonl"):
        assert components[name]["state"] == "ok", name


def test_broken_plugins_harm_nobody_else(broken, influence, tiny_folder):
    assert influence("--version", site=broken).stdout.startswith("influence ")
    arguments = ("--env", str(tiny_folder), "-m", "scripted:demo", "--n", "2", "--turns", "1", "--json")
    answer = influence("simulate", *arguments, site=broken)
    assert (answer.code, answer.document["conversations"]["complete"]) == (0, 2), answer.stderr
    assert influence("runs", "list", "--json", site=broken).document["runs"][0]["complete"] == 2


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("needy:x", "The backend 'needy' cannot be used: a_missing_library is not installed. pip install 'needy[all]'"),
        ("twin:x", "twin-a and twin-b both offer a backend of this name"),
        ("no-dependency:x", "Skipped plugins: exits (SystemExit: 3); "),
        ("loose:x", "options is no pydantic model"),
    ],
)
def test_asked_for_by_name_a_broken_plugin_is_fatal(broken, influence, tiny_folder, model, said):
    answer = influence("simulate", "--env", str(tiny_folder), "-m", model, "--n", "1", site=broken)
    assert answer.code == 2
    assert said in answer.stderr
    assert "Traceback" not in answer.stderr
    assert answer.stdout == ""


def test_plugins_can_be_switched_off(broken, influence):
    answer = influence("plugins", "list", "--json", site=broken, INFLUENCE_DISABLE_PLUGINS="openai, good ,raises")
    names = {each["name"] for each in answer.document["components"]}
    assert "good-one" not in names
    assert "openai" not in names
    assert "scripted" in names
    off = {each["name"]: each for each in answer.document["problems"] if each["problem"] == "switched off"}
    assert off.keys() == {"openai", "good", "raises"}
    assert off["good"]["mend"] == "Remove it from INFLUENCE_DISABLE_PLUGINS."


def test_people_are_told_of_skipped_plugins_on_stderr(broken, influence):
    answer = influence("plugins", "list", site=broken)
    assert answer.code == 0
    assert "The plugin raises (raises 1.0) was skipped: RuntimeError: it is Monday. " in answer.stderr
    assert "RuntimeError" not in answer.stdout
    assert "good-one" in answer.stdout
