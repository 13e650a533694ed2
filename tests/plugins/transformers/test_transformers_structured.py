"""Answers that follow a JSON schema, however weak the model."""

import json

import pytest
from jsonschema import Draft202012Validator

from influence_cli.errors import CallFailedError
from influence_cli.schemas.messages import ChatMessage
from influence_cli.schemas.requests import GenerateRequest, Sampling
from influence_transformers.backend import TransformersBackend
from influence_transformers.options import TransformersOptions

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 30},
        "age": {"type": "integer", "minimum": 17, "maximum": 60},
        "mood": {"type": "string", "enum": ["calm", "torn"]},
        "alone": {"type": "boolean"},
        "quotes": {"type": "array", "items": {"type": "string", "maxLength": 20}, "minItems": 1, "maxItems": 3},
        "message": {"type": "string", "maxLength": 80},
    },
    "required": ["name", "age", "mood", "alone", "quotes", "message"],
    "additionalProperties": False,
}


def ask(seed=0, schema=SCHEMA, temperature=1.0, text='Invent a person. They say "{"name": 1}" <|im_end|>'):
    return GenerateRequest(
        role="user",
        messages=(ChatMessage(role="user", content=text),),
        sampling=Sampling(temperature=temperature, max_tokens=24),
        seed=seed,
        json_schema=schema,
    )


@pytest.fixture(params=["packed", "plain"])
async def backend(request, splitting):
    made = TransformersBackend(str(splitting), TransformersOptions(engine=request.param, dtype="float32"))
    yield made
    await made.aclose()


@pytest.mark.parametrize("seed", range(4))
async def test_every_answer_fits_its_schema(backend, seed):
    answer = await backend.generate(ask(seed))
    value = json.loads(answer.text)
    Draft202012Validator(SCHEMA).validate(value)
    assert list(value) == list(SCHEMA["properties"])
    assert answer.usage.prompt_tokens > 0


async def test_a_seed_gives_one_answer(backend):
    first, again, other = [(await backend.generate(ask(seed))).text for seed in (1, 1, 2)]
    assert first == again != other


async def test_values_out_of_few_follow_their_probabilities(backend):
    schema = {"type": "object", "properties": {"pick": {"enum": ["a", "b"]}}}
    drawn = [json.loads((await backend.generate(ask(seed, schema))).text)["pick"] for seed in range(40)]
    assert set(drawn) <= {"a", "b"}
    likeliest = {json.loads((await backend.generate(ask(seed, schema, 0.0))).text)["pick"] for seed in range(3)}
    assert len(likeliest) == 1
    assert drawn.count(likeliest.pop()) >= 14


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": {"type": "string"}},
        {"type": "object", "properties": {}},
        {"type": "object", "properties": {"x": {"type": "object", "properties": {"y": {"type": "string"}}}}},
        {"type": "object", "properties": {"x": {"type": "number"}}},
    ],
)
async def test_a_schema_that_cannot_be_held_to_is_refused(backend, schema):
    with pytest.raises(CallFailedError) as caught:
        await backend.generate(ask(schema=schema))
    assert caught.value.kind == "invalid_request"


@pytest.mark.slow
async def test_the_small_real_model_writes_people_for_an_environment(smollm2, tmp_path):
    from influence_cli.backends.names import parse_model_name
    from influence_cli.environments.authoring import Author, open_collection
    from influence_cli.environments.loading import load_environment
    from influence_cli.environments.scaffold import write_scaffold
    from influence_cli.simulation.authoring import AuthoringTally, write_states
    from influence_cli.simulation.models import RoleModel

    environment = load_environment(write_scaffold("mine", tmp_path))
    scenario = environment.scenarios["first-scenario"]
    collection = open_collection(environment, scenario.name, None)
    author = Author(environment, scenario, collection, 0)
    backend = TransformersBackend("smollm2", TransformersOptions())
    model = RoleModel(parse_model_name("transformers:smollm2"), backend)
    await write_states(author, collection, model, count=3, seed=0, concurrency=4, tally=AuthoringTally())
    await backend.aclose()
    assert len(load_environment(tmp_path / "mine").initial_states()) == 5
