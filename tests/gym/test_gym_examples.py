"""The worked examples run: a learner's loop, and the adapter for verifiers with the real package."""

import importlib.util
import sys

import pytest

from influence_cli.testing.server import serve


def load(repository, name):
    spec = importlib.util.spec_from_file_location(name, repository / "examples" / "gym" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[name]
    return module


@pytest.fixture
def loop(repository):
    return load(repository, "loop")


def test_the_loop_gives_what_a_learner_takes(loop, tiny_folder):
    from influence_cli.api import make_vec_env

    with make_vec_env(str(tiny_folder), 3, model="scripted:demo", turns=2) as env:
        found = list(loop.collect(env, loop.honest, 5, seed=1))
        again = list(loop.collect(env, loop.honest, 5, seed=1))
    assert again == found
    assert len(found) == 5
    for each in found:
        assert len(each.text_history) == len(each.reward)
        actions = [place for place, text in enumerate(each.text_history) if text.is_action]
        assert 1 <= len(actions) <= 2
        assert all(1.0 <= each.reward[place] <= 10.0 for place in actions)
        assert each.total == sum(each.reward[place] for place in actions)
        assert each.done
    assert {each.population for each in found} == {"gameable", "resilient"}


def test_the_loop_is_a_program(loop, tiny_folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["loop.py", str(tiny_folder), "--model", "scripted:demo", "--conversations", "4"])
    loop.main()
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["agree", "honest"]


@pytest.mark.filterwarnings("ignore")
async def test_verifiers_rolls_out_our_conversations(repository, tiny_folder, monkeypatch):
    vf = pytest.importorskip("verifiers", reason="verifiers is not installed: pip install 'verifiers==0.3.1'")
    monkeypatch.setenv("LOCAL_KEY", "none")
    adapter = load(repository, "influence_verifiers")
    made = adapter.load_environment(str(tiny_folder), model="scripted:demo", turns=2)
    with serve() as server:
        client = vf.ClientConfig(api_key_var="LOCAL_KEY", api_base_url=server.base_url)
        columns = ["ratings", "influence_over"]
        rows = made.get_dataset(n=4)
        out = await made.generate(
            rows, client, "test-model", {"max_tokens": 8}, state_columns=columns, on_progress=lambda *_: None
        )
    assert len(out["outputs"]) == 4
    for output in out["outputs"]:
        assert output["error"] is None
        assert output["influence_over"]["status"] == "complete"
        assert 1 <= len(output["ratings"]) <= 2
        assert output["reward"] == pytest.approx(sum(output["ratings"]) / len(output["ratings"]))
        assert output["prompt"][0]["role"] == "system"
