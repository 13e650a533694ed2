"""What tests of several rooms share."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from influence_cli.environments.environment import Environment
from influence_cli.environments.loading import load_environment

# How long an example takes says more about the machine than the code. Drawing has 30 seconds then: no check is left out.
# The same examples in every run, so that a failure is due to the change at hand; `nox -s explore` draws others.
settings.register_profile("ours", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=1_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ours"))

FIXTURES = Path(__file__).parent / "fixtures"
REPOSITORY = Path(__file__).parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-screens", action="store_true", help="Write the screens of tests/viewer anew.")


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Nothing is freed but by reference counts."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def tiny_folder() -> Path:
    return FIXTURES / "environments" / "tiny"


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> Environment:
    return load_environment(tiny_folder)


@pytest.fixture(scope="session")
def therapy() -> Environment:
    return load_environment(REPOSITORY / "environments" / "therapy")
