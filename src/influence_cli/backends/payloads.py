"""Messages as chat APIs have them."""

from __future__ import annotations

from typing import Any

import orjson

from influence_cli.schemas.messages import ChatMessage


def chat_payload(message: ChatMessage) -> dict[str, Any]:
    """Return a message in OpenAI's form: the arguments of calls are JSON in a string."""
    payload: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        payload["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": orjson.dumps(call.arguments).decode()},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        payload["tool_call_id"] = message.tool_call_id
    return payload
