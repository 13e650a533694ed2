"""A key is blotted out wherever it stands, however it is written; words that are no keys stay."""

import json
import string
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from influence_cli import credentials
from influence_cli.credentials import holds_secret, known_secrets, remember_secret, without_secrets

SHAPES = [
    "sk-proj-abcdef0123456789ABCDEF",
    "sk-ant-api03-AAAAbbbbCCCC-dddd_eeee",
    "hf_AbCdEfGhIjKlMnOpQrStUvWx",
    "gsk_AbCdEfGhIjKlMnOpQrStUvWx0123",
    "AIzaSyA0123456789abcdefghijklmnopqrstu",
    "AKIAIOSFODNN7EXAMPLE",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
    "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "nvapi-abcdefghijklmnopqrstuvwx_0123",
]


@pytest.mark.parametrize("key", SHAPES)
def test_keys_of_known_shapes_are_blotted_out_without_being_known(key):
    assert key not in without_secrets(f"it said {key}, and left", {})
    assert holds_secret({"roles": {"agent": {"options": {"suffix": key}}}}, {})


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Authorization: Bearer abcdefgh.ijklmnop-1234", "Authorization: Bearer ***"),
        ("https://host/v1?api_key=hello&n=1", "https://host/v1?api_key=***&n=1"),
        ("https://host/v1?n=1&sig=ab/cd", "https://host/v1?n=1&sig=***"),
        ("http://me:word@host/v1", "http://***@host/v1"),
    ],
)
def test_keys_in_their_usual_places_are_blotted_out(text, kept):
    assert without_secrets(text, {}) == kept


@pytest.mark.parametrize(
    "text",
    [
        "/data/task-abcdefghijklmnopqrstuvwxyz",
        "runs/2026-11-26-simulate-risk-averse-long-name-of-a-run",
        "openai:ft:gpt-4o-mini:org::abcdef0123456789",
        "3f2504e0-4f89-41d3-9a0c-0305e82c3301",
        "the token of my affection",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    ],
)
def test_what_is_no_key_stays(text):
    assert without_secrets(text, {}) == text
    assert not holds_secret({"name": text}, {})


NASTY = st.text(alphabet=string.ascii_letters + string.digits + "$^*()[]{}|\\\"'/+=.~ %&", min_size=8).filter(
    lambda text: text == text.strip() and not text.startswith(("/", "./", "../", "~")) and text[1:3] != ":\\"
)


@given(NASTY, st.sampled_from(["OPENAI_API_KEY", "MY_TOKEN", "db_password", "APIKEY", "CLIENT_SECRET"]))
def test_a_key_of_any_shape_is_known_by_its_variable(key, name):
    environ = {name: key}
    assert key in known_secrets(environ)
    for written in (key, json.dumps({"a": key}), repr([key]), f"http://host/?x={quote(key, safe='')}"):
        blotted = without_secrets(f"<{written}>", environ)
        assert "***" in blotted
        assert key not in blotted.replace("***", "")
    assert holds_secret({"suffix": f"a {key}"} if not key.isalpha() else {"suffix": key}, environ)


def test_paths_and_short_values_are_no_secrets():
    environ = {
        "SSH_KEY": "/home/me/.ssh/id",
        "OPENAI_API_KEY": "EMPTY",
        "KEYBOARD": "qwertyuiop",
        "LS_COLORS": "a" * 20,
    }
    assert known_secrets(environ) <= credentials._read


def test_a_word_that_is_a_key_does_not_eat_longer_words():
    assert (
        without_secrets("training-set retrainings trainings", {"A_KEY": "training"}) == "***-set retrainings trainings"
    )


def test_a_key_that_was_read_is_blotted_out_whatever_its_variable(monkeypatch):
    monkeypatch.setattr(credentials, "_read", set())
    remember_secret("a-quite-ordinary-word")
    assert without_secrets("a-quite-ordinary-word.", {}) == "***."


@pytest.mark.parametrize(
    "name", ["api_key", "apikey", "X-Api-Key", "access_token", "token", "password", "Authorization"]
)
def test_a_setting_whose_name_says_key_is_refused_whatever_it_holds(name):
    assert holds_secret({"default": {"options": {"extra_body": {"headers": [{name: "short"}]}}}}, {})
    assert not holds_secret({"default": {"options": {"extra_body": {name: 8}}}}, {})


@pytest.mark.parametrize("name", ["api_key_env", "tokens", "max_tokens", "token_limit_field", "key", "secretary"])
def test_settings_that_only_sound_like_keys_are_taken(name):
    assert not holds_secret({name: "SOME_VALUE"}, {})


@pytest.mark.parametrize(
    "line",
    [
        "export OPENAI_API_KEY=correct-horse",
        'OPENAI_API_KEY="correct-horse" influence doctor',
        "module load cuda; HF_TOKEN='correct-horse'",
        "--export=ALL,DB_PASSWORD=correct-horse",
    ],
)
def test_a_line_of_a_script_that_sets_a_key_holds_one(line):
    assert holds_secret({"setup": [line]}, {})


@pytest.mark.parametrize(
    "line",
    [
        "export OPENAI_API_KEY=$MY_OWN_API_KEY",
        'export OPENAI_API_KEY="$(cat token.txt)"',
        "OPENAI_API_KEY=EMPTY",
        "SSH_KEY=/home/me/.ssh/id",
        "export KEYBOARD=correct-horse",
        "--export=ALL",
    ],
)
def test_a_line_that_says_where_a_key_is_holds_none(line):
    assert not holds_secret({"setup": [line]}, {})
