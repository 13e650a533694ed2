"""The backend keeps every promise of a backend."""

import pytest
from influence_cli.testing.backends import BackendConformance

from influence_parrot.backend import ParrotBackend
from influence_parrot.options import ParrotOptions


class TestParrot(BackendConformance):
    @pytest.fixture
    def backend(self):
        return ParrotBackend("grey", ParrotOptions(mishears=0.5))
