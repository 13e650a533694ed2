"""Settings, the key, the list of models, and the door to the program."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from influence_cli.backends.cache import answer_options
from influence_cli.backends.protocol import ModelCatalog
from influence_cli.errors import InfluenceError
from influence_openai import influence_backends, influence_model_catalogs
from influence_openai.backend import OpenAIBackend
from influence_openai.catalog import OpenAICatalog
from influence_openai.client import _proxy
from influence_openai.options import OpenAIOptions

LOCAL = "http://127.0.0.1:1/v1"
KEY = "sk-secret-0123456789abcdef"


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


def test_every_option_is_described():
    assert all(field.description for field in OpenAIOptions.model_fields.values())


def test_openai_without_a_key_names_the_variable():
    with pytest.raises(InfluenceError, match="OPENAI_API_KEY is not set") as caught:
        OpenAIBackend("gpt-4o-mini", OpenAIOptions())
    assert "--base-url" in str(caught.value)


def test_another_variable_may_hold_the_key(monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    assert OpenAIOptions(api_key_env="MY_KEY").read_key() == KEY


def test_a_server_of_ones_own_needs_no_key():
    assert OpenAIOptions(base_url=LOCAL).read_key() is None


def test_a_key_that_cannot_be_a_header_is_refused_without_being_shown(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a\nb")
    with pytest.raises(InfluenceError, match="OPENAI_API_KEY") as caught:
        OpenAIOptions().read_key()
    assert "sk-a" not in str(caught.value)


def test_the_address_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", LOCAL + "/")
    assert OpenAIOptions().base_url == LOCAL
    assert OpenAIOptions(base_url="http://other/v1").base_url == "http://other/v1"


@pytest.mark.parametrize("wrong", ["localhost:8000", "ftp://x/v1", "http://", "http://me:secret@host/v1"])
def test_what_is_no_address_is_refused(wrong, monkeypatch):
    with pytest.raises(ValidationError):
        OpenAIOptions(base_url=wrong)
    monkeypatch.setenv("OPENAI_BASE_URL", wrong)
    with pytest.raises(ValidationError):
        OpenAIOptions()


def test_only_what_changes_answers_is_part_of_the_cache_key():
    plain = answer_options(OpenAIOptions(base_url=LOCAL))
    assert plain == answer_options(OpenAIOptions(base_url=LOCAL, timeout=1, max_concurrency=2, api_key_env="X"))
    assert plain != answer_options(OpenAIOptions(base_url=LOCAL, extra_body={"top_k": 1}))
    assert plain != answer_options(OpenAIOptions(base_url="http://other/v1"))


def test_loopback_has_no_proxy_and_others_have_that_of_the_environment(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    assert _proxy(LOCAL) is None
    assert _proxy("http://localhost:8000/v1") is None
    assert _proxy("http://gpu.example/v1") == "http://proxy:3128"
    monkeypatch.setenv("no_proxy", "gpu.example")
    assert _proxy("http://gpu.example/v1") is None


def test_the_hooks_offer_the_backend_and_its_models():
    (backend,), (catalog,) = influence_backends(), influence_model_catalogs()
    assert (backend.name, catalog.name) == ("openai", "openai")
    assert backend.load() is OpenAIBackend
    assert catalog.load() is OpenAICatalog
    assert backend.options is catalog.options is OpenAIOptions


def test_the_catalog_lists_what_the_server_has(server):
    server.configure(models=["b", "a"])
    catalog = OpenAICatalog(OpenAIOptions(base_url=server.base_url))
    assert isinstance(catalog, ModelCatalog)
    assert [(m.name, m.state) for m in catalog.models()] == [("openai:a", "served"), ("openai:b", "served")]


def test_a_refused_key_is_told_by_the_catalog(server, monkeypatch):
    server.configure(api_key="right")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(InfluenceError, match="refused the key. Check OPENAI_API_KEY") as caught:
        OpenAICatalog(OpenAIOptions(base_url=server.base_url)).models()
    assert KEY not in str(caught.value)


def test_a_server_that_is_not_there_is_told_by_the_catalog():
    with pytest.raises(InfluenceError, match="Is the server running"):
        OpenAICatalog(OpenAIOptions(base_url="http://127.0.0.1:9/v1", timeout=1)).models()


def test_a_served_model_is_not_fetched():
    with pytest.raises(InfluenceError, match="nothing to fetch"):
        OpenAICatalog(OpenAIOptions(base_url=LOCAL)).pull("openai:x", lambda *_: None)


def test_the_hot_path_loads_no_openai_package_and_start_up_no_pydantic():
    script = (
        "import sys, influence_openai; assert not {'pydantic', 'aiohttp', 'openai'} & set(sys.modules)\n"
        "import influence_openai.backend; assert 'openai' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env={"PYTHONPATH": ":".join(sys.path)}, timeout=60)
