"""The backend keeps every promise of a backend."""

import pytest
from influence_parrot.backend import ParrotBackend
from influence_parrot.options import ParrotOptions

from influence_cli.testing.backends import BackendConformance


class TestParrot(BackendConformance):
    """Every test of the suite, over a parrot that mishears half of all words."""

    @pytest.fixture
    def backend(self):
        """Return the backend under test."""
        return ParrotBackend("grey", ParrotOptions(mishears=0.5))
