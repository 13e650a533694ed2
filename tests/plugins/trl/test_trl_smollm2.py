"""The embedded model learns from a few rows, and is sampled with what it learnt."""

import pytest

from influence_cli.plugins.registry import make_registry

from .conftest import make_row

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize("algorithm", ["expert-iteration", "kto"])
async def test_smollm2_moves_towards_the_desirable_replies(make_job, algorithm):
    from influence_cli.schemas.messages import ChatMessage
    from influence_cli.schemas.requests import GenerateRequest, Sampling

    said = {True: "Would you like some tea?", False: "I do not know what to say about that at all."}
    rows = [
        make_row(
            n, messages=(*make_row(n).messages[:-1], {"role": "assistant", "content": said[n % 4 > 1]}), learnt=(6,)
        )
        for n in range(16)
    ]
    rows = [row for row in rows if row.desirable or algorithm == "kto"]
    registry = make_registry()
    component = registry.component("algorithm", algorithm)
    trainer = component.load()(component.options(learning_rate=2e-4, batch=4, epochs=2, device="cpu"))
    outcome = trainer.train(make_job(rows, base="transformers:smollm2"), lambda *_: None)
    assert outcome.moved > 0.05
    backend = registry.component("backend", "transformers")
    model = backend.load()("smollm2", backend.options(device="cpu"))
    try:
        prompt = tuple(ChatMessage(role=m.role, content=m.content) for m in rows[0].messages[:-1])
        request = GenerateRequest(role="agent", messages=prompt, sampling=Sampling(temperature=0.0, max_tokens=12))
        plain = await model.generate(request)
        trained = await model.generate(request.model_copy(update={"adapter": outcome.adapter}))
    finally:
        await model.aclose()
    assert trained.text != plain.text
