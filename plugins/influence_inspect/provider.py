"""Our backends as a model provider of Inspect: ``--model influence/transformers:smollm2@runs/x/adapters/3``.

With it any of Inspect's tasks can be put to an agent that was trained here.
"""

from __future__ import annotations

from typing import Any, Literal

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessageAssistant,
    ChatMessageTool,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    modelapi,
)
from inspect_ai.model import (
    ChatMessage as InspectMessage,
)
from inspect_ai.tool import ToolCall as InspectToolCall
from inspect_ai.tool import ToolChoice, ToolInfo

from influence_cli.api import (
    ChatMessage,
    GenerateRequest,
    RoleConfig,
    RoleModel,
    Sampling,
    SimulationConfig,
    ToolSchema,
    close_models,
    role_models,
)
from influence_inspect.messages import tool_calls

_MOST_TOKENS = 1024
"""Of a reply for which Inspect names no length."""
_STOPPED: dict[str, Literal["stop", "max_tokens", "tool_calls", "content_filter"]] = {
    "length": "max_tokens",
    "tool_calls": "tool_calls",
    "refused": "content_filter",
}


class InfluenceModel(ModelAPI):
    """One model of ours; the arguments of the model (``-M key=value``) are the backend's options."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 - the signature of every provider of Inspect's
        **options: Any,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        given = {**options, **({"base_url": base_url} if base_url else {})}
        self._config = SimulationConfig(default=RoleConfig(model=model_name, options=given))
        self._model: RoleModel | None = None
        self._asked = 0

    async def generate(
        self,
        input: list[InspectMessage],  # noqa: A002 - as Inspect calls it
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """Return our model's reply."""
        model = self._loaded()
        request = GenerateRequest(
            role="agent",
            messages=tuple(_message(message) for message in input),
            sampling=_sampling(config),
            seed=self._seed(config),
            adapter=model.name.adapter,
            tools=() if tool_choice == "none" else tuple(_tool(each) for each in tools),
        )
        generation = await model.backend.generate(request)
        calls = [InspectToolCall(id=c.id, function=c.name, arguments=dict(c.arguments)) for c in generation.tool_calls]
        message = ChatMessageAssistant(
            content=generation.text, tool_calls=calls or None, model=self.model_name, source="generate"
        )
        usage = generation.usage
        return ModelOutput(
            model=self.model_name,
            choices=[ChatCompletionChoice(message=message, stop_reason=_STOPPED.get(generation.finish_reason, "stop"))],
            usage=ModelUsage(
                input_tokens=usage.prompt_tokens - usage.cached_tokens,
                output_tokens=usage.completion_tokens,
                total_tokens=usage.prompt_tokens + usage.completion_tokens,
                input_tokens_cache_read=usage.cached_tokens or None,
            ),
        )

    async def aclose(self) -> None:
        """Release the model."""
        model, self._model = self._model, None
        if model is not None:
            await close_models({"agent": model})

    def max_connections(self) -> int:
        """Return how many requests are worth having in flight."""
        return self._loaded().backend.capabilities.max_concurrency or self._config.concurrency

    def _loaded(self) -> RoleModel:
        from influence_inspect.cast import registry

        if self._model is None:
            self._model = role_models(registry(), self._config, roles=("agent",))["agent"]
        return self._model

    def _seed(self, config: GenerateConfig) -> int:
        """Return the seed asked for; without one every request has its own."""
        self._asked += 1
        return self._asked if config.seed is None else config.seed


@modelapi(name="influence")
def influence() -> type[ModelAPI]:
    """Return the provider ``influence``."""
    return InfluenceModel


def _message(message: InspectMessage) -> ChatMessage:
    calls = tool_calls(message.tool_calls) if isinstance(message, ChatMessageAssistant) else ()
    call_id = message.tool_call_id if isinstance(message, ChatMessageTool) else None
    return ChatMessage(role=message.role, content=message.text, tool_calls=calls, tool_call_id=call_id)


def _tool(tool: ToolInfo) -> ToolSchema:
    parameters = tool.parameters.model_dump(mode="json", exclude_none=True)
    return ToolSchema(name=tool.name, description=tool.description, parameters=parameters)


def _sampling(config: GenerateConfig) -> Sampling:
    given = {"temperature": config.temperature, "top_p": config.top_p}
    return Sampling(
        max_tokens=config.max_tokens or _MOST_TOKENS,
        stop=tuple(config.stop_seqs or ()),
        **{name: value for name, value in given.items() if value is not None},
    )
