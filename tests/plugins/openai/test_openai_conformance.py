"""The backend keeps the promises that every backend makes."""

import pytest

from influence_cli.testing.backends import BackendConformance


class TestOpenAIBackend(BackendConformance):
    @pytest.fixture
    def backend(self, make_backend):
        return make_backend(seeds=True)


class TestWithoutLogprobs(BackendConformance):
    @pytest.fixture
    def backend(self, make_backend, server):
        server.configure(logprobs=False)
        return make_backend(seeds=True, logprobs=False)


class TestWithSplitNumbers(BackendConformance):
    @pytest.fixture
    def backend(self, make_backend, server):
        server.configure(split_numbers=True)
        return make_backend(seeds=True)


class TestWithAdapters(BackendConformance):
    @pytest.fixture
    def backend(self, make_backend):
        return make_backend(seeds=False, adapters=True)
