"""Token quotas as the OpenAI client sees them: exact, announced on every answer, and refused with a time to come back."""

from __future__ import annotations

import asyncio
import math
import time

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from reading import EXACTLY, QUESTION


def ask(client: OpenAI, model: str, tokens: int = 50):
    """An answer of exactly so many tokens, with its headers."""
    return client.chat.completions.with_raw_response.create(
        model=model, messages=QUESTION, max_tokens=tokens, extra_body=EXACTLY
    )


def use_up(client: OpenAI, model: str, tokens: int = 50, calls: int = 60) -> openai.RateLimitError:
    """Calls until the gateway refuses; at most so many calls."""
    for _ in range(calls):
        try:
            ask(client, model, tokens)
        except openai.RateLimitError as refusal:
            return refusal
    raise AssertionError(f"{calls} calls of {tokens} tokens were all admitted")


def test_what_remains_falls_by_exactly_what_each_call_used(gov, connect, model):
    client = connect(gov.small_quota("counted", 100_000))
    left, used = [], []
    for tokens in (40, 40, 40, 40, 40):
        raw = ask(client, model, tokens)
        left.append(int(raw.headers["x-ratelimit-remaining-tokens"]))
        used.append(raw.parse().usage.total_tokens)
    # The header is written when a call is admitted, with what is held for it; equal calls hold equally much.
    assert [before - after for before, after in zip(left, left[1:])] == used[:-1]


def test_a_stream_is_metered_like_a_plain_answer(gov, connect, model):
    client = connect(gov.small_quota("streamed", 100_000))
    first = ask(client, model, 40)
    stream = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=40, stream=True, extra_body=EXACTLY)
    assert all(chunk.usage is None for chunk in stream)
    third = ask(client, model, 40)
    total = first.parse().usage.total_tokens
    fallen = int(first.headers["x-ratelimit-remaining-tokens"]) - int(third.headers["x-ratelimit-remaining-tokens"])
    assert fallen == 2 * total, "the stream used as much as the plain answer before it, though it did not say so"


def test_a_used_up_quota_is_a_rate_limit_error_that_says_everything(gov, connect, model):
    client = connect(gov.small_quota("spent", 600))
    refusal = use_up(client, model)
    assert refusal.status_code == 429 and refusal.code == "rate_limit_exceeded"
    for fact in ("spent", "600", "1h"):
        assert fact in str(refusal), f"{fact} is missing in: {refusal}"
    headers = refusal.response.headers
    assert 3500 < int(headers["retry-after"]) <= 3600
    assert 3_500_000 < int(headers["retry-after-ms"]) <= 3_600_000
    assert headers["x-ratelimit-limit-tokens"] == "600"
    assert headers["x-ext-auth-reason"] == "quota_exceeded"
    # Looking costs nothing: a spent quota does not hide the models.
    assert [item.id for item in client.models.list()] == [model]


def test_a_call_that_still_fits_is_admitted_after_a_larger_one_was_not(gov, connect, model):
    # Of a hard limit of prompts a call gets all that it needs, or nothing.
    prompts = {"limit": 1000, "window": "1h", "unit": "input", "enforcement": "hard"}
    gov.subscribe("small-change", f"{gov.model_namespace}/{model}", more=[prompts])
    client = connect(gov.key("small-change"))
    large = [{"role": "user", "content": "word " * 600}]
    client.chat.completions.create(model=model, messages=large, max_tokens=1)
    with pytest.raises(openai.RateLimitError) as refused:
        client.chat.completions.create(model=model, messages=large, max_tokens=1)
    assert "1000" in str(refused.value), refused.value
    assert ask(client, model, tokens=1).parse().usage.completion_tokens == 1


def test_calls_at_the_same_time_use_the_limit_and_less_than_one_call_more(gov, dev, model):
    limit = 1500
    key = gov.small_quota("crowded", limit)

    async def one(client: AsyncOpenAI) -> int:
        try:
            answer = await client.chat.completions.create(
                model=model, messages=QUESTION, max_tokens=60, extra_body=EXACTLY
            )
        except openai.RateLimitError:
            return 0
        return answer.usage.total_tokens

    async def crowd() -> list[int]:
        async with AsyncOpenAI(base_url=dev.env["MODEL_ENDPOINT"], api_key=key, max_retries=0, timeout=60) as client:
            return await asyncio.gather(*(one(client) for _ in range(60)))

    used = asyncio.run(crowd())
    one = max(used)
    assert 0 < sum(used) < limit + one and used.count(0) > 0
    # Those who were refused while others held the tokens find what came back.
    with OpenAI(base_url=dev.env["MODEL_ENDPOINT"], api_key=key, max_retries=0) as late:
        with pytest.raises(openai.RateLimitError):
            for _ in range(60):
                used.append(ask(late, model, 60).parse().usage.total_tokens)
    # Nobody is refused while anything is left, and the last call is finished.
    assert limit <= sum(used) < limit + one


def test_the_clients_own_retry_waits_until_the_window_ends_and_succeeds(gov, connect, model):
    key = gov.small_quota("short-window", 400, window="5s")
    refusal = use_up(connect(key), model, tokens=100)
    seconds = int(refusal.response.headers["retry-after-ms"]) / 1000
    assert 0 < seconds <= 5.5
    assert int(refusal.response.headers["retry-after"]) == math.ceil(seconds)

    begin = time.monotonic()
    answer = ask(connect(key, max_retries=2), model, tokens=100)
    waited = time.monotonic() - begin
    assert answer.parse().usage.completion_tokens == 100
    assert waited < seconds + 3, f"the window ended after {seconds} s, the answer came after {waited} s"


def test_of_two_windows_the_tighter_one_refuses_and_is_named(gov, connect, model):
    name = f"{gov.model_namespace}/{model}"
    gov.subscribe("two-windows", name, limit=500, window="1m", more=[{"limit": 100_000, "window": "24h"}])
    client = connect(gov.key("two-windows"))
    headers = ask(client, model).headers
    assert headers["x-ratelimit-limit-tokens"] == "500"
    assert "w=60" in headers["ratelimit-policy"] and "w=86400" in headers["ratelimit-policy"]
    refusal = use_up(client, model)
    assert "500" in str(refusal) and "1m" in str(refusal)
    assert int(refusal.response.headers["retry-after"]) <= 60


def test_a_limit_below_one_call_admits_one_and_then_refuses(gov, connect, model):
    """Ten tokens a minute, fifteen calls: as the upstream project tries its own limits."""
    client = connect(gov.small_quota("tiny", 10, window="1m"))
    answers = []
    for _ in range(15):
        try:
            answers.append(ask(client, model, 1).parse().usage.total_tokens)
        except openai.RateLimitError as refusal:
            assert "limit" in refusal.response.text
            answers.append(0)
    assert answers[0] > 10 and answers[1:] == [0] * 14


def test_each_user_has_tokens_of_their_own(gov, dev, connect, model):
    developer = connect(gov.small_quota("per-user", 600))
    admin = connect(gov.key("per-user", token=dev.env["OCP_TOKEN"]))
    use_up(developer, model)
    assert ask(admin, model).parse().choices


def test_two_keys_of_one_user_share_the_users_tokens(gov, connect, model):
    first = connect(gov.small_quota("shared", 600))
    use_up(first, model)
    with pytest.raises(openai.RateLimitError):
        ask(connect(gov.key("shared")), model)


def test_embeddings_are_metered_too(gov, connect, embedder):
    client = connect(gov.small_quota("embedded", 5000, model=f"sdk-models/{embedder}"), f"sdk-models/{embedder}")

    def embed():
        return client.embeddings.with_raw_response.create(model=embedder, input="a text to be embedded")

    first, second = embed(), embed()
    used = first.parse().usage.total_tokens
    fallen = int(first.headers["x-ratelimit-remaining-tokens"]) - int(second.headers["x-ratelimit-remaining-tokens"])
    assert fallen == used > 0


def test_a_deleted_subscription_takes_its_keys_out_of_service(gov, connect, model, dev):
    key = gov.small_quota("doomed", 10_000)
    assert ask(connect(key), model)
    gov.delete("maassubscription", "doomed")
    with pytest.raises(openai.PermissionDeniedError, match="doomed"):
        ask(connect(key), model)
    models = httpx.get(f"{dev.url}/v1/models", headers={"Authorization": f"Bearer {key}"}, verify=False)
    assert models.status_code == 403
