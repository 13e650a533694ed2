"""What `docs/plugins.md` and `examples/plugin-template` tell plugin authors is true and whole."""

import os
import re
import subprocess
import sys

import pytest

from influence_cli.plugins import hookspecs
from influence_cli.plugins.component import Component

HOOKS = [name for name in vars(hookspecs) if name.startswith("influence_")]
TEMPLATE = "examples/plugin-template"


@pytest.fixture(scope="module")
def manual(repository):
    return (repository / "docs" / "plugins.md").read_text()


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_documented_and_called(hook, manual, repository):
    assert getattr(hookspecs, hook).__doc__
    assert f"`{hook}(" in manual
    sources = [path for path in (repository / "src").rglob("*.py") if path.name not in ("hookspecs.py", "builtin.py")]
    assert any(hook in path.read_text() for path in sources), f"nobody calls {hook}"


def test_every_field_of_a_component_is_documented(manual):
    for name in Component.__dataclass_fields__:
        assert f"| `{name}` |" in manual


def test_the_worked_example_is_the_template(manual, repository):
    files = [path.read_text().strip() for path in (repository / TEMPLATE).rglob("*.py")]
    blocks = re.findall(r"```python\n(.*?)\n```", manual, re.DOTALL)
    assert len(blocks) == len(files)
    assert sorted(blocks) == sorted(files)


def test_the_template_passes_its_own_tests(repository, tmp_path):
    folder = repository / TEMPLATE
    env = {**os.environ, "PYTHONPATH": str(folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "--rootdir", str(folder)]
    done = subprocess.run([*command, "."], cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_plugins_of_ours_and_examples_import_only_the_public_face(repository):
    folders = ("plugins", TEMPLATE, "tests/fixtures/influence-thirdparty")
    for path in [path for folder in folders for path in (repository / folder).rglob("*.py")]:
        rooms = set(re.findall(r"(?:from|import) influence_cli\.?(\w*)", path.read_text()))
        assert rooms <= {"api", "testing"}, path
