"""The official Anthropic client, unchanged, on /v1/messages: the same key, the same quota, its own dialect."""

from __future__ import annotations

import datetime
from collections.abc import Callable

import anthropic
import httpx
import pytest
from anthropic import Anthropic

QUESTION = [{"role": "user", "content": "What is the derivative of x^3 + 2x?"}]
WEATHER = {
    "name": "get_weather",
    "description": "the weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string", "enum": ["Paris"]}}, "required": ["city"]},
}


@pytest.fixture(params=["the model's own address", "the gateway's address"])
def address(request: pytest.FixtureRequest, dev) -> str:
    """The client adds /v1/messages by itself."""
    return dev.env["MODEL_ENDPOINT"].removesuffix("/v1") if "own" in request.param else dev.url


@pytest.fixture
def claude(address: str, key: str) -> Anthropic:
    return Anthropic(base_url=address, api_key=key, max_retries=0, timeout=60)


@pytest.fixture
def connect_claude(dev) -> Callable[..., Anthropic]:
    def connect(key: str, max_retries: int = 0) -> Anthropic:
        return Anthropic(base_url=dev.url, api_key=key, max_retries=max_retries, timeout=60)

    return connect


def total(usage: anthropic.types.Usage) -> int:
    """What the dialect tells in four numbers: prompt tokens that were found in a cache are not among the input tokens."""
    prompt = usage.input_tokens + (usage.cache_creation_input_tokens or 0) + (usage.cache_read_input_tokens or 0)
    return prompt + usage.output_tokens


def test_a_message_is_answered(claude, model):
    answer = claude.messages.create(model=model, max_tokens=200, messages=QUESTION, system="You are a tutor.")
    assert answer.type == "message" and answer.role == "assistant"
    assert "".join(block.text for block in answer.content if block.type == "text")
    assert answer.stop_reason in ("end_turn", "max_tokens")
    assert 0 < answer.usage.output_tokens <= 200
    assert total(answer.usage) > answer.usage.output_tokens


def test_a_message_is_streamed(claude, model):
    with claude.messages.stream(model=model, max_tokens=200, messages=QUESTION) as stream:
        pieces = list(stream.text_stream)
        answer = stream.get_final_message()
    assert len(pieces) > 3
    assert "".join(pieces) == "".join(block.text for block in answer.content if block.type == "text")
    assert answer.usage.output_tokens > 0 and answer.stop_reason


def test_raw_events_of_a_stream_come_in_the_dialects_order(claude, model):
    with claude.messages.create(model=model, max_tokens=60, messages=QUESTION, stream=True) as stream:
        kinds = [event.type for event in stream if event.type != "ping"]
    assert kinds[0] == "message_start" and kinds[-2:] == ["message_delta", "message_stop"]
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") >= 1


def test_a_tool_is_used(claude, model):
    answer = claude.messages.create(
        model=model,
        max_tokens=300,
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[WEATHER],
        tool_choice={"type": "tool", "name": "get_weather"},
    )
    [use] = [block for block in answer.content if block.type == "tool_use"]
    assert use.name == "get_weather" and use.input == {"city": "Paris"}
    assert answer.stop_reason == "tool_use"


def test_tokens_are_counted_before_a_call_and_are_what_the_call_uses(claude, model):
    counted = claude.messages.count_tokens(model=model, messages=QUESTION)
    answer = claude.messages.create(model=model, max_tokens=10, messages=QUESTION)
    assert counted.input_tokens == total(answer.usage) - answer.usage.output_tokens > 0


def test_counting_tokens_costs_none(connect_claude, gov, model):
    claude = connect_claude(gov.small_quota("anthropic-count", 10_000))

    def left() -> int:
        raw = claude.messages.with_raw_response.create(model=model, max_tokens=5, messages=QUESTION)
        return int(raw.headers["anthropic-ratelimit-tokens-remaining"])

    first, second = left(), left()
    for _ in range(5):
        claude.messages.count_tokens(model=model, messages=QUESTION)
    assert second - left() == first - second


def test_the_key_is_taken_from_x_api_key_as_well(dev, key, model):
    """What clients of the dialect send that do not speak of bearers."""
    answer = httpx.post(
        f"{dev.url}/v1/messages",
        headers={"x-api-key": key, "anthropic-version": "2023-06-01"},
        json={"model": model, "max_tokens": 20, "messages": QUESTION},
        timeout=60,
        verify=False,
    )
    assert answer.status_code == 200 and answer.json()["type"] == "message"


def test_models_are_listed_and_retrieved_in_the_dialects_form(claude, model):
    listed = list(claude.models.list())
    assert [item.id for item in listed] and all(item.type == "model" and item.display_name for item in listed)
    assert claude.models.list(limit=1).last_id
    for name in (model, f"gpt-oss-model/{model}"):
        found = claude.models.retrieve(name)
        assert found.id == model and found.created_at.year > 2000
    with pytest.raises(anthropic.NotFoundError) as caught:
        claude.models.retrieve("no/such-model")
    assert caught.value.body["error"]["type"] == "not_found_error" and caught.value.request_id


def test_every_answer_has_the_request_id_where_the_client_looks_for_it(claude, connect_claude, model):
    answer = claude.messages.create(model=model, max_tokens=5, messages=QUESTION)
    assert answer._request_id
    assert claude.messages.count_tokens(model=model, messages=QUESTION)._request_id
    with claude.messages.stream(model=model, max_tokens=5, messages=QUESTION) as stream:
        stream.until_done()
        assert stream.request_id
    for wrong in ({"model": "no-such-model"}, {"messages": []}):
        with pytest.raises(anthropic.APIStatusError) as caught:
            claude.messages.create(**{"model": model, "max_tokens": 5, "messages": QUESTION, **wrong})
        assert caught.value.request_id and caught.value.body["request_id"] == caught.value.request_id


def test_a_placeholder_key_does_not_hide_the_token_that_counts(dev, key, model):
    """As Claude Code does with ANTHROPIC_API_KEY and ANTHROPIC_AUTH_TOKEN set at once."""
    for api_key, auth_token in (("placeholder", key), (key, "placeholder")):
        # The client sends one of its own; what is given with a call it sends as it is.
        headers = {"X-Api-Key": api_key, "Authorization": f"Bearer {auth_token}"}
        with Anthropic(base_url=dev.url, api_key=api_key, max_retries=0) as both:
            assert both.messages.create(model=model, max_tokens=5, messages=QUESTION, extra_headers=headers).content


def test_a_message_is_metered_exactly(connect_claude, gov, model):
    claude = connect_claude(gov.small_quota("anthropic-counted", 100_000))
    left, used = [], []
    for _ in range(3):
        raw = claude.messages.with_raw_response.create(
            model=model, max_tokens=30, messages=QUESTION, extra_body={"ignore_eos": True}
        )
        headers, usage = raw.headers, raw.parse().usage
        assert headers["anthropic-ratelimit-tokens-limit"] == "100000"
        datetime.datetime.fromisoformat(headers["anthropic-ratelimit-tokens-reset"])
        left.append(int(headers["anthropic-ratelimit-tokens-remaining"]))
        used.append(total(usage))
    assert [before - after for before, after in zip(left, left[1:])] == used[:-1]


def test_a_streamed_message_is_metered(connect_claude, gov, model):
    claude = connect_claude(gov.small_quota("anthropic-streamed", 100_000))

    def left() -> int:
        raw = claude.messages.with_raw_response.create(model=model, max_tokens=5, messages=QUESTION)
        return int(raw.headers["anthropic-ratelimit-tokens-remaining"])

    first, second = left(), left()
    with claude.messages.stream(model=model, max_tokens=100, messages=QUESTION) as stream:
        usage = stream.get_final_message().usage
    assert second - left() == (first - second) + total(usage)


def test_errors_have_the_dialects_types(connect_claude, key, model):
    with pytest.raises(anthropic.AuthenticationError) as caught:
        connect_claude("not-a-key").messages.create(model=model, max_tokens=5, messages=QUESTION)
    assert caught.value.body["type"] == "error" and caught.value.body["error"]["type"] == "authentication_error"

    unknown = "sk-oai-4Fz8cQ2LmW1xYb7D_" + "7hTq" * 11
    with pytest.raises(anthropic.PermissionDeniedError) as caught:
        connect_claude(unknown).messages.create(model=model, max_tokens=5, messages=QUESTION)
    assert caught.value.body["error"]["type"] == "permission_error"

    # Unknown and forbidden models are refused alike.
    with pytest.raises(anthropic.PermissionDeniedError) as caught:
        connect_claude(key).messages.create(model="no-such-model", max_tokens=5, messages=QUESTION)
    assert caught.value.body["error"]["type"] == "permission_error"

    with pytest.raises(anthropic.BadRequestError):
        connect_claude(key).messages.create(model=model, max_tokens=5, messages=QUESTION, extra_body={"max_tokens": "many"})


def test_a_used_up_quota_is_a_rate_limit_error_with_a_time_to_come_back(connect_claude, gov, model):
    claude = connect_claude(gov.small_quota("anthropic-spent", 400))
    with pytest.raises(anthropic.RateLimitError) as caught:
        for _ in range(40):
            claude.messages.create(model=model, max_tokens=60, messages=QUESTION)
    assert caught.value.body["error"]["type"] == "rate_limit_error"
    assert "anthropic-spent" in caught.value.body["error"]["message"]
    assert 3500 < int(caught.value.response.headers["retry-after"]) <= 3600
    assert caught.value.response.headers["anthropic-ratelimit-tokens-limit"] == "400"


def test_the_clients_own_retry_waits_until_the_window_ends(connect_claude, gov, model):
    key = gov.small_quota("anthropic-window", 400, window="4s")
    with pytest.raises(anthropic.RateLimitError):
        for _ in range(40):
            connect_claude(key).messages.create(model=model, max_tokens=60, messages=QUESTION)
    answer = connect_claude(key, max_retries=2).messages.create(model=model, max_tokens=60, messages=QUESTION)
    assert answer.content
