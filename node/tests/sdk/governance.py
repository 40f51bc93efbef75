"""What a platform engineer does: publish a model, grant a quota, open it with a policy, hand out a key."""

from __future__ import annotations

import json
from typing import Any

import httpx

from tollgate import Dev

TENANT = "models-as-a-service"
GROUP = "calculus-users"


class Governance:
    """Applies resources with kubectl and makes keys through maas-api."""

    def __init__(self, dev: Dev) -> None:
        self.dev = dev
        self.model_namespace = "gpt-oss-model"

    def apply(self, *objects: dict[str, Any]) -> str:
        """`kubectl apply -f -` of all objects."""
        return self.dev.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))

    def delete(self, kind: str, name: str) -> None:
        self.dev.kubectl("delete", kind, name, "-n", TENANT)

    def publish(self, name: str, served: str, *replicas: str, namespace: str = "sdk-models") -> None:
        """A model behind these replicas; returns when it is Ready."""
        self.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
            {
                "apiVersion": "serving.kserve.io/v1alpha1",
                "kind": "LLMInferenceService",
                "metadata": {
                    "name": name,
                    "namespace": namespace,
                    "annotations": {"tollgate.dev/replicas": ",".join(replicas)},
                },
                "spec": {"model": {"uri": f"hf://{served}", "name": served}, "replicas": len(replicas)},
            },
            {
                "apiVersion": "maas.opendatahub.io/v1alpha1",
                "kind": "MaaSModelRef",
                "metadata": {"name": name, "namespace": namespace},
                "spec": {"modelRef": {"kind": "LLMInferenceService", "name": name}},
            },
        )
        self.wait_ready(name, namespace)

    def wait_ready(self, name: str, namespace: str = "sdk-models") -> None:
        condition = "--for=jsonpath={.status.phase}=Ready"
        self.dev.kubectl("wait", condition, f"maasmodelref/{name}", "-n", namespace, "--timeout=30s")

    def subscribe(self, name: str, *models: str, limit: int = 10_000_000, window: str = "1h", more: list[dict] | None = None) -> None:
        """A MaaSSubscription of the group on `namespace/name` models, `limit` tokens a window each."""
        limits = [{"limit": limit, "window": window}, *(more or [])]
        self.apply(
            {
                "apiVersion": "maas.opendatahub.io/v1alpha1",
                "kind": "MaaSSubscription",
                "metadata": {"name": name, "namespace": TENANT},
                "spec": {
                    "owner": {"groups": [{"name": GROUP}]},
                    "modelRefs": [{**reference(model), "tokenRateLimits": limits} for model in models],
                },
            }
        )

    def open(self, name: str, *models: str) -> None:
        """A MaaSAuthPolicy that lets the group use `namespace/name` models."""
        self.apply(
            {
                "apiVersion": "maas.opendatahub.io/v1alpha1",
                "kind": "MaaSAuthPolicy",
                "metadata": {"name": name, "namespace": TENANT},
                "spec": {"subjects": {"groups": [{"name": GROUP}]}, "modelRefs": [reference(model) for model in models]},
            }
        )

    def make_key(self, subscription: str, token: str | None = None) -> dict[str, Any]:
        """What maas-api answers when the developer (or the holder of `token`) asks for a key."""
        answer = httpx.post(
            f"{self.dev.url}/maas-api/v1/api-keys",
            headers={"Authorization": f"Bearer {token or self.dev.env['USER_TOKEN']}"},
            json={"name": f"{subscription}-key", "subscription": subscription},
            verify=False,
        )
        assert answer.status_code == 201, answer.text
        self.dev.secrets.append(answer.json()["key"])
        return answer.json()

    def key(self, subscription: str, token: str | None = None) -> str:
        return self.make_key(subscription, token)["key"]

    def revoke(self, key_id: str) -> None:
        """Returns when no node admits the key any more."""
        token = {"Authorization": f"Bearer {self.dev.env['USER_TOKEN']}"}
        answer = httpx.delete(f"{self.dev.url}/maas-api/v1/api-keys/{key_id}", headers=token, verify=False)
        assert answer.status_code == 200, answer.text

    def small_quota(self, name: str, limit: int, window: str = "1h", model: str | None = None) -> str:
        """A key of a new subscription with a limit that tests can reach."""
        self.subscribe(name, model or f"{self.model_namespace}/{self.dev.model}", limit=limit, window=window)
        return self.key(name)


def reference(model: str) -> dict[str, str]:
    namespace, name = model.split("/")
    return {"name": name, "namespace": namespace}
