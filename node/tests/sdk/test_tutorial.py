"""The public Models-as-a-Service tutorial, Parts 3 to 7, as its readers type it; only `oc` reads `kubectl`.

What is not here, and why. Parts 1 and 2 install operators, a database and a GPU model: `tollgate dev` stands for them.
`oc adm groups new` and `oc whoami -t` are commands of `oc` alone: the group is applied as the resource that the command
makes, and the token is the one in the kubeconfig. Part 6 patches a ConfigMap and makes a Secret in the agent's own
cluster, which is not this gateway: what the agent gets from them, three variables, is tried instead.

The gateway is one of its own: the story begins by deleting what `tollgate dev` has set up.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from tollgate import Dev, eventually, running_dev

TENANT = "models-as-a-service"


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """A reader of the tutorial, with kubectl and the variables of dev.env."""
    with running_dev(tmp_path_factory.mktemp("tutorial")) as dev:
        yield dev


def test_part_3_what_the_model_consists_of_can_be_inspected(reader: Dev):
    services = reader.bash("kubectl get llminferenceservice -n gpt-oss-model")
    assert services.splitlines()[0].split() == ["NAME", "URL", "READY", "REASON", "AGE"]
    assert "True" in services
    models = reader.bash("kubectl get maasmodelref -n gpt-oss-model")
    assert "Ready" in models and reader.model in models
    shown = json.loads(reader.bash(f"kubectl get maasmodelref {reader.model} -n gpt-oss-model -o json"))
    assert shown["spec"]["modelRef"]["kind"] == "LLMInferenceService"
    assert shown["status"]["endpoint"].endswith(f"/gpt-oss-model/{reader.model}")


def test_part_4_without_subscription_and_policy_nobody_is_served(reader: Dev):
    """What dev has set up goes, so that the reader builds it by hand."""
    deleted = reader.bash("""
kubectl delete maassubscription calculus-dev coding-agents -n models-as-a-service
kubectl delete maasauthpolicy calculus-dev-access coding-agents-access -n models-as-a-service
kubectl delete group calculus-users coding-agents
    """)
    assert deleted.count("deleted") == 6
    assert reader.bash("kubectl get maassubscriptions -n models-as-a-service -o name") == ""
    assert chat(reader).status_code == 403


def test_part_4_a_group_is_created(reader: Dev):
    reader.bash("""
kubectl apply -f - <<EOF
apiVersion: user.openshift.io/v1
kind: Group
metadata:
  name: calculus-users
users:
- admin
- system:serviceaccount:models-as-a-service:developer
EOF
    """)
    assert "calculus-users" in reader.bash("kubectl get groups")


def test_part_4_the_model_is_found(reader: Dev):
    found = reader.bash("""
MODEL_NAME=$(kubectl get maasmodelref -n gpt-oss-model \\
  -o jsonpath='{.items[0].metadata.name}')
remember MODEL_NAME
echo "${MODEL_NAME}"
    """)
    assert found.strip() == reader.model


def test_part_4_the_subscription_is_applied_and_active(reader: Dev):
    reader.bash("""
cat > maas-subscription.yaml <<EOF
# maas-subscription.yaml
apiVersion: maas.opendatahub.io/v1alpha1
kind: MaaSSubscription
metadata:
  name: calculus-dev
  namespace: models-as-a-service
spec:
  # Priority determines which subscription is used when a user belongs
  # to multiple groups. Higher number = higher priority.
  priority: 0

  # Who owns this subscription -- groups and/or individual users
  owner:
    groups:
      - name: calculus-users
    # users:                    # optional: add individual users directly
    #   - "kube:admin"          # useful when group resolution has issues

  # Which models this subscription grants quota for
  modelRefs:
    - name: ${MODEL_NAME}
      namespace: gpt-oss-model
      tokenRateLimits:
        - limit: 50000    # 50k tokens
          window: 1h      # per hour
EOF
    """)
    assert reader.bash("kubectl apply -f maas-subscription.yaml") == "maassubscription.maas.opendatahub.io/calculus-dev created\n"
    header, row = reader.bash("kubectl get maassubscriptions -n models-as-a-service").splitlines()
    assert header.split() == ["NAME", "PHASE", "PRIORITY", "AGE"]
    assert row.split()[:3] == ["calculus-dev", "Active", "0"]
    # Applied again, nothing changes.
    assert "unchanged" in reader.bash("kubectl apply -f maas-subscription.yaml")


def test_part_5_an_api_key_is_generated(reader: Dev):
    printed = reader.bash("""
API_KEY=$(curl -sk "${MAAS_URL}/maas-api/v1/api-keys" \\
  -H "Authorization: Bearer ${OCP_TOKEN}" \\
  -H "Content-Type: application/json" \\
  -d '{"name": "calculus-agent-key", "subscription": "calculus-dev"}' \\
  | python3 -c "import sys,json; print(json.load(sys.stdin)['key'])")
echo "API key: ${API_KEY}"
remember API_KEY
    """)
    key = printed.removeprefix("API key: ").strip()
    assert key.startswith("sk-oai-")
    reader.secrets.append(key)


def test_part_4_a_subscription_without_a_policy_is_a_403_that_says_so(reader: Dev):
    """Both are required: the tutorial warns, the answer explains."""
    refused = chat(reader)
    assert refused.status_code == 403
    assert "MaaSAuthPolicy" in refused.text and reader.model in refused.text


def test_part_4_the_policy_is_applied_and_active(reader: Dev):
    reader.bash("""
cat > maas-auth-policy.yaml <<EOF
# maas-auth-policy.yaml
apiVersion: maas.opendatahub.io/v1alpha1
kind: MaaSAuthPolicy
metadata:
  name: calculus-dev-access
  namespace: models-as-a-service
spec:
  # Who can access -- groups and/or individual users
  subjects:
    groups:
      - name: calculus-users
    # users:
    #   - "kube:admin"

  # Which model endpoints this policy authorizes
  modelRefs:
    - name: ${MODEL_NAME}
      namespace: gpt-oss-model
EOF
kubectl apply -f maas-auth-policy.yaml
    """)
    header, row = reader.bash("kubectl get maasauthpolicies -n models-as-a-service").splitlines()
    assert header.split() == ["NAME", "PHASE", "AGE"]
    assert row.split()[:2] == ["calculus-dev-access", "Active"]


def test_part_5_inference_answers_with_content_and_reasoning(reader: Dev):
    answer = json.loads(reader.bash(r"""
curl -sk "${MAAS_URL}/gpt-oss-model/${MODEL_NAME}/v1/chat/completions" \
  -H "Authorization: Bearer ${API_KEY}" \
  -H "Content-Type: application/json" \
  -d "{
    \"model\": \"${MODEL_NAME}\",
    \"messages\": [{\"role\": \"user\", \"content\": \"What is the derivative of x^3 + 2x?\"}],
    \"max_tokens\": 200
  }" | python3 -m json.tool
    """))
    message = answer["choices"][0]["message"]
    assert message["content"] and message["reasoning"]


def test_part_6_three_variables_are_all_that_changes_for_the_agent(reader: Dev):
    """The ConfigMap gives MODEL_ENDPOINT and MODEL_NAME, the Secret OPENAI_API_KEY; the agent does what it did before."""
    answer = reader.bash(r"""
MODEL_ENDPOINT="${MAAS_URL}/gpt-oss-model/${MODEL_NAME}/v1"
OPENAI_API_KEY="${API_KEY}"
curl -sk "${MODEL_ENDPOINT}/chat/completions" \
  -H "Authorization: Bearer ${OPENAI_API_KEY}" \
  -H "Content-Type: application/json" \
  -d "{\"model\": \"${MODEL_NAME}\", \"max_tokens\": 60,
    \"messages\": [{\"role\": \"user\", \"content\": \"What is the derivative of x^3?\"}]
  }" | python3 -m json.tool
    """)
    assert json.loads(answer)["choices"][0]["message"]["content"]


def test_part_7_usage_is_in_the_metrics(reader: Dev):
    reader.bash("""
kubectl patch tenants.maas.opendatahub.io default-tenant \\
  -n models-as-a-service --type merge -p '{
    "spec": {
      "telemetry": {
        "enabled": true,
        "metrics": {
          "captureOrganization": true,
          "captureModelUsage": true
        }
      }
    }
  }'
    """)
    labels = {"subscription": "calculus-dev", "limitador_namespace": f"gpt-oss-model/{reader.model}"}
    hits, calls = reader.counted("authorized_hits", **labels), reader.counted("authorized_calls", **labels)
    answer = chat(reader)
    assert answer.status_code == 200
    used = answer.json()["usage"]["total_tokens"]
    # Tokens are charged when the last byte has been sent, which may be a moment after it was read here.
    eventually("the booking", lambda: reader.counted("authorized_hits", **labels) > hits)
    assert reader.counted("authorized_hits", **labels, model=reader.model) - hits == used
    assert reader.counted("authorized_calls", **labels) - calls == 1
    # Boards of the next release read the other spelling.
    assert reader.counted("authorized_hits_total", **labels) == reader.counted("authorized_hits", **labels)
    # Nobody's name is in the metrics until the tenant says so.
    assert not any('user="admin"' in series for series in reader.metrics())


def test_part_7_limited_calls_are_counted(reader: Dev):
    """A patched quota is in force when kubectl returns."""
    limit = {"op": "replace", "path": "/spec/modelRefs/0/tokenRateLimits/0/limit", "value": 1}
    reader.kubectl("patch", "maassubscription", "calculus-dev", "-n", TENANT, "--type", "json", "-p", json.dumps([limit]))
    before = reader.counted("limited_calls", subscription="calculus-dev")
    refused = chat(reader)
    assert refused.status_code == 429 and refused.headers["retry-after"]
    assert reader.counted("limited_calls", subscription="calculus-dev") - before == 1
    reader.bash("kubectl apply -f maas-subscription.yaml")
    assert chat(reader).status_code == 200


def test_a_deleted_policy_is_a_403_and_applying_it_again_helps(reader: Dev):
    reader.bash("kubectl delete -f maas-auth-policy.yaml")
    refused = chat(reader)
    assert refused.status_code == 403 and "MaaSAuthPolicy" in refused.text
    reader.bash("kubectl apply -f maas-auth-policy.yaml")
    assert chat(reader).status_code == 200


def test_kubectl_knows_who_asks_and_makes_tokens_for_service_accounts(reader: Dev):
    assert reader.bash("kubectl config view --raw -o jsonpath='{.users[0].user.token}'") == reader.env["OCP_TOKEN"]
    whoami = json.loads(reader.bash("kubectl auth whoami -o json"))["status"]["userInfo"]
    assert whoami["username"] == "admin" and "system:masters" in whoami["groups"]

    token = reader.bash("kubectl create token developer -n models-as-a-service").strip()
    reader.secrets.append(token)
    made = httpx.post(
        f"{reader.url}/maas-api/v1/api-keys",
        headers={"Authorization": f"Bearer {token}"},
        json={"name": "by-token", "subscription": "calculus-dev"},
        verify=False,
    )
    assert made.status_code == 201 and made.json()["subscription"] == "calculus-dev"
    reader.secrets.append(made.json()["key"])


def test_a_developer_sees_the_models_and_cannot_change_governance(reader: Dev):
    as_developer = ["--token", reader.env["USER_TOKEN"], "--kubeconfig", anonymous_kubeconfig(reader)]
    listed = reader.kubectl(*as_developer, "get", "maasmodelref", "-n", "gpt-oss-model", "-o", "name")
    assert listed == f"maasmodelref.maas.opendatahub.io/{reader.model}\n"
    refused = reader.kubectl(*as_developer, "delete", "maassubscription", "calculus-dev", "-n", TENANT, fails=True)
    assert "orbidden" in refused
    assert "Active" in reader.bash("kubectl get maassubscriptions -n models-as-a-service")


def test_a_manifest_with_mistakes_is_refused_with_all_of_them(reader: Dev):
    limits = [{"limit": 0, "window": "2d"}]
    wrong = {
        "apiVersion": "maas.opendatahub.io/v1alpha1",
        "kind": "MaaSSubscription",
        "metadata": {"name": "wrong", "namespace": TENANT},
        "spec": {
            "owner": {"groups": [{"name": "calculus-users"}]},
            "modelRefs": [{"name": reader.model, "namespace": "gpt-oss-model", "tokenRateLimits": limits}],
        },
    }
    said = reader.kubectl("apply", "-f", "-", stdin=json.dumps(wrong), fails=True)
    assert "tokenRateLimits[0].limit" in said and "tokenRateLimits[0].window" in said and "2d" in said


def anonymous_kubeconfig(reader: Dev) -> str:
    """The kubeconfig without its user: a token given beside one with a client certificate or token would not count."""
    config = json.loads(reader.kubectl("config", "view", "--raw", "-o", "json"))
    config["users"] = [{**user, "user": {}} for user in config["users"]]
    path = reader.home / "anonymous.json"
    path.write_text(json.dumps(config))
    return str(path)


def chat(reader: Dev) -> httpx.Response:
    """One chat completion with the reader's newest key, or dev's if they have none yet."""
    key = reader.bash('printf %s "${API_KEY}"')
    question = [{"role": "user", "content": "What is the derivative of x^3?"}]
    return httpx.post(
        f"{reader.url}/gpt-oss-model/{reader.model}/v1/chat/completions",
        headers={"Authorization": f"Bearer {key}"},
        json={"model": reader.model, "max_tokens": 30, "messages": question},
        timeout=60,
        verify=False,
    )
