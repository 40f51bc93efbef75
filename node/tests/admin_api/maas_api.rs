//! The maas-api contract as a table, and the life of a key.

use serde_json::{Value, json};

use crate::world::{ADMIN, ALICE, BOB, SUBSCRIPTIONS, World, ask, subscription};

const KEYS: &str = "/maas-api/v1/api-keys";

/// A key of alice's.
async fn key_of_alice(world: &World, body: &str) -> Value {
    let answer = world.ask("POST", KEYS, ALICE, body).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer.json()
}

#[tokio::test]
async fn routes_answer_as_in_the_contract() {
    let world = World::start().await;
    world.furnish().await;
    let key = key_of_alice(&world, r#"{"name":"k"}"#).await;
    let text = key["key"].as_str().unwrap();
    let by_id = format!("{KEYS}/{}", key["id"].as_str().unwrap());
    let absent = format!("{KEYS}/00000000-0000-4000-8000-000000000000");
    let (search, bulk, models) = (format!("{KEYS}/search"), format!("{KEYS}/bulk-revoke"), "/maas-api/v1/models");
    let malformed = "sk-oai-invalid-key-12345";
    let unknown = "sk-oai-abcdefgh_ijklmnop";
    let cases = [
        ("GET", "/maas-api/health", "", "", 200, r#"{"status":"healthy"}"#),
        ("OPTIONS", KEYS, "", "", 204, ""),
        ("OPTIONS", "/maas-api/whatever", "", "", 204, ""),
        // Who is asking, in the words of each family.
        ("POST", KEYS, "", "{}", 401, r#"{"error":"Authentication required"}"#),
        ("GET", models, "", "", 401, r#"{"error":{"message":"Authorization required","type":"authentication_error"}}"#),
        ("POST", KEYS, "nonsense", "{}", 401, r#"{"error":""#),
        ("GET", models, malformed, "", 403, r#""type":"permission_error""#),
        ("GET", models, unknown, "", 403, r#""type":"permission_error""#),
        ("GET", &by_id, malformed, "", 403, r#"{"error":"the API key is malformed"}"#),
        // Routes and methods that are not there.
        ("GET", "/maas-api/v1/tokens", ALICE, "", 404, r#"{"error":"not found"}"#),
        ("GET", "/maas-api/internal/v1/api-keys/validate", ALICE, "", 404, r#"{"error":"not found"}"#),
        ("GET", "/maas-api/v1/api-keys/..%2f..%2finternal", ALICE, "", 404, r#"{"error":"not found"}"#),
        ("GET", KEYS, ALICE, "", 405, r#"{"error":"method not allowed"}"#),
        ("DELETE", models, ALICE, "", 405, r#""type":"invalid_request_error""#),
        // Creation.
        ("POST", KEYS, ALICE, "", 400, r#"{"error":"invalid request body"#),
        ("POST", KEYS, ALICE, "[]", 400, "send a JSON object"),
        ("POST", KEYS, ALICE, r#"{"name":7}"#, 400, "invalid type"),
        ("POST", KEYS, ALICE, "{}", 400, r#"{"error":"name is required for non-ephemeral keys"}"#),
        ("POST", KEYS, ALICE, r#"{"name":"  "}"#, 400, "must not be blank"),
        ("POST", KEYS, ALICE, r#"{"name":"a\nb"}"#, 400, "control characters"),
        ("POST", KEYS, ALICE, r#"{"name":"k","expiresIn":"-1h"}"#, 400, r#"expiration must be positive"}"#),
        ("POST", KEYS, ALICE, r#"{"name":"k","expiresIn":"91d"}"#, 400, r#"expiration exceeds maximum allowed"}"#),
        ("POST", KEYS, ALICE, r#"{"ephemeral":true,"expiresIn":"2h"}"#, 400, r#"expiration exceeds maximum allowed"}"#),
        ("POST", KEYS, ALICE, r#"{"name":"k","labels":{"":"x"}}"#, 400, "invalid labels"),
        (
            "POST",
            KEYS,
            ALICE,
            r#"{"name":"k","subscription":"absent"}"#,
            400,
            r#"{"error":"Unable to resolve a subscription for this API key","code":"invalid_subscription"}"#,
        ),
        (
            "POST",
            KEYS,
            BOB,
            r#"{"name":"k","subscription":"calculus-dev"}"#,
            400,
            r#"{"error":"Unable to resolve a subscription for this API key","code":"invalid_subscription"}"#,
        ),
        ("POST", KEYS, BOB, r#"{"name":"k"}"#, 400, r#""code":"invalid_subscription""#),
        ("POST", KEYS, text, r#"{"name":"k"}"#, 403, "cannot create API keys"),
        (
            "GET",
            "/maas-api/v1/api-keys/config",
            ALICE,
            "",
            200,
            r#"{"max_expiration_days":90,"ephemeral_max_expiration":"1h0m0s"}"#,
        ),
        // Reading.
        ("GET", &by_id, ALICE, "", 200, r#""status":"active""#),
        ("GET", &by_id, text, "", 200, r#""status":"active""#),
        ("GET", &by_id, ADMIN, "", 200, r#""username":"alice""#),
        ("GET", &by_id, BOB, "", 404, r#"{"error":"API key not found"}"#),
        ("GET", &absent, ALICE, "", 404, r#"{"error":"API key not found"}"#),
        ("GET", "/maas-api/v1/api-keys/not-a-uuid", ALICE, "", 404, r#"{"error":"API key not found"}"#),
        ("DELETE", &by_id, BOB, "", 404, r#"{"error":"API key not found"}"#),
        ("DELETE", &absent, ALICE, "", 404, r#"{"error":"API key not found"}"#),
        // Searching.
        ("POST", &search, ALICE, "", 400, r#"{"error":"invalid request body"#),
        ("POST", &search, BOB, "{}", 200, r#"{"object":"list","data":[],"has_more":false}"#),
        ("POST", &search, ALICE, "{}", 200, r#""username":"alice""#),
        (
            "POST",
            &search,
            ALICE,
            r#"{"filters":{"username":"bob"}}"#,
            403,
            r#"{"error":"non-admin users can only search their own API keys"}"#,
        ),
        ("POST", &search, ADMIN, r#"{"filters":{"username":"alice"}}"#, 200, r#""username":"alice""#),
        ("POST", &search, ALICE, r#"{"pagination":{}}"#, 400, "at least 1"),
        ("POST", &search, ALICE, r#"{"pagination":{"limit":1,"offset":-1}}"#, 400, "negative"),
        ("POST", &search, ALICE, r#"{"pagination":{"limit":1000}}"#, 200, r#""has_more":false"#),
        ("POST", &search, ALICE, r#"{"filters":{"status":["broken"]}}"#, 400, "invalid status"),
        ("POST", &search, ALICE, r#"{"sort":{"by":"colour"}}"#, 400, "invalid sort.by"),
        ("POST", &search, ALICE, r#"{"sort":{"by":"name","order":"ASC"}}"#, 200, r#""has_more":false"#),
        ("POST", &search, ALICE, r#"{"sort":{"order":"sideways"}}"#, 400, "invalid sort.order"),
        ("POST", &search, ALICE, r#"{"filters":{"nameContains":"zzz","hasExpiration":true}}"#, 200, r#""name":"k""#),
        // Revoking many.
        ("POST", &bulk, ALICE, "{}", 400, r#"{"error":"at least one of username or subscription is required"}"#),
        (
            "POST",
            &bulk,
            ALICE,
            r#"{"username":"bob"}"#,
            403,
            r#"{"error":"Access denied: you can only bulk revoke your own API keys"}"#,
        ),
        (
            "POST",
            &bulk,
            ALICE,
            r#"{"subscription":"calculus-dev"}"#,
            403,
            r#"{"error":"Access denied: admin privileges required for this bulk revoke operation"}"#,
        ),
        (
            "POST",
            &bulk,
            BOB,
            r#"{"username":"bob"}"#,
            200,
            r#"{"revokedCount":0,"message":"Successfully revoked 0 active API key(s) for user bob"}"#,
        ),
        (
            "POST",
            &bulk,
            ADMIN,
            r#"{"username":"alice","dryRun":true}"#,
            200,
            r#"{"revokedCount":1,"message":"Dry run: 1 active key(s) would be revoked for user alice","dryRun":true}"#,
        ),
        (
            "POST",
            &bulk,
            ADMIN,
            r#"{"subscription":"calculus-dev"}"#,
            200,
            r#"{"revokedCount":1,"message":"Successfully revoked 1 active API key(s) for subscription calculus-dev"}"#,
        ),
        ("GET", &by_id, ALICE, "", 200, r#""status":"revoked""#),
        ("GET", models, text, "", 403, "revoked"),
    ];
    for (method, path, token, body, status, part) in cases {
        let answer = world.ask(method, path, token, body).await;
        assert_eq!(answer.status, status, "{method} {path} {body} as {token}: {}", answer.text);
        assert!(answer.text.contains(part), "{method} {path} {body} as {token}: {}", answer.text);
    }
}

#[tokio::test]
async fn a_key_is_shown_once_and_dead_when_its_revocation_is_answered() {
    let world = World::start().await;
    world.furnish().await;
    let created = key_of_alice(
        &world,
        r#"{"name":" agent ","description":"d","subscription":"calculus-dev","expiresIn":"30d","labels":{"team":"a"}}"#,
    )
    .await;
    let (text, id) = (created["key"].as_str().unwrap(), created["id"].as_str().unwrap());
    let fields: Vec<&String> = created.as_object().unwrap().keys().collect();
    assert_eq!(
        fields,
        ["key", "keyPrefix", "id", "name", "subscription", "createdAt", "expiresAt", "ephemeral", "labels"]
    );
    assert!(text.starts_with("sk-oai-") && created["keyPrefix"].as_str().unwrap().ends_with("..."), "{created}");
    assert_eq!((&created["name"], &created["ephemeral"]), (&json!("agent"), &json!(false)));

    // The key works, and nothing that is kept or shown later contains it.
    let by_id = format!("{KEYS}/{id}");
    assert_eq!(world.ask("GET", "/maas-api/v1/models", text, "").await.status, 200);
    let shown = world.ask("GET", &by_id, ALICE, "").await;
    let fields: Vec<String> =
        shown.json().as_object().unwrap().keys().filter(|name| *name != "lastUsedAt").cloned().collect();
    assert_eq!(
        fields,
        [
            "id",
            "name",
            "description",
            "username",
            "subscription",
            "tenant",
            "creationDate",
            "expirationDate",
            "status",
            "ephemeral",
            "labels"
        ]
    );
    let secret = text.rsplit_once('_').unwrap().1;
    assert!(!shown.text.contains(secret) && !format!("{:?}", world.context.cluster.view().keys).contains(secret));

    // Revoked: the answer shows it, the key is refused at once, and a second revocation finds nothing.
    let revoked = world.ask("DELETE", &by_id, ALICE, "").await;
    assert_eq!((revoked.status, revoked.json()["status"].clone()), (200, json!("revoked")));
    assert_eq!(world.ask("GET", "/maas-api/v1/models", text, "").await.status, 403);
    assert_eq!(world.ask("DELETE", &by_id, ALICE, "").await.status, 404);
}

#[tokio::test]
async fn searches_filter_sort_and_page() {
    let world = World::start().await;
    world.furnish().await;
    world.done("POST", SUBSCRIPTIONS, &subscription("other", 0, 10)).await;
    key_of_alice(&world, r#"{"name":"b","subscription":"other","labels":{"team":"x"}}"#).await;
    key_of_alice(&world, r#"{"name":"a","subscription":"calculus-dev","expiresIn":"1h"}"#).await;
    key_of_alice(&world, r#"{"name":"c","subscription":"calculus-dev","expiresIn":"2h"}"#).await;
    let ephemeral = key_of_alice(&world, r#"{"ephemeral":true}"#).await;
    assert!(ephemeral["name"].as_str().unwrap().starts_with("ephemeral-"), "{ephemeral}");
    let by_name = r#""sort":{"by":"name","order":"asc"}"#;
    let cases = [
        (format!("{{{by_name}}}"), "a b c", false),
        (r#"{"sort":{"by":"name","order":"desc"}}"#.to_owned(), "c b a", false),
        (r#"{"sort":{"by":"expires_at","order":"asc"}}"#.to_owned(), "a c b", false),
        (format!(r#"{{{by_name},"pagination":{{"limit":2}}}}"#), "a b", true),
        (format!(r#"{{{by_name},"pagination":{{"limit":2,"offset":2}}}}"#), "c", false),
        (format!(r#"{{{by_name},"pagination":{{"limit":2,"offset":9}}}}"#), "", false),
        (format!(r#"{{{by_name},"filters":{{"subscription":"calculus-dev"}}}}"#), "a c", false),
        (format!(r#"{{{by_name},"filters":{{"labelsContain":{{"team":"x"}}}}}}"#), "b", false),
        (format!(r#"{{{by_name},"filters":{{"status":["revoked","expired"]}}}}"#), "", false),
        (
            format!(r#"{{{by_name},"filters":{{"status":["active"],"includeEphemeral":true}}}}"#),
            &format!("a b c {}", ephemeral["name"].as_str().unwrap()),
            false,
        ),
    ];
    for (body, expected, more) in cases {
        let answer = world.ask("POST", &format!("{KEYS}/search"), ALICE, &body).await.json();
        let names: Vec<&str> =
            answer["data"].as_array().unwrap().iter().map(|key| key["name"].as_str().unwrap()).collect();
        assert_eq!((names.join(" ").as_str(), &answer["has_more"]), (expected, &json!(more)), "{body}");
    }
}

#[tokio::test]
async fn the_best_subscription_is_chosen_by_priority_then_limit_then_name() {
    let world = World::start().await;
    world.furnish().await;
    // calculus-dev has priority 0 and a limit of 50,000.
    for (name, priority, limit, expected) in [
        ("zz-small", 0, 10, "calculus-dev"),
        ("b-equal", 0, 50_000, "b-equal"),
        ("a-negative", -5, 50_000, "a-negative"),
        ("large", 0, 60_000, "large"),
        ("urgent", 1, 10, "urgent"),
    ] {
        world.done("POST", SUBSCRIPTIONS, &subscription(name, priority, limit)).await;
        assert_eq!(key_of_alice(&world, r#"{"name":"k"}"#).await["subscription"], expected, "after {name}");
    }
    // A Failed one can be default, but not named.
    let mut broken = subscription("broken", 9, 10);
    broken["spec"]["modelRefs"][0]["name"] = json!("absent");
    world.done("POST", SUBSCRIPTIONS, &broken).await;
    assert_eq!(key_of_alice(&world, r#"{"name":"k"}"#).await["subscription"], "broken");
    let answer = world.ask("POST", KEYS, ALICE, r#"{"name":"k","subscription":"broken"}"#).await;
    assert_eq!((answer.status, answer.json()["code"].clone()), (403, json!("subscription_not_ready")));
}

#[tokio::test]
async fn the_tenant_says_how_long_keys_may_live() {
    let world = World::start().await;
    world.furnish().await;
    let tenant = "/apis/maas.opendatahub.io/v1alpha1/namespaces/models-as-a-service/tenants/default-tenant";
    world.done("PATCH", tenant, &json!({"spec": {"apiKeys": {"maxExpirationDays": 7}}})).await;
    assert_eq!(world.ask("GET", "/maas-api/v1/api-keys/config", ALICE, "").await.json()["max_expiration_days"], 7);
    let answer = world.ask("POST", KEYS, ALICE, r#"{"name":"k","expiresIn":"8d"}"#).await;
    assert_eq!(answer.status, 400, "{}", answer.text);
    key_of_alice(&world, r#"{"name":"k","expiresIn":"7d"}"#).await;
}

#[tokio::test]
async fn models_are_listed_for_openai_clients_on_both_ports() {
    let world = World::start().await;
    world.furnish().await;
    let key = key_of_alice(&world, r#"{"name":"k"}"#).await;
    let key = key["key"].as_str().unwrap();
    let lists = [
        ask(&world.public, "GET", "/v1/models", key, "", &[]).await,
        ask(&world.public, "GET", "/maas-api/v1/models", key, "", &[]).await,
        ask(&world.admin, "GET", "/maas-api/v1/models", ALICE, "", &[]).await,
        ask(
            &world.admin,
            "GET",
            "/maas-api/v1/models",
            ALICE,
            "",
            &[("x-maas-subscription", ""), ("x-maas-subscription", "calculus-dev")],
        )
        .await,
        // What a key is bound to, no header changes.
        ask(
            &world.public,
            "GET",
            "/v1/models",
            key,
            "",
            &[("x-maas-subscription", "other"), ("x-maas-subscription", "more")],
        )
        .await,
    ];
    for list in lists {
        assert_eq!(list.status, 200, "{}", list.text);
        assert_eq!(list.header("cache-control"), "no-store");
        assert!(list.header("x-access-checked-at").ends_with('Z'));
        let list = list.json();
        let model = &list["data"][0];
        assert_eq!((&list["object"], &model["id"], &model["object"]), (&json!("list"), &json!("gpt"), &json!("model")));
        assert_eq!((&model["owned_by"], &model["kind"]), (&json!("llm/gpt"), &json!("LLMInferenceService")));
        assert!(
            model["created"].as_u64().unwrap() > 1_700_000_000 && model["url"].as_str().unwrap().ends_with("/llm/gpt"),
            "{model}"
        );
        assert_eq!(model["modelDetails"], json!({"displayName": "GPT", "contextWindow": "4096"}));
        assert_eq!(model["subscriptions"], json!([{"name": "calculus-dev"}]));
        assert_eq!(model["aliases"], json!(["llm/gpt", "acme/gpt"]));
    }

    let refusals = [
        (ALICE, "absent", "requested subscription not found"),
        (BOB, "calculus-dev", "access denied to requested subscription"),
    ];
    for (token, subscription, message) in refusals {
        let answer =
            ask(&world.admin, "GET", "/maas-api/v1/models", token, "", &[("x-maas-subscription", subscription)]).await;
        assert_eq!(answer.status, 403, "{}", answer.text);
        assert_eq!(answer.json(), json!({"error": {"message": message, "type": "permission_error"}}));
    }

    // Who owns no subscription sees no models.
    assert_eq!(ask(&world.admin, "GET", "/maas-api/v1/models", BOB, "", &[]).await.json()["data"], json!([]));

    // Each name in the list finds the model, slashes encoded or not; so does a longer name that calls may use.
    let names = ["gpt", "llm/gpt", "llm%2Fgpt", "acme/gpt", "acme%2fgpt", "publishers/llm/models/gpt"];
    for name in names {
        for (router, base, token) in [(&world.public, "/v1", key), (&world.admin, "/maas-api/v1", ALICE)] {
            let model = ask(router, "GET", &format!("{base}/models/{name}"), token, "", &[]).await;
            assert_eq!(model.status, 200, "{name} {}", model.text);
            assert_eq!((&model.json()["id"], &model.json()["owned_by"]), (&json!("gpt"), &json!("llm/gpt")), "{name}");
        }
    }
    // What does not exist and what is not open to the caller are alike.
    for (name, token) in [("absent", key), ("gpt", BOB)] {
        let unknown = ask(&world.public, "GET", &format!("/v1/models/{name}"), token, "", &[]).await;
        let error = json!({"error": {"message": format!("the model `{name}` does not exist, or you do not have access to it"), "type": "not_found_error", "code": "model_not_found"}});
        assert_eq!((unknown.status, unknown.json()), (404, error));
    }
    assert_eq!(ask(&world.public, "GET", "/v1/models/..%2f..%2fx", key, "", &[]).await.status, 400);
    assert_eq!(ask(&world.public, "POST", "/v1/models/acme/gpt", key, "", &[]).await.status, 405);

    // A key whose subscription is gone lists nothing.
    world.done("DELETE", &format!("{SUBSCRIPTIONS}/calculus-dev"), &json!({})).await;
    assert_eq!(ask(&world.public, "GET", "/v1/models", key, "", &[]).await.status, 403);
}

#[tokio::test]
async fn anthropics_clients_get_models_and_errors_in_their_own_form() {
    let world = World::start().await;
    world.furnish().await;
    let key = key_of_alice(&world, r#"{"name":"k"}"#).await;
    let key = key["key"].as_str().unwrap();
    let headers = [("x-api-key", key), ("anthropic-version", "2023-06-01"), ("x-request-id", "r-1")];
    let get = async |path: &str, bearer: &str| ask(&world.public, "GET", path, bearer, "", &headers).await;

    let list = get("/v1/models?limit=5", "placeholder").await;
    assert_eq!((list.status, list.header("request-id")), (200, "r-1"), "{}", list.text);
    let list = list.json();
    assert_eq!((&list["first_id"], &list["last_id"], &list["has_more"]), (&json!("gpt"), &json!("gpt"), &json!(false)));
    let model = &list["data"][0];
    assert_eq!((&model["type"], &model["id"], &model["display_name"]), (&json!("model"), &json!("gpt"), &json!("GPT")));
    assert!(model["created_at"].as_str().unwrap().ends_with('Z'), "{model}");
    assert_eq!(&get("/v1/models/acme/gpt", "placeholder").await.json(), model);

    for (path, status, kind) in [
        ("/v1/models/absent", 404, "not_found_error"),
        ("/v1/models?limit=0", 400, "invalid_request_error"),
        ("/v1/models?after_id=absent", 400, "invalid_request_error"),
    ] {
        let answer = get(path, "placeholder").await;
        assert_eq!((answer.status, answer.header("request-id")), (status, "r-1"), "{}", answer.text);
        let error = answer.json();
        assert_eq!((&error["type"], &error["error"]["type"]), (&json!("error"), &json!(kind)), "{error}");
        assert_eq!(error["request_id"], "r-1");
    }
}

#[tokio::test]
async fn subscriptions_are_listed_with_their_models_and_limits() {
    let world = World::start().await;
    world.furnish().await;
    let mut rich = subscription("a-rich", 3, 100);
    rich["metadata"]["annotations"] = json!({"openshift.io/display-name": "Rich"});
    rich["spec"]["tokenMetadata"] = json!({"organizationId": "org", "costCenter": "cc", "labels": {"k": "v"}});
    world.done("POST", SUBSCRIPTIONS, &rich).await;
    let mut broken = subscription("broken", 0, 10);
    broken["spec"]["modelRefs"][0]["name"] = json!("absent");
    world.done("POST", SUBSCRIPTIONS, &broken).await;

    let list = world.ask("GET", "/maas-api/v1/subscriptions", ALICE, "").await.json();
    let model = json!({
        "name": "gpt", "namespace": "llm", "display_name": "GPT", "model_name": "acme/gpt", "source": "internal",
        "token_rate_limits": [{"limit": 100, "window": "1h"}],
    });
    let expected = json!({
        "subscription_id_header": "a-rich", "subscription_description": "Rich", "display_name": "Rich", "priority": 3,
        "model_refs": [model], "organization_id": "org", "cost_center": "cc", "labels": {"k": "v"},
    });
    assert_eq!(list[0], expected);
    assert_eq!(
        (&list[1]["subscription_id_header"], &list[1]["subscription_description"]),
        (&json!("calculus-dev"), &json!("calculus-dev"))
    );
    assert_eq!(list.as_array().unwrap().len(), 2);

    let names = |list: &Value| -> Vec<String> {
        list.as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["subscription_id_header"].as_str().unwrap().to_owned())
            .collect()
    };
    for (model, token, expected) in [
        ("gpt", ALICE, &["a-rich", "calculus-dev"][..]),
        ("absent", ALICE, &["broken"]),
        ("unknown", ALICE, &[]),
        ("gpt", BOB, &[]),
    ] {
        let list = world.ask("GET", &format!("/maas-api/v1/model/{model}/subscriptions"), token, "").await.json();
        assert_eq!(names(&list), expected, "{model} {token}");
    }
}

#[tokio::test]
async fn requests_carry_an_id_and_no_forged_identity() {
    let world = World::start().await;
    let id = |value: &'static str| [("x-request-id", value)];
    let health = |headers: [(&'static str, &'static str); 1]| {
        let admin = world.admin.clone();
        async move { ask(&admin, "GET", "/maas-api/health", "", "", &headers).await.header("x-request-id").to_owned() }
    };
    assert_eq!(health(id("abc.DEF_1-2")).await, "abc.DEF_1-2");
    for strange in ["a b", "a/b", ""] {
        let fresh = health(id(strange)).await;
        assert_eq!(fresh.len(), 36, "{fresh}");
    }
    let forged = world.ask_with("GET", "/maas-api/v1/models", ALICE, "", &[("x-maas-username", "admin")]).await;
    assert_eq!(forged.status, 403, "{}", forged.text);
    let huge = world.ask("POST", KEYS, ALICE, &" ".repeat(1024 * 1024 + 1)).await;
    assert_eq!(huge.status, 413, "{}", huge.text);
}
