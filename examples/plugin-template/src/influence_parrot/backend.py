"""A model that repeats what it hears."""

from __future__ import annotations

from influence_cli.api import (
    CallFailedError,
    Capabilities,
    ChoiceRequest,
    Distribution,
    GenerateRequest,
    Generation,
    Usage,
    unit_draw,
)
from influence_parrot.options import ParrotOptions


class ParrotBackend:
    """Every answer is a pure function of model, options and request, which is what ``seeds=True`` promises."""

    capabilities = Capabilities(logprobs=True, seeds=True)

    def __init__(self, model: str, options: ParrotOptions) -> None:
        self._model = model
        self._options = options

    async def generate(self, request: GenerateRequest) -> Generation:
        """Return the last message, some of its words misheard."""
        _refuse(request.adapter)
        seed = 0 if request.sampling.temperature == 0 else request.seed
        heard = request.messages[-1].content.split()[: request.sampling.max_tokens]
        text = " ".join(
            self._model if unit_draw("word", seed, place) < self._options.mishears else word
            for place, word in enumerate(heard)
        )
        return Generation(text=text, usage=Usage(prompt_tokens=len(heard), completion_tokens=len(heard)))

    async def choose(self, request: ChoiceRequest) -> Distribution:
        """Return a probability for each choice that depends on nothing but its text."""
        _refuse(request.adapter)
        weights = [0.1 + unit_draw("choice", choice) for choice in request.choices]
        return Distribution(
            choices=request.choices,
            probabilities=tuple(weight / sum(weights) for weight in weights),
            mass=1.0,
            method="scripted",
            usage=Usage(prompt_tokens=len(request.messages), completion_tokens=1),
        )

    async def aclose(self) -> None:
        """Release nothing: there is nothing to release."""


def _refuse(adapter: str | None) -> None:
    if adapter is not None:
        raise CallFailedError("not_found", f"A parrot has no adapter {adapter!r}.")
