"""The official OpenAI client, unchanged: everything an agent does with a model, answered through the gateway."""

from __future__ import annotations

import asyncio
import json
import struct

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from reading import ABOUT_THE_WEATHER, EXACTLY, QUESTION, TIME, WEATHER, read, read_async


def test_the_variables_of_dev_env_are_all_an_agent_needs(dev):
    client = OpenAI(base_url=dev.env["MODEL_ENDPOINT"], api_key=dev.env["OPENAI_API_KEY"])
    answer = client.chat.completions.create(model=dev.env["MODEL_NAME"], messages=QUESTION, max_tokens=60)
    assert answer.choices[0].message.content


def test_the_models_a_key_may_use_are_listed(client, dev, model):
    listed = {item.id: item for item in client.models.list()}
    assert model in listed
    assert listed[model].object == "model"
    assert listed[model].owned_by == f"gpt-oss-model/{model}"


def test_each_listed_name_of_a_model_retrieves_it(client, dev, model, embedder, gov):
    listed = {item.id: item for item in client.models.list()}
    names = [model, *(listed[model].model_extra or {}).get("aliases", [f"gpt-oss-model/{model}"])]
    assert any("/" in name for name in names)
    for name in names:
        found = client.models.retrieve(name)
        assert (found.id, found.owned_by) == (model, f"gpt-oss-model/{model}")
    with OpenAI(base_url=f"{dev.url}/v1/", api_key=gov.key("embedding"), max_retries=0) as embedding:
        assert embedding.models.retrieve("BAAI/bge-m3").id == embedder, "the served name has a slash"
        with pytest.raises(openai.NotFoundError) as caught:
            embedding.models.retrieve(model)
    assert caught.value.code == "model_not_found", "a model of other subscriptions is unknown"


def test_responses_stand_alone_and_the_client_is_told_why(client, model):
    first = client.responses.create(model=model, input="Hello", max_output_tokens=20)
    for state in ({"previous_response_id": first.id}, {"background": True}, {"conversation": "conv_1"}):
        with pytest.raises(openai.BadRequestError, match="no response is kept here") as caught:
            client.responses.create(model=model, input="Go on", **state)
        assert caught.value.param in state
    with pytest.raises(openai.NotFoundError, match="none is kept here"):
        client.responses.retrieve(first.id)
    with pytest.raises(openai.NotFoundError, match="none is kept here"):
        client.responses.cancel(first.id)
    kept = client.responses.create(model=model, input="Hello", store=True, max_output_tokens=20)
    assert kept.output_text


def test_a_base_url_may_end_in_slashes(dev, key, model):
    for base in (f"{dev.url}/v1/", f"{dev.url}//v1//", dev.env["MODEL_ENDPOINT"] + "/"):
        with OpenAI(base_url=base, api_key=key, max_retries=0) as client:
            assert client.chat.completions.create(model=model, messages=QUESTION, max_tokens=5).choices


def test_a_chat_answer_has_content_and_reasoning_and_usage(client, model):
    answer = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=200)
    message = answer.choices[0].message
    assert message.role == "assistant"
    assert message.content and message.reasoning
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.prompt_tokens > 0
    assert 0 < answer.usage.completion_tokens <= 200
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_several_choices_are_one_answer(client, model):
    answer = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=30, n=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert all(choice.message.content for choice in answer.choices)


def test_a_stream_has_no_usage_unless_it_is_asked_for(client, model):
    with client.chat.completions.create(model=model, messages=QUESTION, max_tokens=80, stream=True) as stream:
        chunks = list(stream)
    assert all(chunk.choices for chunk in chunks), "a chunk without choices is the usage chunk, which nobody asked for"
    assert all(chunk.usage is None for chunk in chunks)
    answer = read(chunks)
    assert answer.pieces > 5 and answer.content and answer.reasoning
    assert len(answer.finish) == 1


def test_a_stream_has_usage_exactly_once_when_it_is_asked_for(client, model):
    asked = {"include_usage": True}
    stream = client.chat.completions.create(
        model=model, messages=QUESTION, max_tokens=40, stream=True, stream_options=asked, extra_body=EXACTLY
    )
    chunks = list(stream)
    answer = read(chunks)
    assert len(answer.usages) == 1
    assert chunks[-1].choices == [] and chunks[-1].usage is answer.usages[0]
    assert answer.usages[0].completion_tokens == 40
    assert answer.finish == ["length"]


def test_the_stream_helper_of_the_client_puts_the_answer_together(client, model):
    # The helper takes an answer that was cut for a failure, so this one is given the room it wants.
    with client.chat.completions.stream(model=model, messages=QUESTION, max_tokens=800) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        answer = stream.get_final_completion()
    assert "".join(deltas) == answer.choices[0].message.content != ""


@pytest.mark.parametrize(
    ("choice", "called"),
    [
        ("required", "get_weather"),
        ({"type": "function", "function": {"name": "get_time"}}, "get_time"),
        ("auto", "get_weather"),
    ],
    ids=["required", "named", "auto"],
)
def test_a_tool_call_is_complete(client, model, choice, called):
    answer = client.chat.completions.create(
        model=model, messages=ABOUT_THE_WEATHER, tools=[WEATHER, TIME], tool_choice=choice, max_tokens=300
    )
    assert answer.choices[0].finish_reason == "tool_calls"
    [call] = answer.choices[0].message.tool_calls
    assert (call.type, call.function.name) == ("function", called) and call.id
    arguments = json.loads(call.function.arguments)
    assert arguments == {"zone": "UTC"} if called == "get_time" else arguments["city"] in ("Paris", "Oslo")


def test_no_tool_is_called_when_the_caller_says_none(client, model):
    answer = client.chat.completions.create(
        model=model, messages=ABOUT_THE_WEATHER, tools=[WEATHER], tool_choice="none", max_tokens=60
    )
    assert not answer.choices[0].message.tool_calls and answer.choices[0].message.content


def test_streamed_tool_call_deltas_make_a_complete_call(client, model):
    stream = client.chat.completions.create(
        model=model, messages=ABOUT_THE_WEATHER, tools=[WEATHER], tool_choice="required", stream=True, max_tokens=300
    )
    answer = read(stream)
    assert answer.finish == ["tool_calls"]
    assert answer.calls[0]["name"] == "get_weather" and answer.calls[0]["id"]
    assert set(answer.arguments()) == {"city", "days"}


def test_an_agent_can_answer_a_tool_call_and_go_on(client, model):
    """The loop of every agent: ask, be asked to call a tool, give its result, be answered."""
    turn = client.chat.completions.create(
        model=model, messages=ABOUT_THE_WEATHER, tools=[WEATHER], tool_choice="required", max_tokens=300
    )
    message = turn.choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "18 degrees and light rain"}
    messages = [*ABOUT_THE_WEATHER, message.model_dump(exclude_none=True), result]
    answer = client.chat.completions.create(model=model, messages=messages, tools=[WEATHER], max_tokens=120)
    assert answer.choices[0].message.content
    assert answer.usage.prompt_tokens > turn.usage.prompt_tokens


def test_a_structured_answer_fits_its_schema(client, model):
    class Derivative(BaseModel):
        expression: str
        degree: int

    answer = client.chat.completions.parse(model=model, messages=QUESTION, response_format=Derivative, max_tokens=300)
    assert isinstance(answer.choices[0].message.parsed, Derivative)


def test_fields_that_only_vllm_knows_pass_through(client, model):
    answer = client.chat.completions.create(
        model=model, messages=QUESTION, max_tokens=50, extra_body={"structured_outputs": {"choice": ["3x^2 + 2"]}}
    )
    assert answer.choices[0].message.content == "3x^2 + 2"


def test_text_completions_answer_one_prompt_and_several_and_stream(client, model):
    one = client.completions.create(model=model, prompt="The derivative of x^3 is", max_tokens=16)
    assert one.choices[0].text and one.usage.total_tokens > 0

    two = client.completions.create(model=model, prompt=["The first", "The second"], max_tokens=8)
    assert [choice.index for choice in two.choices] == [0, 1]

    stream = client.completions.create(model=model, prompt="Streamed", max_tokens=16, stream=True)
    chunks = list(stream)
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices)
    assert all(chunk.choices for chunk in chunks)


def test_responses_answer_and_stream(client, model):
    answer = client.responses.create(model=model, input="What is the derivative of x^3?", max_output_tokens=120)
    assert answer.status in ("completed", "incomplete") and answer.output_text
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens > 0

    with client.responses.create(model=model, input="Stream it.", max_output_tokens=120, stream=True) as stream:
        events = list(stream)
    kinds = [event.type for event in events]
    assert kinds[0] == "response.created" and kinds[-1] in ("response.completed", "response.incomplete")
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text and text == events[-1].response.output_text


def test_embeddings_of_a_model_that_a_user_has_added(dev, gov, embedder, connect):
    client = connect(gov.key("embedding"), f"sdk-models/{embedder}")
    texts = ["the derivative of x^3", "the integral of 2x"]
    # The client asks for base64 by itself and decodes it.
    answer = client.embeddings.create(model=embedder, input=texts)
    assert [item.index for item in answer.data] == [0, 1]
    assert len(answer.data[0].embedding) == len(answer.data[1].embedding) > 100
    assert answer.usage.total_tokens > 0

    plain = client.embeddings.create(model=embedder, input=texts, encoding_format="float")
    assert plain.data[0].embedding == pytest.approx(answer.data[0].embedding, abs=1e-3)

    by_body = OpenAI(base_url=f"{dev.url}/v1", api_key=client.api_key, max_retries=0)
    assert by_body.embeddings.create(model=embedder, input="one text").data[0].embedding


def test_embeddings_as_bytes_are_the_same_numbers(gov, embedder, connect):
    client = connect(gov.key("embedding"), f"sdk-models/{embedder}")
    texts = ["a text", "another one"]
    whole = client.embeddings.create(model=embedder, input=texts, encoding_format="float")
    answers = {}
    for form in ("bytes", "bytes_only"):
        raw = client.embeddings.with_raw_response.create(model=embedder, input=texts, extra_body={"encoding_format": form})
        answers[form] = raw
        assert raw.headers["content-type"] == "application/octet-stream"
    metadata = json.loads(answers["bytes"].headers["metadata"])
    assert metadata["usage"]["prompt_tokens"] == whole.usage.prompt_tokens
    assert "metadata" not in answers["bytes_only"].headers
    assert answers["bytes"].content == answers["bytes_only"].content
    for item, expected in zip(metadata["data"], whole.data, strict=True):
        numbers = answers["bytes"].content[item["start"] : item["end"]]
        assert struct.unpack(f"<{item['shape'][0]}f", numbers) == pytest.approx(expected.embedding, abs=1e-6)


def test_the_async_client_runs_many_streams_at_once(async_client: AsyncOpenAI, model):
    async def one(number: int):
        stream = await async_client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": f"Question {number}"}],
            max_tokens=30,
            stream=True,
            stream_options={"include_usage": True},
            extra_body=EXACTLY,
        )
        return await read_async(stream)

    async def all_of_them():
        async with async_client:
            return await asyncio.gather(*(one(number) for number in range(24)))

    answers = asyncio.run(all_of_them())
    assert [answer.usages[0].completion_tokens for answer in answers] == [30] * 24
    assert all(answer.content and answer.finish == ["length"] for answer in answers)


def test_answers_carry_the_headers_that_clients_read(client, model):
    raw = client.chat.completions.with_raw_response.create(model=model, messages=QUESTION, max_tokens=20)
    assert raw.parse().choices[0].message.content
    headers = raw.headers
    assert headers["x-request-id"]
    assert int(headers["x-ratelimit-limit-tokens"]) == 10_000_000
    assert 0 < int(headers["x-ratelimit-remaining-tokens"]) < 10_000_000
    assert headers["x-ratelimit-reset-tokens"][-1] in "smh"
    assert "q=10000000" in headers["ratelimit-policy"] and "w=3600" in headers["ratelimit-policy"]
    assert "r=" in headers["ratelimit"]

    named = client.chat.completions.with_raw_response.create(
        model=model, messages=QUESTION, max_tokens=20, extra_headers={"X-Request-Id": "story-42"}
    )
    assert named.headers["x-request-id"] == "story-42"


def test_a_streamed_answer_carries_the_same_headers(client, model):
    raw = client.chat.completions.with_raw_response.create(model=model, messages=QUESTION, max_tokens=20, stream=True)
    assert raw.headers["content-type"].startswith("text/event-stream")
    assert raw.headers["x-request-id"] and int(raw.headers["x-ratelimit-remaining-tokens"]) > 0
    assert read(raw.parse()).content
