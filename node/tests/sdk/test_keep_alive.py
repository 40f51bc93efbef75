"""Signs of life in slow streams (`gateway.sse_keep_alive`): no official client stumbles over them."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from anthropic import Anthropic
from openai import OpenAI

from tollgate import Dev, Replica, running_dev

MODEL = "slow-model"
# The first token takes seconds, and each of the next ones most of a second.
SLOW = "0.006"
TOKENS = 3


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """A gateway that sends a sign of life after each second of silence. Nodes that are processes of their own read variables."""
    replica = Replica(tmp_path_factory.mktemp("slow"), "--model", MODEL, "--speed", SLOW)
    arguments = ["--replica", replica.url, "--model", MODEL]
    env = {"TOLLGATE_GATEWAY_SSE_KEEP_ALIVE": "1s"}
    with running_dev(tmp_path_factory.mktemp("kept-alive"), *arguments, nodes=2, env=env) as dev:
        yield dev
    replica.stop()


def raw(dev: Dev, path: str, body: dict) -> str:
    """The stream as it is, byte for byte."""
    headers = {"authorization": f"Bearer {dev.env['API_KEY']}"}
    answer = httpx.post(f"{dev.url}{path}", json=body | {"model": MODEL, "stream": True}, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.text


def test_chat_and_completions_and_responses(slow):
    message = [{"role": "user", "content": "hello"}]
    chat = {"messages": message, "max_tokens": TOKENS, "ignore_eos": True}
    assert raw(slow, "/v1/chat/completions", chat).startswith(": keep-alive\n\n")
    with OpenAI(base_url=f"{slow.url}/v1", api_key=slow.env["API_KEY"], max_retries=0, timeout=60) as client:
        options = {"include_usage": True}
        chunks = list(client.chat.completions.create(model=MODEL, messages=message, max_tokens=TOKENS, stream=True, stream_options=options))
        assert chunks[-1].usage.completion_tokens > 0
        texts = [chunk.choices[0].text for chunk in client.completions.create(model=MODEL, prompt="hello", max_tokens=TOKENS, stream=True)]
        assert "".join(texts)
        events = list(client.responses.create(model=MODEL, input="hello", max_output_tokens=TOKENS, stream=True))
        assert events[0].type == "response.created" and events[-1].type in ("response.completed", "response.incomplete")


def test_messages(slow):
    body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": TOKENS}
    stream = raw(slow, "/v1/messages", body)
    assert 'event: ping\ndata: {"type": "ping"}\n\n' in stream and "keep-alive" not in stream
    with Anthropic(base_url=slow.url, api_key=slow.env["API_KEY"], max_retries=0, timeout=60) as client:
        with client.messages.stream(model=MODEL, **body) as events:
            answer = events.get_final_message()
        assert answer.usage.output_tokens > 0
