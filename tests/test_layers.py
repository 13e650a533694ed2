"""The rooms of the house import only in the directions that `pyproject.toml` allows."""

from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports


def test_every_contract_is_kept(repository, monkeypatch, capsys):
    monkeypatch.chdir(repository)
    status = lint_imports(config_filename=str(repository / "pyproject.toml"), no_cache=True)
    assert status == EXIT_STATUS_SUCCESS, capsys.readouterr().out
