"""The rooms of the house import only in the directions that `pyproject.toml` allows."""

import subprocess
import sys


def test_every_contract_is_kept(repository):
    # In a process of its own: import-linter switches off the loggers of the process that it runs in.
    check = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", check], cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
