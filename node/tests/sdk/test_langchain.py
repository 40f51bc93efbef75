"""LangChain's ChatOpenAI, as the tutorial's agent uses it: three variables and nothing else."""

from __future__ import annotations

import asyncio

import openai
import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

QUESTION = "What is the derivative of x^3 + 2x?"


@tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"light rain in {city}"


@pytest.fixture
def chat(base_url: str, key: str, model: str) -> ChatOpenAI:
    return ChatOpenAI(base_url=base_url, api_key=key, model=model, max_retries=0, timeout=60, max_tokens=300)


def test_invoke_answers_with_usage(chat):
    answer = chat.invoke(QUESTION)
    assert answer.content
    usage = answer.usage_metadata
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] > 0
    assert answer.response_metadata["finish_reason"] in ("stop", "length")


def test_stream_comes_in_pieces(chat):
    chunks = list(chat.stream(QUESTION))
    assert len(chunks) > 5
    assert "".join(chunk.content for chunk in chunks)
    assert not any(chunk.usage_metadata for chunk in chunks), "usage was not asked for"


def test_stream_with_usage_has_it_once(chat):
    usages = [chunk.usage_metadata for chunk in chat.stream(QUESTION, stream_usage=True) if chunk.usage_metadata]
    assert len(usages) == 1 and usages[0]["total_tokens"] > 0


def test_a_bound_tool_is_called_and_its_result_is_used(chat):
    bound = chat.bind_tools([get_weather], tool_choice="get_weather")
    question = HumanMessage("What is the weather in Paris?")
    turn = bound.invoke([question])
    [call] = turn.tool_calls
    assert call["name"] == "get_weather" and set(call["args"]) == {"city"} and call["id"]

    result = ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"])
    assert chat.invoke([question, turn, result]).content


def test_a_streamed_tool_call_is_put_together(chat):
    whole = None
    for chunk in chat.bind_tools([get_weather], tool_choice="any").stream("What is the weather in Oslo?"):
        whole = chunk if whole is None else whole + chunk
    [call] = whole.tool_calls
    assert call["name"] == "get_weather" and set(call["args"]) == {"city"}


def test_a_structured_answer_is_the_object_asked_for(chat):
    class Derivative(BaseModel):
        """A derivative."""

        expression: str
        degree: int

    assert isinstance(chat.with_structured_output(Derivative).invoke(QUESTION), Derivative)


def test_batches_run_at_the_same_time(chat):
    answers = asyncio.run(chat.abatch([f"Question {number}" for number in range(8)]))
    assert len(answers) == 8 and all(answer.content for answer in answers)


def test_embed_documents(dev, gov, embedder):
    embeddings = OpenAIEmbeddings(
        base_url=f"{dev.url}/sdk-models/{embedder}/v1",
        api_key=gov.key("embedding"),
        model=embedder,
        # Without this the class sends token ids of another model's tokenizer, as it does to every server but OpenAI's.
        check_embedding_ctx_length=False,
    )
    vectors = embeddings.embed_documents(["one", "another"])
    assert len(vectors) == 2 and len(vectors[0]) == len(embeddings.embed_query("a third")) > 100


def test_a_used_up_quota_is_the_rate_limit_error_that_agents_catch(gov, dev, model):
    chat = ChatOpenAI(
        base_url=dev.env["MODEL_ENDPOINT"],
        api_key=gov.small_quota("langchain-spent", 400),
        model=model,
        max_retries=0,
        max_tokens=60,
    )
    with pytest.raises(openai.RateLimitError) as caught:
        for _ in range(40):
            chat.invoke(QUESTION)
    assert "langchain-spent" in str(caught.value)
