"""What the OpenAI client raises: the exception that its users catch, with a message that says what to do."""

from __future__ import annotations

import contextlib

import httpx
import openai
import pytest
from openai import OpenAI

from reading import EXACTLY, QUESTION, read
from tollgate import Replica, eventually

UNKNOWN_KEY = "sk-oai-4Fz8cQ2LmW1xYb7D_" + "7hTq" * 11


def ask(client: OpenAI, model: str, **options):
    return client.chat.completions.create(model=model, messages=QUESTION, max_tokens=10, **options)


def test_a_bearer_that_is_no_key_and_no_token_is_an_authentication_error(connect, model):
    with pytest.raises(openai.AuthenticationError) as caught:
        ask(connect("not-a-key-at-all"), model)
    assert caught.value.status_code == 401
    assert "not-a-key-at-all" not in str(caught.value)


def test_no_credentials_are_an_authentication_error(dev, model):
    answer = httpx.post(f"{dev.env['MODEL_ENDPOINT']}/chat/completions", json={"model": model, "messages": QUESTION}, verify=False)
    assert answer.status_code == 401
    assert "Authorization" in answer.text, "the message says what to send"


def test_a_key_that_nobody_made_is_a_permission_error(connect, model):
    with pytest.raises(openai.PermissionDeniedError, match="unknown"):
        ask(connect(UNKNOWN_KEY), model)


def test_a_revoked_key_stops_working_before_the_revocation_returns(connect, gov, key, model):
    made = gov.make_key("plenty")
    client = connect(made["key"])
    assert ask(client, model).choices

    gov.revoke(made["id"])
    with pytest.raises(openai.PermissionDeniedError, match="revoked"):
        ask(client, model)


def test_a_key_is_revoked_by_its_owner_and_once(dev, gov):
    dev.kubectl("create", "serviceaccount", "stranger", "-n", "models-as-a-service")
    stranger = dev.kubectl("create", "token", "stranger", "-n", "models-as-a-service").strip()
    address = f"{dev.url}/maas-api/v1/api-keys/{gov.make_key('plenty')['id']}"

    def delete(token: str) -> httpx.Response:
        return httpx.delete(address, headers={"Authorization": f"Bearer {token}"}, verify=False)

    assert delete("nobody").status_code == 401
    assert delete(stranger).status_code == 404, "that the key exists is its owner's business"
    assert delete(dev.env["USER_TOKEN"]).json()["status"] == "revoked"
    assert delete(dev.env["USER_TOKEN"]).status_code == 404


def test_a_client_cannot_say_who_it_is(connect, key, model):
    client = connect(key)
    for forged in ("X-MaaS-Username", "X-MaaS-Group"):
        with pytest.raises(openai.PermissionDeniedError, match="(?i)" + forged):
            ask(client, model, extra_headers={forged: "admin"})
    # A key is bound to its subscription; the header that tokens choose theirs with changes nothing.
    assert ask(client, model, extra_headers={"X-MaaS-Subscription": "somebody-elses"}).choices


def test_a_missing_policy_is_a_permission_error_that_says_so(connect, gov, fragile):
    """The most common mistake of the tutorial's readers: a subscription without an access policy."""
    gov.publish("unopened", "fragile-model", fragile.url)
    gov.subscribe("no-policy", "sdk-models/unopened")
    client = connect(gov.key("no-policy"), "sdk-models/unopened")
    with pytest.raises(openai.PermissionDeniedError) as caught:
        ask(client, "unopened")
    assert "MaaSAuthPolicy" in str(caught.value) and "unopened" in str(caught.value)
    assert caught.value.response.headers["x-ext-auth-reason"] == "unauthorized"

    # What the message asks for is what helps.
    gov.open("unopened-access", "sdk-models/unopened")
    assert ask(client, "unopened").choices


def test_a_model_outside_the_subscription_is_a_permission_error_that_names_both(connect, gov, embedder, model):
    with pytest.raises(openai.PermissionDeniedError) as caught:
        ask(connect(gov.key("embedding")), model)
    assert "embedding" in str(caught.value) and model in str(caught.value)


def test_an_unknown_model_is_refused_as_a_forbidden_one_is(dev, connect, key):
    with pytest.raises(openai.PermissionDeniedError, match="no-such-model"):
        ask(connect(key, "gpt-oss-model/no-such-model"), "no-such-model")
    with OpenAI(base_url=f"{dev.url}/v1", api_key=key, max_retries=0) as by_body:
        with pytest.raises(openai.PermissionDeniedError, match="no-such-model"):
            ask(by_body, "no-such-model")


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -3},
        {"max_tokens": 10_000_000},
        {"messages": []},
        {"tools": []},
    ],
    ids=["temperature", "more tokens than the context holds", "no messages", "no tools"],
)
def test_a_request_that_makes_no_sense_is_a_bad_request(connect, key, model, wrong):
    with pytest.raises(openai.BadRequestError) as caught:
        connect(key).chat.completions.create(**{"model": model, "messages": QUESTION, "max_tokens": 10, **wrong})
    assert caught.value.body["message"]


def test_a_body_that_is_not_json_is_a_bad_request(dev, key):
    answer = httpx.post(
        f"{dev.env['MODEL_ENDPOINT']}/chat/completions",
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        content=b'{"model": "gpt-oss',
        verify=False,
    )
    assert answer.status_code == 400 and answer.json()["error"]["message"]


@pytest.mark.parametrize("fault", ["status=500", "status=503", "refuse", "garbage"])
def test_a_replica_that_fails_is_a_server_error_and_works_again_afterwards(connect, gov, fragile: Replica, fault):
    client = connect(gov.key("fragile"), "sdk-models/fragile-model")
    with fragile.fault(fault):
        with pytest.raises(openai.InternalServerError) as caught:
            ask(client, "fragile-model")
    assert caught.value.status_code >= 500 and caught.value.response.headers["x-request-id"]

    def answered():
        with contextlib.suppress(openai.InternalServerError):
            return ask(client, "fragile-model").choices

    assert eventually("an answer after the fault", answered, 15)


@pytest.mark.parametrize("fault", ["engine-error-mid-stream;after=4", "die-mid-stream;after=4"])
def test_a_stream_that_its_replica_cut_never_looks_complete(connect, gov, fragile: Replica, fault):
    client = connect(gov.key("fragile"), "sdk-models/fragile-model")
    eventually("a healthy model", lambda: healthy(client), 15)
    with fragile.fault(fault):
        stream = client.chat.completions.create(
            model="fragile-model", messages=QUESTION, max_tokens=400, stream=True, extra_body=EXACTLY
        )
        with pytest.raises(openai.APIError):
            read(stream)
    eventually("an answer after the fault", lambda: healthy(client), 15)


def healthy(client: OpenAI) -> bool:
    with contextlib.suppress(openai.InternalServerError):
        return bool(ask(client, "fragile-model").choices)
    return False


def test_a_client_that_leaves_frees_its_replica_at_once_and_pays_for_what_it_got(connect, gov, fragile: Replica):
    key = gov.small_quota("leavers", 20_000, model="sdk-models/fragile-model")
    client = connect(key, "sdk-models/fragile-model")
    eventually("a healthy model", lambda: healthy(client), 15)
    before = remaining(client)
    with client.chat.completions.create(
        model="fragile-model", messages=QUESTION, max_tokens=8000, stream=True, extra_body=EXACTLY
    ) as stream:
        for _, _ in zip(range(5), stream):
            pass

    def aborted():
        return [request for request in fragile.stats()["requests"] if request["outcome"] == "aborted"]

    [request, *_] = eventually("the abort at the replica", aborted)
    produced = request["prompt_tokens"] + request["produced_tokens"]
    assert produced < 4000
    charged = before - eventually("the return of what was reserved", lambda: settled(client, before - 4000))
    assert 0 < charged <= produced + 200


def remaining(client: OpenAI) -> int:
    raw = client.chat.completions.with_raw_response.create(model="fragile-model", messages=QUESTION, max_tokens=1)
    return int(raw.headers["x-ratelimit-remaining-tokens"])


def settled(client: OpenAI, more_than: int) -> int:
    left = remaining(client)
    return left if left > more_than else 0


def test_a_model_without_a_replica_is_a_server_error_that_says_when_to_retry(connect, gov, tmp_path):
    replica = Replica(tmp_path, "--model", "short-lived")
    gov.publish("short-lived", "short-lived", replica.url)
    gov.open("short-lived-access", "sdk-models/short-lived")
    gov.subscribe("short-lived", "sdk-models/short-lived")
    client = connect(gov.key("short-lived"), "sdk-models/short-lived")
    assert ask(client, "short-lived").choices

    replica.stop()
    with pytest.raises(openai.InternalServerError):
        ask(client, "short-lived")

    def refused_early():
        with contextlib.suppress(openai.InternalServerError):
            ask(client, "short-lived")
        with pytest.raises(openai.InternalServerError) as caught:
            ask(client, "short-lived")
        return caught.value.response.headers.get("retry-after") and caught.value

    error = eventually("the pool noticing that its replica is gone", refused_early)
    assert error.status_code == 503 and int(error.response.headers["retry-after"]) >= 1
    assert error.response.headers["x-llm-d-request-dropped-reason"] == "rejected-no-endpoints"
