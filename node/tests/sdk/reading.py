"""Reading streamed answers, and the questions that the stories ask."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

QUESTION = [{"role": "user", "content": "What is the derivative of x^3 + 2x?"}]
ABOUT_THE_WEATHER = [{"role": "user", "content": "What is the weather in Paris?"}]
# Answers of exactly `max_tokens` tokens: a vLLM extension, for the tests that count.
EXACTLY = {"ignore_eos": True}


def tool(name: str, **properties: Any) -> dict[str, Any]:
    """A function that a model may call; every property is required."""
    parameters = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "description": f"{name} of a place", "parameters": parameters}}


WEATHER = tool("get_weather", city={"type": "string", "enum": ["Paris", "Oslo"]}, days={"type": "integer", "minimum": 1, "maximum": 7})
TIME = tool("get_time", zone={"type": "string", "enum": ["UTC"]})


@dataclass
class Streamed:
    """A streamed chat answer, put together again."""

    content: str = ""
    reasoning: str = ""
    finish: list[str] = field(default_factory=list)
    usages: list[Any] = field(default_factory=list)
    pieces: int = 0
    calls: dict[int, dict[str, str]] = field(default_factory=dict)

    def arguments(self, index: int = 0) -> Any:
        return json.loads(self.calls[index]["arguments"])

    def add(self, chunk: Any) -> None:
        if chunk.usage is not None:
            self.usages.append(chunk.usage)
        for choice in chunk.choices:
            self.pieces += 1
            self.content += choice.delta.content or ""
            self.reasoning += getattr(choice.delta, "reasoning", None) or ""
            if choice.finish_reason:
                self.finish.append(choice.finish_reason)
            for call in choice.delta.tool_calls or []:
                known = self.calls.setdefault(call.index, {"id": "", "name": "", "arguments": ""})
                known["id"] += call.id or ""
                known["name"] += call.function.name or ""
                known["arguments"] += call.function.arguments or ""


def read(stream: Iterable[Any]) -> Streamed:
    answer = Streamed()
    for chunk in stream:
        answer.add(chunk)
    return answer


async def read_async(stream: Any) -> Streamed:
    answer = Streamed()
    async for chunk in stream:
        answer.add(chunk)
    return answer
