"""Model names are ``backend:model[@adapter]``."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from influence_cli.backends.names import ModelName, parse_model_name
from influence_cli.errors import InfluenceError


@pytest.mark.parametrize(
    ("text", "backend", "model", "adapter"),
    [
        ("openai:gpt-4o-mini", "openai", "gpt-4o-mini", None),
        (
            "transformers:meta-llama/Llama-3.1-8B-Instruct@runs/x/adapters/3",
            "transformers",
            "meta-llama/Llama-3.1-8B-Instruct",
            "runs/x/adapters/3",
        ),
        ("transformers:/models/a.gguf", "transformers", "/models/a.gguf", None),
        ("openai:ft:gpt-4o:org::id", "openai", "ft:gpt-4o:org::id", None),
    ],
)
def test_the_parts_of_a_name(text, backend, model, adapter):
    name = parse_model_name(text)
    assert (name.backend, name.model, name.adapter) == (backend, model, adapter)
    assert str(name) == text
    assert name.base == f"{backend}:{model}"


@pytest.mark.parametrize("text", ["", "gpt-4o", ":x", "openai:", "Open AI:x", "openai:a b"])
def test_what_is_no_name_says_how_one_looks(text):
    with pytest.raises(InfluenceError, match="is not a model name. Write BACKEND:MODEL"):
        parse_model_name(text)


part = st.text(st.characters(exclude_characters="@", exclude_categories=["Z", "C"]), min_size=1)


@given(part, st.none() | part)
def test_names_are_read_as_they_are_written(model, adapter):
    name = ModelName("openai", model, adapter)
    assert parse_model_name(str(name)) == name
