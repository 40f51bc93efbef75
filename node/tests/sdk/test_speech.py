"""Speech through the official OpenAI client: written down, streamed, translated."""

from __future__ import annotations

import io
import wave

import openai
import pytest
from openai import OpenAI


def speech(seconds: float) -> tuple[str, bytes, str]:
    """A WAV file of silence as the client takes one: 16 kHz, mono, 16 bits."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16_000)
        sound.writeframes(b"\0\0" * int(16_000 * seconds))
    return ("speech.wav", file.getvalue(), "audio/wav")


@pytest.fixture
def client(dev, gov, listener) -> OpenAI:
    return OpenAI(base_url=f"{dev.url}/v1", api_key=gov.key("listening"), max_retries=0, timeout=60)


def test_speech_is_written_down(client, gov, listener, connect):
    for at in (client, connect(gov.key("listening"), f"sdk-models/{listener}")):
        answer = at.audio.transcriptions.create(model=listener, file=speech(12), language="en", temperature=0.0)
        assert answer.text
        assert (answer.usage.type, answer.usage.seconds) == ("duration", 12)


def test_speech_is_written_down_with_its_times(client, listener):
    answer = client.audio.transcriptions.create(
        model=listener, file=speech(40), response_format="verbose_json", timestamp_granularities=["word", "segment"]
    )
    assert [round(segment.start) for segment in answer.segments] == [0, 30]
    assert answer.text == " ".join(segment.text for segment in answer.segments)


def test_speech_comes_as_a_stream_and_costs_the_same_with_and_without_usage(client, dev, listener):
    def counted() -> float:
        return dev.counted("authorized_hits_total", model=listener)

    def listen(**options) -> tuple[str, list, float]:
        before = counted()
        with client.audio.transcriptions.create(
            model=listener, file=speech(40), stream=True, extra_body=options
        ) as stream:
            chunks = list(stream)
        text = "".join(chunk.choices[0]["delta"]["content"] for chunk in chunks if chunk.choices)
        return text, [chunk.usage for chunk in chunks if getattr(chunk, "usage", None)], counted() - before

    text, told, cost = listen()
    assert text and told == []
    again, told, same_cost = listen(stream_include_usage=True)
    assert (again, len(told), same_cost) == (text, 1, cost)
    assert told[0]["total_tokens"] == cost > 4000


def test_speech_is_translated(client, listener):
    answer = client.audio.translations.create(model=listener, file=speech(3), prompt="Tollgate")
    assert answer.text


def test_what_is_no_speech_is_refused_by_who_knows(client, dev, key, model, listener):
    with pytest.raises(openai.BadRequestError, match="Invalid or unsupported audio file"):
        client.audio.transcriptions.create(model=listener, file=("a.wav", b"no sound"))
    with OpenAI(base_url=f"{dev.url}/v1", api_key=key, max_retries=0) as other:
        with pytest.raises(openai.NotFoundError):
            other.audio.transcriptions.create(model=model, file=speech(1))
