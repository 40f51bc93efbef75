//! Validation, statuses and tables of all kinds. A row of a validation table is a body and what is wrong with it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::ids::Timestamp;
use crate::state::testing::{Log, object};

/// Checks `body ~> mistakes`, one case per entry; no mistakes, no text.
fn check(kind: Kind, name: &str, cases: &[(Value, &str)]) {
    let namespace = if kind.scope() == Scope::Cluster { "" } else { TENANT_NAMESPACE };
    for (body, wanted) in cases {
        let found = match validate(&object(kind, namespace, name, &body.to_string())) {
            Ok(_) => String::new(),
            Err(errors) => errors.iter().map(FieldError::to_string).collect::<Vec<_>>().join("\n"),
        };
        assert_eq!(found, *wanted, "{body}");
    }
}

fn limited(limit: Value, window: Value) -> Value {
    let limits = json!([{ "limit": limit, "window": window }]);
    json!({ "spec": { "modelRefs": [{ "name": "granite", "namespace": "llm", "tokenRateLimits": limits }] } })
}

#[test]
fn subscriptions_are_checked_field_by_field() {
    let limit = "spec.modelRefs[0].tokenRateLimits[0].limit";
    let window = "spec.modelRefs[0].tokenRateLimits[0].window";
    let unit = "is not a window: use 1 to 9999 followed by s, m or h";
    check(
        Kind::Subscription,
        "team",
        &[
            (limited(json!(1), json!("1s")), ""),
            (limited(json!(1_000_000_000), json!("8784h")), ""),
            (limited(json!(0), json!("1h")), &format!("{limit}: is 0: use 1 to 1000000000")),
            (limited(json!(1_000_000_001), json!("1h")), &format!("{limit}: is 1000000001: use 1 to 1000000000")),
            (limited(json!("5"), json!("1h")), &format!("{limit}: must be an integer, not \"5\"")),
            (limited(json!(null), json!("1h")), &format!("{limit}: is required")),
            (limited(json!(5), json!("1d")), &format!("{window}: \"1d\" {unit}")),
            (limited(json!(5), json!("01h")), &format!("{window}: \"01h\" {unit}")),
            (limited(json!(5), json!("10000s")), &format!("{window}: \"10000s\" {unit}")),
            (limited(json!(5), json!("h")), &format!("{window}: \"h\" {unit}")),
            (limited(json!(5), json!("")), &format!("{window}: \"\" {unit}")),
            (limited(json!(5), json!("1µ")), &format!("{window}: \"1µ\" {unit}")),
            (
                limited(json!(5), json!("9999h")),
                &format!("{window}: \"9999h\" is too long: use at most 8784h (366 days)"),
            ),
            (limited(json!(5), json!(60)), &format!("{window}: must be a string, not 60")),
            (
                json!({ "spec": { "modelRefs": [{ "name": "granite", "namespace": "llm",
                    "tokenRateLimits": [{ "limit": 1, "window": "1h", "unit": "euros", "scope": "group", "enforcement": "soft" }] }] } }),
                "spec.modelRefs[0].tokenRateLimits[0].unit: is \"euros\": use total, input, output, requests\n\
                 spec.modelRefs[0].tokenRateLimits[0].scope: is \"group\": use user, key, subscription\n\
                 spec.modelRefs[0].tokenRateLimits[0].enforcement: is \"soft\": use reserve, hard",
            ),
            (json!({}), "spec: is required"),
            (json!([]), "must be an object, not a list"),
            (json!({ "spec": { "modelRefs": [] } }), "spec.modelRefs: must have at least one entry"),
            (
                // Every mistake is told at once.
                json!({ "spec": { "priority": 3_000_000_000_u64, "owner": { "groups": [{}], "users": [1, ""] }, "modelRefs": [{}, 3],
                    "tokenMetadata": { "labels": { "a": 1 } } } }),
                "spec.modelRefs[1]: must be an object, not 3\n\
                 spec.priority: is 3000000000: use -2147483648 to 2147483647\n\
                 spec.owner.groups[0].name: is required\n\
                 spec.owner.users[0]: must be a string, not 1\n\
                 spec.owner.users[1]: must not be empty\n\
                 spec.modelRefs[0].name: is required\n\
                 spec.modelRefs[0].namespace: is required\n\
                 spec.modelRefs[0].tokenRateLimits: must have at least one entry\n\
                 spec.tokenMetadata.labels.a: must be a string, not 1",
            ),
        ],
    );
}

#[test]
fn concurrency_and_budgets_are_checked_field_by_field() {
    let with = |more: Value| {
        let mut body = limited(json!(5), json!("1h"));
        body["spec"]["modelRefs"][0].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let rate = json!({ "perToken": "0.000002" });
    let budget = "spec.modelRefs[0].budget";
    let price = format!(
        "{budget}: needs a price above zero: set billingRate.perToken, or perInputToken and perOutputToken, to a decimal number like \"0.000002\""
    );
    let amount = "must be an amount like \"12.50\", above zero and at most 10000000.00";
    check(
        Kind::Subscription,
        "team",
        &[
            (with(json!({ "concurrency": { "user": 8, "key": 4, "subscription": 1_000_000 } })), ""),
            (with(json!({ "billingRate": { "perToken": "cheap" } })), ""),
            (with(json!({ "billingRate": rate, "budget": { "limit": "500.00" } })), ""),
            (
                with(
                    json!({ "billingRate": rate, "budget": { "limit": 500, "scope": "user", "enforcement": "hard", "alerts": [50] } }),
                ),
                "",
            ),
            (
                with(
                    json!({ "billingRate": { "perInputToken": "0.1", "perOutputToken": "0" }, "budget": { "limit": 0.5 } }),
                ),
                "",
            ),
            (
                with(json!({ "concurrency": { "user": 0, "subscription": "many" } })),
                "spec.modelRefs[0].concurrency.user: is 0: use 1 to 1000000\n\
                 spec.modelRefs[0].concurrency.subscription: must be an integer, not \"many\"",
            ),
            (with(json!({ "budget": { "limit": "5" } })), &price),
            (with(json!({ "billingRate": { "perToken": "cheap" }, "budget": { "limit": "5" } })), &price),
            (with(json!({ "billingRate": { "perToken": "0" }, "budget": { "limit": "5" } })), &price),
            (with(json!({ "billingRate": { "perInputToken": "1" }, "budget": { "limit": "5" } })), &price),
            (with(json!({ "billingRate": rate, "budget": {} })), &format!("{budget}.limit: is required")),
            (
                with(json!({ "billingRate": rate, "budget": { "limit": "0" } })),
                &format!("{budget}.limit: {amount}, not \"0\""),
            ),
            (
                with(json!({ "billingRate": rate, "budget": { "limit": -3, "scope": "team", "alerts": [0, 101] } })),
                &format!(
                    "{budget}.limit: {amount}, not -3\n\
                     {budget}.scope: is \"team\": use user, key, subscription\n\
                     {budget}.alerts[0]: must be a percentage, 1 to 100, not 0\n\
                     {budget}.alerts[1]: must be a percentage, 1 to 100, not 101"
                ),
            ),
        ],
    );
}

#[test]
fn of_two_limits_of_one_kind_the_smaller_holds() {
    let limits = json!([
        { "limit": 7, "window": "60s" },
        { "limit": 5, "window": "1m" },
        { "limit": 90, "window": "1h" },
        { "limit": 3, "window": "1h", "unit": "requests", "scope": "key" },
    ]);
    let usual = (Unit::Total, LimitScope::User);
    let model = |name| json!({ "name": name, "namespace": "llm", "tokenRateLimits": limits });
    let body = json!({ "spec": { "modelRefs": [model("granite"), model("mistral")] } });
    let parsed = validate(&object(Kind::Subscription, TENANT_NAMESPACE, "team", &body.to_string()));
    let Ok(Spec::Subscription(spec)) = parsed else { panic!("{parsed:?}") };
    for (namespace, name, window_seconds, (unit, scope), wanted) in [
        ("llm", "granite", 60, usual, Some(5)),
        ("llm", "granite", 3600, usual, Some(90)),
        ("llm", "granite", 3600, (Unit::Requests, LimitScope::Key), Some(3)),
        ("llm", "granite", 3600, (Unit::Requests, LimitScope::User), None),
        ("llm", "granite", 61, usual, None),
        ("llm", "other", 60, usual, None),
        ("other", "granite", 60, usual, None),
    ] {
        let kind = LimitKind { window_seconds, unit, scope };
        assert_eq!(spec.limit(namespace, name, kind).map(|limit| limit.limit), wanted, "{namespace}/{name} {kind:?}");
    }
}

#[test]
fn policies_need_a_subject_and_a_model() {
    let models = json!([{ "name": "granite", "namespace": "llm" }]);
    let nobody = "spec.subjects: at least one group or user must be specified in subjects";
    let long = "n".repeat(64);
    check(
        Kind::AuthPolicy,
        "team",
        &[
            (json!({ "spec": { "modelRefs": models, "subjects": { "groups": [{ "name": "tutors" }] } } }), ""),
            (json!({ "spec": { "modelRefs": models, "subjects": { "users": ["kube:admin"] } } }), ""),
            (json!({ "spec": { "modelRefs": models, "subjects": { "users": [], "groups": null } } }), nobody),
            (json!({ "spec": { "modelRefs": models } }), "spec.subjects: is required"),
            (
                json!({ "spec": { "modelRefs": [{ "name": long, "namespace": "" }], "subjects": { "users": ["ann"] } } }),
                "spec.modelRefs[0].name: has 64 characters: use 1 to 63\nspec.modelRefs[0].namespace: has 0 characters: use 1 to 63",
            ),
        ],
    );
}

#[test]
fn model_references_name_a_kind_and_an_object() {
    let kind = "is not a kind of model: use LLMInferenceService or ExternalModel";
    check(
        Kind::ModelRef,
        "granite",
        &[
            (json!({ "spec": { "modelRef": { "kind": "LLMInferenceService", "name": "granite" } } }), ""),
            (
                json!({ "spec": { "modelRef": { "kind": "ExternalModel", "name": "gpt" }, "endpointOverride": "https://x" } }),
                "",
            ),
            (
                json!({ "spec": { "modelRef": { "kind": "Pod", "name": "x" } } }),
                &format!("spec.modelRef.kind: \"Pod\" {kind}"),
            ),
            (
                json!({ "spec": { "endpointOverride": "x" } }),
                "spec.modelRef: is required\nspec.endpointOverride: \"x\" is not an http:// or https:// URL",
            ),
        ],
    );
}

#[test]
fn there_is_one_tenant_and_its_settings_have_bounds() {
    let oidc = |issuer: &str, ttl| json!({ "spec": { "externalOIDC": { "issuerUrl": issuer, "clientId": "maas", "ttl": ttl } } });
    let issuer = "spec.externalOIDC.issuerUrl: must be an https:// URL without blanks";
    check(
        Kind::Tenant,
        DEFAULT_TENANT,
        &[
            (json!({}), ""),
            (json!({ "spec": { "telemetry": { "enabled": true, "metrics": { "captureUser": true } } } }), ""),
            (oidc("https://id.example", 30), ""),
            (oidc("http://id.example", 30), issuer),
            (oidc("https://id example", 30), issuer),
            (oidc("https://id.example", 29), "spec.externalOIDC.ttl: is 29: use 30 to 4294967295"),
            (
                json!({ "spec": { "apiKeys": { "groups": "thawed" } } }),
                "spec.apiKeys.groups: is \"thawed\": use live, frozen",
            ),
            (json!({ "spec": { "apiKeys": { "groups": "frozen" } } }), ""),
            (
                json!({ "spec": { "apiKeys": { "maxExpirationDays": 0 } } }),
                "spec.apiKeys.maxExpirationDays: is 0: use 1 to 4294967295",
            ),
            (
                json!({ "spec": { "apiKeys": { "maxPerUser": 0, "maxCreationsPerMinute": 1_000_001, "retention": "30d" } } }),
                "spec.apiKeys.maxPerUser: is 0: use 1 to 1000000\n\
                 spec.apiKeys.maxCreationsPerMinute: is 1000001: use 1 to 1000000\n\
                 spec.apiKeys.retention: \"30d\" is not a duration: use 1 to 9999 followed by s, m or h",
            ),
            (
                json!({ "spec": { "apiKeys": { "retention": "9999h" } } }),
                "spec.apiKeys.retention: \"9999h\" is too long: use at most 8784h (366 days)",
            ),
            (json!({ "spec": { "apiKeys": { "maxPerUser": 1, "maxCreationsPerMinute": 1, "retention": "1s" } } }), ""),
            (
                json!({ "spec": { "gatewayRef": { "name": "", "namespace": "A" } } }),
                "spec.gatewayRef.namespace: \"A\" is not a DNS label of at most 63 characters",
            ),
            (
                json!({ "spec": { "telemetry": { "metrics": { "captureGroup": "yes" } } } }),
                "spec.telemetry.metrics.captureGroup: must be true or false, not \"yes\"",
            ),
        ],
    );
    check(
        Kind::Tenant,
        "other",
        &[(
            json!({}),
            "metadata.name: \"other\" cannot be a name: `default-tenant` is the only tenant of this version",
        )],
    );
}

#[test]
fn names_namespaces_and_labels_follow_kubernetes() {
    let mistakes = |kind, namespace: &str, name: &str, label: (&str, &str)| {
        let mut object = object(kind, namespace, name, r#"{"users":[]}"#);
        object.labels = BTreeMap::from([(label.0.to_owned(), label.1.to_owned())]);
        let errors = validate(&object).err().unwrap_or_default();
        errors.into_iter().map(|error| error.path).collect::<Vec<_>>().join(" ")
    };
    let (fits, long) = ("n".repeat(63), "n".repeat(64));
    let good = ("app.kubernetes.io/part-of", "Models_2.0");
    for (kind, namespace, name, label, wanted) in [
        (Kind::ServiceAccount, "llm", "bot.v2", good, ""),
        (Kind::ServiceAccount, "llm", "Bot", good, "metadata.name"),
        (Kind::ServiceAccount, "llm", "bot-", good, "metadata.name"),
        (Kind::ServiceAccount, "llm", "a..b", good, "metadata.name"),
        (Kind::ServiceAccount, "", "bot", good, "metadata.namespace"),
        (Kind::ServiceAccount, "a.b", "bot", good, "metadata.namespace"),
        (Kind::Namespace, "", "llm", good, ""),
        (Kind::Namespace, "", "a.b", good, "metadata.name"),
        (Kind::Namespace, "", &fits, good, ""),
        (Kind::Namespace, "", &long, good, "metadata.name"),
        (Kind::Namespace, "llm", "llm", good, "metadata.namespace"),
        (Kind::Group, "", "Tutors & Pupils äöü", good, ""),
        (Kind::Group, "", "CORP\\dev", good, ""),
        (Kind::Group, "", "CN=dev,OU=ai", good, ""),
        (Kind::Group, "", "nul\0", good, "metadata.name"),
        (Kind::Group, "", "tab\there", good, "metadata.name"),
        (Kind::Group, "", " dev", good, "metadata.name"),
        (Kind::Group, "", "dev\u{200b}", good, "metadata.name"),
        (Kind::Group, "", &"n".repeat(254), good, "metadata.name"),
        (Kind::Group, "", "", good, "metadata.name"),
        (Kind::Group, "", "a/b", good, "metadata.name"),
        (Kind::Group, "", "..", good, "metadata.name"),
        (Kind::Group, "", "tutors", ("-a", "x"), "metadata.labels"),
        (Kind::Group, "", "tutors", ("A.b/c", "x"), "metadata.labels"),
        (Kind::Group, "", "tutors", ("a", ""), ""),
        (Kind::Group, "", "tutors", ("a", "x y"), "metadata.labels.a"),
    ] {
        assert_eq!(mistakes(kind, namespace, name, label), wanted, "{name} in {namespace:?} with {label:?}");
    }
}

#[test]
fn users_of_a_group_may_be_written_in_base64() {
    let parsed = validate(&object(
        Kind::Group,
        "",
        "tutors",
        r#"{"users":["ann","b64:a3ViZTphZG1pbg==","b64:a3ViZTphZG1pbg"]}"#,
    ));
    let users = ["ann", "kube:admin", "kube:admin"].map(str::to_owned).to_vec();
    assert_eq!(parsed, Ok(Spec::Group(GroupSpec { users })));
    let wrong = "users[0]: \"b64:?\" is not `b64:` and base64 of a UTF-8 user name";
    check(Kind::Group, "tutors", &[(json!({ "users": null }), ""), (json!({ "users": ["b64:?"] }), wrong)]);
}

#[test]
fn replicas_are_base_urls_and_nothing_else() {
    let parse = |list: &str| {
        let mut service = object(Kind::InferenceService, "llm", "granite", "{}");
        service.annotations.insert(REPLICAS_ANNOTATION.to_owned(), list.to_owned());
        match validate(&service) {
            Ok(Spec::InferenceService(spec)) => spec.replica_urls.join(" "),
            Ok(other) => panic!("{other:?}"),
            Err(errors) => errors.into_iter().map(|error| error.message).collect::<Vec<_>>().join("; "),
        }
    };
    let right = "use http://host:port or https://host:port";
    assert_eq!(parse(""), "");
    assert_eq!(
        parse("http://Vllm-0.llm:8000/, https://[::1]:1,http://10.0.0.1 ,"),
        "http://vllm-0.llm:8000 https://[::1]:1 http://10.0.0.1:80"
    );
    assert_eq!(parse("https://[::1]"), "https://[::1]:443");
    for (list, wanted) in [
        ("vllm:8000", "has no scheme"),
        ("ftp://vllm", "is neither http nor https"),
        ("http://vllm/v1", "has a path"),
        ("http://vllm?x", "has a path"),
        ("http://vllm:0", "has no port from 1 to 65535"),
        ("http://vllm:65536", "has no port from 1 to 65535"),
        ("http://", "has no valid host"),
        ("http://a..b:1", "has no valid host"),
        ("http://[::g]:1", "has no valid host"),
        ("http://[127.0.0.1]:1", "has no valid host"),
        ("http://169.254.169.254", "is a link-local address, where no replica may be"),
        ("http://[fe80::1]:8000", "is a link-local address, where no replica may be"),
        ("http://[fd00:ec2::254]", "is the address of a cloud's metadata service, where no replica may be"),
        ("http://0.0.0.0:8000", "is an unspecified address, where no replica may be"),
    ] {
        assert_eq!(parse(list), format!("\"{list}\" {wanted}: {right}"));
    }
    // What could be a password is not repeated.
    assert_eq!(parse("http://me:secret@vllm"), format!("a URL has credentials, which do not belong here: {right}"));
    assert_eq!(parse("http://a,http://A:80/"), "\"http://A:80/\" is listed twice");
    let many = |count: usize| (0..count).map(|number| format!("http://vllm-{number}")).collect::<Vec<_>>().join(",");
    assert_eq!(parse(&many(REPLICAS_MAX)).split(' ').count(), REPLICAS_MAX);
    assert_eq!(
        parse(&many(REPLICAS_MAX + 1)),
        format!("lists {} replicas: {REPLICAS_MAX} are the most of one service", REPLICAS_MAX + 1)
    );
}

#[test]
fn unknown_fields_are_kept_and_named() {
    let body = r#"{"spec":{"modelRefs":[{"name":"a","namespace":"b","colour":1}],"subjekts":{}},"extra":{"x":1}}"#;
    assert_eq!(unknown_fields(Kind::AuthPolicy, body), ["extra", "spec.subjekts", "spec.modelRefs[0].colour"]);
    let template = r#"{"spec":{"template":{"containers":[{"name":"main"}]},"router":{"route":{}},"replicas":2}}"#;
    assert_eq!(unknown_fields(Kind::InferenceService, template), Vec::<String>::new());
}

// === Statuses ===

/// So many replicas of every service: healthy, known.
struct Replicas(Option<(usize, usize)>);

impl ReplicaHealth for Replicas {
    fn replicas(&self, _: &str, _: &str) -> Option<(usize, usize)> {
        self.0
    }
    fn troubles(&self, _: &str, _: &str) -> Vec<String> {
        let ill = self.0.map_or(0, |(healthy, known)| known - healthy);
        (0..ill).map(|at| format!("http://{at}: connection refused")).collect()
    }
    fn gateway_url(&self) -> String {
        "https://gateway.example:8443".to_owned()
    }
}

fn log_with_namespace() -> Log {
    let mut log = Log { time: Timestamp(1_000_000), ..Log::default() };
    log.create(object(Kind::Namespace, "", "llm", "{}"));
    log
}

fn model_ref(name: &str) -> NewObject {
    let body = json!({ "spec": { "modelRef": { "kind": "LLMInferenceService", "name": name } } });
    object(Kind::ModelRef, "llm", name, &body.to_string())
}

fn covering(kind: Kind, models: &[&str]) -> NewObject {
    let limits = json!([{ "limit": 100, "window": "1h" }, { "limit": 10, "window": "60s" }]);
    let models: Vec<Value> =
        models.iter().map(|name| json!({ "name": name, "namespace": "llm", "tokenRateLimits": limits })).collect();
    let body = json!({ "spec": { "modelRefs": models, "subjects": { "users": ["ann"] } } });
    object(kind, TENANT_NAMESPACE, "team", &body.to_string())
}

fn status_of(log: &Log, kind: Kind, namespace: &str, name: &str, health: &Replicas) -> Status {
    let object = log.state.object(&ObjectKey::new(kind, namespace, name)).unwrap();
    status(object, &log.state, health)
}

/// `phase: Ready status, reason, message, since`.
fn told(status: &Status) -> String {
    let ready = &status.conditions[0];
    assert_eq!(ready.kind, "Ready");
    format!("{}: {} {}, {}, {}", status.phase, ready.status, ready.reason, ready.message, ready.since.0)
}

#[test]
fn a_model_reference_is_ready_when_a_healthy_replica_stands_behind_it() {
    let mut log = log_with_namespace();
    let told_with = |log: &Log, replicas| told(&status_of(log, Kind::ModelRef, "llm", "granite", &Replicas(replicas)));

    // First there is nothing to reference.
    log.create(model_ref("granite"));
    assert_eq!(
        told_with(&log, Some((1, 1))),
        "Failed: False NotFound, LLMInferenceService llm/granite not found: an administrator of its namespace can create it, 1000000"
    );

    // Then there is a service, of which replicas come, fail and recover.
    log.time = Timestamp(2_000_000);
    log.create(object(Kind::InferenceService, "llm", "granite", "{}"));
    let none = "Pending: False BackendNotReady, LLMInferenceService llm/granite has no replicas: an administrator of its namespace \
                can start some, or list them in the annotation tollgate.dev/replicas, 2000000";
    assert_eq!(told_with(&log, None), none);
    assert_eq!(told_with(&log, Some((0, 0))), none);
    let broken = "Unhealthy: False BackendNotReady, none of the 2 replicas of LLMInferenceService llm/granite is healthy, 2000000";
    assert_eq!(told_with(&log, Some((0, 2))), broken);
    assert_eq!(told_with(&log, Some((1, 2))), "Ready: True Reconciled, 1 of 2 replicas are healthy, 2000000");

    // The whole of it, as clients read it.
    let status = status_of(&log, Kind::ModelRef, "llm", "granite", &Replicas(Some((2, 2))));
    let wanted = json!({
        "phase": "Ready",
        "endpoint": "https://gateway.example:8443/llm/granite",
        "httpRouteName": "granite-kserve-route",
        "httpRouteNamespace": "llm",
        "httpRouteGatewayName": "maas-default-gateway",
        "httpRouteGatewayNamespace": "openshift-ingress",
        "httpRouteHostnames": ["gateway.example"],
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "Reconciled", "message": "2 of 2 replicas are healthy",
            "lastTransitionTime": "1970-01-01T00:33:20Z", "observedGeneration": 1,
        }],
    });
    assert_eq!(status.json, wanted);

    // An external model is accepted and not served.
    let body = json!({ "spec": { "modelRef": { "kind": "ExternalModel", "name": "gpt" } } });
    log.create(object(Kind::ModelRef, "llm", "gpt", &body.to_string()));
    let external = told(&status_of(&log, Kind::ModelRef, "llm", "gpt", &Replicas(None)));
    assert!(
        external.starts_with("Failed: False BackendNotReady, spec.modelRef.kind ExternalModel is not served"),
        "{external}"
    );
}

#[test]
fn subscriptions_and_policies_are_as_good_as_the_models_they_name() {
    let mut log = log_with_namespace();
    let health = Replicas(None);
    for kind in [Kind::Subscription, Kind::AuthPolicy] {
        log.create(covering(kind, &["granite", "mistral"]));
    }
    let phases = |log: &Log| {
        [Kind::Subscription, Kind::AuthPolicy].map(|kind| {
            let key = ObjectKey::new(kind, TENANT_NAMESPACE, "team");
            let phase = reference_phase(log.state.object(&key).unwrap(), &log.state);
            let status = status_of(log, kind, TENANT_NAMESPACE, "team", &health);
            assert_eq!(status.phase, phase.as_str());
            told(&status)
        })
    };
    let granite = "MaaSModelRef llm/granite not found: an administrator of its namespace can create it";
    let mistral = "MaaSModelRef llm/mistral not found: an administrator of its namespace can create it";
    let failed = format!("Failed: False ReconcileFailed, {granite}; {mistral}, 1000000");
    assert_eq!(phases(&log), [failed.clone(), failed]);
    assert!(!is_usable_reference(&log.state, "llm", "granite"));

    log.time = Timestamp(2_000_000);
    log.create(model_ref("granite"));
    let degraded = format!("Degraded: False PartialFailure, {mistral}, 2000000");
    assert_eq!(phases(&log), [degraded.clone(), degraded]);
    assert!(is_usable_reference(&log.state, "llm", "granite"));

    let json = status_of(&log, Kind::Subscription, TENANT_NAMESPACE, "team", &health).json;
    assert_eq!(json["modelRefStatuses"][1]["reason"], "NotFound");
    assert_eq!(
        json["tokenRateLimitStatuses"][0]["message"],
        "100 tokens per 1h for each user, 10 tokens per 60s for each user"
    );
    assert_eq!(json["tokenRateLimitStatuses"][1]["ready"], false);
    let json = status_of(&log, Kind::AuthPolicy, TENANT_NAMESPACE, "team", &health).json;
    assert_eq!(
        (&json["authPolicies"][0]["reason"], &json["authPolicies"][0]["model"]),
        (&json!("AcceptedEnforced"), &json!("granite"))
    );

    log.create(model_ref("mistral"));
    let active = "Active: True Reconciled, successfully reconciled, 2000000".to_owned();
    assert_eq!(phases(&log), [active.clone(), active]);
}

#[test]
fn a_shared_priority_is_pointed_out() {
    let mut log = log_with_namespace();
    let condition = |log: &Log| {
        let status = status_of(log, Kind::Subscription, TENANT_NAMESPACE, "team", &Replicas(None));
        let condition = status.conditions[1].clone();
        (condition.kind, condition.status, condition.reason, condition.message)
    };
    log.create(covering(Kind::Subscription, &["granite"]));
    let alone =
        ("SpecPriorityDuplicate", "False", "NoDuplicatePeers", "no other subscription has priority 0".to_owned());
    assert_eq!(condition(&log), alone);
    let mut peer = covering(Kind::Subscription, &["granite"]);
    peer.key.name = "other".to_owned();
    log.create(peer);
    let message =
        "priority 0 is shared with other: a new key without `subscription` gets the one with the largest limit";
    assert_eq!(condition(&log), ("SpecPriorityDuplicate", "True", "SharedPriority", message.to_owned()));
}

#[test]
fn a_body_that_cannot_be_read_grants_nothing_and_says_so() {
    let mut log = log_with_namespace();
    log.create(object(Kind::Subscription, TENANT_NAMESPACE, "team", r#"{"spec":{"modelRefs":7}}"#));
    let status = status_of(&log, Kind::Subscription, TENANT_NAMESPACE, "team", &Replicas(None));
    assert!(
        told(&status).starts_with(
            "Failed: False InvalidSpec, this version cannot read it (spec.modelRefs: must be a list, not 7)"
        )
    );
    let team = log.state.object(&ObjectKey::new(Kind::Subscription, TENANT_NAMESPACE, "team")).unwrap();
    assert_eq!(reference_phase(team, &log.state), Phase::Failed);
    assert_eq!(row(team, &status, Timestamp(1_000_000)), [json!("Failed"), json!(0), json!("0s")]);

    // Nor does anything count that refers to it.
    log.create(object(Kind::ModelRef, "llm", "granite", r#"{"spec":{"modelRef":{"name":"granite"}}}"#));
    assert!(!is_usable_reference(&log.state, "llm", "granite"));
    log.create(covering(Kind::AuthPolicy, &["granite"]));
    let message = "MaaSModelRef llm/granite cannot be read: an administrator of its namespace can apply it again";
    let policy = status_of(&log, Kind::AuthPolicy, TENANT_NAMESPACE, "team", &Replicas(None));
    assert_eq!(told(&policy), format!("Failed: False ReconcileFailed, {message}, 1000000"));
}

#[test]
fn a_table_has_a_cell_for_every_column() {
    let mut log = log_with_namespace();
    log.create(object(Kind::InferenceService, "llm", "granite", "{}"));
    log.create(model_ref("granite"));
    log.create(covering(Kind::Subscription, &["granite"]));
    log.create(covering(Kind::AuthPolicy, &["granite"]));
    log.create(object(Kind::Group, "", "tutors", r#"{"users":["ann","bob"]}"#));
    log.create(object(Kind::ServiceAccount, "llm", "bot", "{}"));
    let now = Timestamp(1_000_000 + 3 * 3_600_000 + 300_000);
    let url = "https://gateway.example:8443/llm/granite";
    let rows: [(Kind, &str, &str, Value); 8] = [
        (Kind::Namespace, "", "llm", json!(["Active", "3h5m"])),
        (Kind::ServiceAccount, "llm", "bot", json!([0, "3h5m"])),
        (Kind::Group, "", "tutors", json!(["ann, bob"])),
        (Kind::Tenant, TENANT_NAMESPACE, DEFAULT_TENANT, json!(["True", "Reconciled", "3h5m"])),
        (Kind::InferenceService, "llm", "granite", json!([url, "True", "Reconciled", "3h5m"])),
        (
            Kind::ModelRef,
            "llm",
            "granite",
            json!(["Ready", url, "granite-kserve-route", "maas-default-gateway", "3h5m"]),
        ),
        (Kind::Subscription, TENANT_NAMESPACE, "team", json!(["Active", 0, "3h5m"])),
        (Kind::AuthPolicy, TENANT_NAMESPACE, "team", json!(["Active", "3h5m", "maas-auth-granite"])),
    ];
    for (kind, namespace, name, wanted) in rows {
        let object = log.state.object(&ObjectKey::new(kind, namespace, name)).unwrap();
        let status = status(object, &log.state, &Replicas(Some((1, 1))));
        let cells = row(object, &status, now);
        assert_eq!((json!(cells), cells.len()), (wanted, kind.columns().len()), "{kind:?}");
        let listed = status.json.get("conditions").and_then(Value::as_array).map_or(0, Vec::len);
        assert_eq!(listed, status.conditions.len(), "{kind:?}");
    }
}
