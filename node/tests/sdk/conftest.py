"""One gateway for the tests that only look, and what they share: keys, models, clients."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from openai import AsyncOpenAI, OpenAI

from governance import Governance
from tollgate import Dev, Replica, running_dev

EMBEDDER = "text-embedder"
LISTENER = "speech-listener"
FRAGILE = "fragile-model"


@pytest.fixture(scope="session")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """`tollgate dev` as it comes. Tests add resources of their own names; none changes what it found."""
    with running_dev(tmp_path_factory.mktemp("dev")) as dev:
        yield dev


@pytest.fixture(scope="session")
def gov(dev: Dev) -> Governance:
    return Governance(dev)


@pytest.fixture(scope="session")
def model(dev: Dev) -> str:
    return dev.model


@pytest.fixture(scope="session")
def key(dev: Dev, gov: Governance) -> str:
    """A key with tokens enough for every test that does not ask how many are left."""
    gov.subscribe("plenty", f"{gov.model_namespace}/{dev.model}")
    return gov.key("plenty")


@pytest.fixture(scope="session")
def connect(dev: Dev) -> Callable[..., OpenAI]:
    """An official client with this key, at the gateway or at one model's own address; it does not retry unless told to."""

    def connect(key: str, model: str | None = None, max_retries: int = 0) -> OpenAI:
        base = dev.env["MODEL_ENDPOINT"] if model is None else f"{dev.url}/{model}/v1"
        return OpenAI(base_url=base, api_key=key, max_retries=max_retries, timeout=60)

    return connect


@pytest.fixture(params=["the model's own address", "the gateway's address"])
def base_url(request: pytest.FixtureRequest, dev: Dev) -> str:
    """The two ways to name a model: by the path, or only by the body."""
    return dev.env["MODEL_ENDPOINT"] if "own" in request.param else f"{dev.url}/v1"


@pytest.fixture
def client(base_url: str, key: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=base_url, api_key=key, max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
def async_client(base_url: str, key: str) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0, timeout=60)


@pytest.fixture(scope="session")
def embedder(tmp_path_factory: pytest.TempPathFactory, gov: Governance) -> Iterator[str]:
    """A second model, added as a user would: its name. Its replica embeds."""
    replica = Replica(tmp_path_factory.mktemp("embedder"), "--model", "BAAI/bge-m3", "--embeddings")
    gov.publish(EMBEDDER, "BAAI/bge-m3", replica.url)
    gov.open("embedder-access", f"sdk-models/{EMBEDDER}")
    gov.subscribe("embedding", f"sdk-models/{EMBEDDER}")
    yield EMBEDDER
    replica.stop()


@pytest.fixture(scope="session")
def listener(tmp_path_factory: pytest.TempPathFactory, gov: Governance) -> Iterator[str]:
    """A model that takes speech: its name."""
    replica = Replica(tmp_path_factory.mktemp("listener"), "--model", "openai/whisper-large-v3", "--audio")
    gov.publish(LISTENER, "openai/whisper-large-v3", replica.url)
    gov.open("listener-access", f"sdk-models/{LISTENER}")
    gov.subscribe("listening", f"sdk-models/{LISTENER}")
    yield LISTENER
    replica.stop()


@pytest.fixture(scope="session")
def fragile(tmp_path_factory: pytest.TempPathFactory, gov: Governance) -> Iterator[Replica]:
    """The one replica of a model of its own, whose faults disturb nobody else."""
    replica = Replica(tmp_path_factory.mktemp("fragile"), "--model", FRAGILE)
    gov.publish(FRAGILE, FRAGILE, replica.url)
    gov.open("fragile-access", f"sdk-models/{FRAGILE}")
    gov.subscribe("fragile", f"sdk-models/{FRAGILE}")
    yield replica
    replica.stop()
