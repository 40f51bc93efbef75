"""What a user of `tollgate dev` sees at its beginning and its end, and of its cluster of three."""

from __future__ import annotations

import httpx
import openai
import pytest
from openai import OpenAI

from governance import Governance
from reading import EXACTLY, QUESTION, Streamed
from tollgate import Process, running_dev


def test_an_interrupted_gateway_finishes_the_answers_it_has_begun(tmp_path):
    with running_dev(tmp_path) as dev:
        client = OpenAI(base_url=dev.env["MODEL_ENDPOINT"], api_key=dev.env["OPENAI_API_KEY"], max_retries=0, timeout=60)
        stream = client.chat.completions.create(
            model=dev.model,
            messages=QUESTION,
            max_tokens=600,
            stream=True,
            stream_options={"include_usage": True},
            extra_body=EXACTLY,
        )
        answer = Streamed()
        interrupted = False
        for chunk in stream:
            answer.add(chunk)
            if answer.pieces >= 5 and not interrupted:
                interrupted = True
                dev.process.interrupt()
        assert answer.finish == ["length"] and answer.usages[0].completion_tokens == 600
        assert dev.process.wait() == 0


def test_what_was_made_and_used_is_there_after_a_restart(tmp_path):
    with running_dev(tmp_path) as dev:
        key = Governance(dev).small_quota("kept", 600)
        model = dev.model
        with pytest.raises(openai.RateLimitError):
            for _ in range(60):
                ask(dev.env["MODEL_ENDPOINT"], key, model)

    with running_dev(tmp_path) as dev:
        assert dev.model == model
        with pytest.raises(openai.RateLimitError, match="kept"):
            ask(dev.env["MODEL_ENDPOINT"], key, model)
        assert ask(dev.env["MODEL_ENDPOINT"], dev.env["API_KEY"], model) > 0


def test_a_cluster_of_three_processes_keeps_one_limit(tmp_path):
    with running_dev(tmp_path, nodes=3) as dev:
        key = Governance(dev).small_quota("one-of-three", 900)
        nodes = dev.env["NODE_URLS"].replace(",", " ").split()
        assert len(nodes) == len(set(nodes)) == len(dev.node_pids()) == 3
        used, one = 0, 0
        with pytest.raises(openai.RateLimitError):
            for call in range(60):
                one = ask(f"{nodes[call % 3]}/gpt-oss-model/{dev.model}/v1", key, dev.model)
                used += one
        assert 900 <= used < 900 + one, "the limit holds for the three together, and all of it could be used"


def test_a_port_that_is_taken_is_named(dev, tmp_path):
    port = httpx.URL(dev.url).port
    second = Process(["dev", "--data-dir", str(tmp_path / "data"), "--gateway-port", str(port)], tmp_path / "log")
    try:
        assert second.wait(60) == 69
        assert str(port) in second.output()
    finally:
        second.kill()


def ask(endpoint: str, key: str, model: str) -> int:
    """The tokens that one call has used."""
    with OpenAI(base_url=endpoint, api_key=key, max_retries=0, timeout=60) as client:
        answer = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=50, extra_body=EXACTLY)
    return answer.usage.total_tokens
