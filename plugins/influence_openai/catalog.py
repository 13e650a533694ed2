"""The models that a server offers, asked with the ``openai`` package: this is not the hot path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from influence_cli.api import InfluenceError, ModelInfo
from influence_openai.failures import redact
from influence_openai.options import OpenAIOptions

_SECONDS = 20.0


class OpenAICatalog:
    """What ``influence models`` shows of an OpenAI-compatible server."""

    def __init__(self, options: OpenAIOptions) -> None:
        self._options = options

    def models(self) -> Sequence[ModelInfo]:
        """Return the models that the server lists; InfluenceError where it refuses or does not answer."""
        key = self._options.read_key()
        import openai

        try:
            with openai.OpenAI(
                api_key=key or "none",
                base_url=self._options.base_url,
                organization=self._options.organisation,
                project=self._options.project,
                timeout=min(_SECONDS, self._options.timeout),
                max_retries=1,
            ) as client:
                found = sorted(client.models.list(), key=lambda model: model.id)
        except openai.AuthenticationError:
            hint = f"Check {self._options.api_key_env}."
            raise InfluenceError(f"{self._options.base_url} refused the key.", hint=hint) from None
        except openai.OpenAIError as error:
            hint = "Is the server running, and the address right?"
            said = redact(str(error), key)
            raise InfluenceError(f"{self._options.base_url} does not list its models: {said}", hint=hint) from None
        return [ModelInfo(name=f"openai:{model.id}", state="served", summary=model.owned_by or "") for model in found]

    def pull(self, name: str, progress: Callable[[str, float], None]) -> Path:  # noqa: ARG002 - the protocol's shape
        """Raise InfluenceError: a served model is not fetched."""
        raise InfluenceError(f"{name} is served by {self._options.base_url}; there is nothing to fetch.")
