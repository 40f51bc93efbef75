//! Somebody leaves: what ends with their account, their groups and their tokens, and what of it others see.

use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::world::{ADMIN, ALICE, SUBSCRIPTIONS, World, ask, request};

const KEYS: &str = "/maas-api/v1/api-keys";
const GROUPS: &str = "/apis/user.openshift.io/v1/groups";
const TOKENS: &str = "/apis/tollgate.dev/v1/tokens";
const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const TENANT: &str = "/apis/maas.opendatahub.io/v1alpha1/namespaces/models-as-a-service/tenants/default-tenant";
const POLICY: &str =
    "/apis/maas.opendatahub.io/v1alpha1/namespaces/models-as-a-service/maasauthpolicies/calculus-dev-access";
const BOT: &str = "system:serviceaccount:default:bot";

fn account() -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "bot"}})
}

fn group(name: &str, users: &[&str]) -> Value {
    json!({"apiVersion": "user.openshift.io/v1", "kind": "Group", "metadata": {"name": name}, "users": users})
}

/// A token of the ServiceAccount `bot`.
async fn token_of_bot(world: &World) -> String {
    let made = world.done("POST", &format!("{ACCOUNTS}/bot/token"), &json!({})).await;
    made["status"]["token"].as_str().unwrap().to_owned()
}

/// A key, and its id.
async fn key(world: &World, token: &str) -> (String, String) {
    let made = world.ask("POST", KEYS, token, r#"{"name":"k","subscription":"calculus-dev"}"#).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let text = |field: &str| made.json()[field].as_str().unwrap().to_owned();
    (text("key"), text("id"))
}

/// A world with the account `bot`, which is in `calculus-users`, a token of it and a key.
async fn world_with_bot() -> (World, String, String, String) {
    let world = World::start().await;
    world.furnish().await;
    world.done("POST", ACCOUNTS, &account()).await;
    world.done("POST", GROUPS, &group("calculus-users", &[BOT])).await;
    let token = token_of_bot(&world).await;
    let (secret, id) = key(&world, &token).await;
    (world, token, secret, id)
}

/// What a key gets that asks for its models.
async fn models(world: &World, secret: &str) -> (u16, usize) {
    let answer = ask(&world.public, "GET", "/v1/models", secret, "", &[]).await;
    (answer.status, answer.json()["data"].as_array().map_or(0, Vec::len))
}

const ALL: (u16, usize) = (200, 1);
const REFUSED: (u16, usize) = (403, 0);

#[tokio::test]
async fn a_key_has_the_groups_that_its_owner_has_now() {
    let (world, _, secret, _) = world_with_bot().await;
    assert_eq!(models(&world, &secret).await, ALL);

    // Out of the Group, and in again.
    let users = async |users: &[&str]| {
        world.done("PATCH", &format!("{GROUPS}/calculus-users"), &json!({"users": users})).await;
    };
    users(&["somebody"]).await;
    assert_eq!(models(&world, &secret).await, REFUSED);
    users(&["somebody", BOT]).await;
    assert_eq!(models(&world, &secret).await, ALL);

    // The Group deleted, and made again with other members.
    world.done("DELETE", &format!("{GROUPS}/calculus-users"), &Value::Null).await;
    assert_eq!(models(&world, &secret).await, REFUSED);
    world.done("POST", GROUPS, &group("calculus-users", &["somebody"])).await;
    assert_eq!(models(&world, &secret).await, REFUSED);

    // Other owners of the subscription, and other subjects of the policy: groups that come with the account's name.
    let owners = async |name: &str| {
        let owner = json!({"spec": {"owner": {"groups": [{"name": name}]}}});
        world.done("PATCH", &format!("{SUBSCRIPTIONS}/calculus-dev"), &owner).await;
        world.done("PATCH", POLICY, &json!({"spec": {"subjects": {"groups": [{"name": name}]}}})).await;
    };
    for (name, expected) in [
        ("system:serviceaccounts:default", ALL),
        ("system:serviceaccounts:other", REFUSED),
        ("system:serviceaccounts", ALL),
        ("calculus-users", REFUSED),
        ("system:authenticated", ALL),
    ] {
        owners(name).await;
        assert_eq!(models(&world, &secret).await, expected, "{name}");
    }
}

#[tokio::test]
async fn the_tenant_may_freeze_the_groups_of_keys() {
    let (world, _, secret, _) = world_with_bot().await;
    world.done("PATCH", TENANT, &json!({"spec": {"apiKeys": {"groups": "frozen"}}})).await;
    world.done("DELETE", &format!("{GROUPS}/calculus-users"), &Value::Null).await;
    assert_eq!(models(&world, &secret).await, ALL);
    world.done("PATCH", TENANT, &json!({"spec": {"apiKeys": {"groups": "live"}}})).await;
    assert_eq!(models(&world, &secret).await, REFUSED);

    // Without its owner a key is worth nothing, frozen or not.
    world.done("PATCH", TENANT, &json!({"spec": {"apiKeys": {"groups": "frozen"}}})).await;
    assert_eq!(models(&world, &secret).await, ALL);
    world.done("DELETE", &format!("{ACCOUNTS}/bot"), &Value::Null).await;
    assert_eq!(models(&world, &secret).await, REFUSED);
}

#[tokio::test]
async fn keys_and_tokens_end_with_their_account_and_a_new_one_of_that_name_does_not_bring_them_back() {
    let (world, token, secret, id) = world_with_bot().await;
    world.done("DELETE", &format!("{ACCOUNTS}/bot"), &Value::Null).await;
    world.done("POST", ACCOUNTS, &account()).await;

    assert_eq!(models(&world, &secret).await, REFUSED);
    assert_eq!(world.ask("GET", "/version", &token, "").await.status, 401);
    let search = world.ask("POST", &format!("{KEYS}/search"), ADMIN, r#"{"filters":{"status":["revoked"]}}"#).await;
    assert_eq!((&search.json()["data"][0]["id"], &search.json()["data"][0]["status"]), (&json!(id), &json!("revoked")));
    assert_eq!(world.ask("DELETE", &format!("{KEYS}/{id}"), ADMIN, "").await.status, 404);

    // The new account has keys of its own.
    let (secret, _) = key(&world, &token_of_bot(&world).await).await;
    assert_eq!(models(&world, &secret).await, ALL);
}

#[tokio::test]
async fn an_administrator_by_group_is_none_any_more_when_out_of_the_group() {
    let (world, token, _, _) = world_with_bot().await;
    world.done("POST", GROUPS, &group("system:masters", &[BOT])).await;
    assert_eq!(world.ask("GET", GROUPS, &token, "").await.status, 200);
    world.done("PATCH", &format!("{GROUPS}/system:masters"), &json!({"users": []})).await;
    assert_eq!(world.ask("GET", GROUPS, &token, "").await.status, 403);
    assert_eq!(world.ask("GET", TOKENS, &token, "").await.status, 403);
    assert_eq!(world.ask("GET", "/tollgate/v1/members", &token, "").await.status, 403);
    assert_eq!(world.ask("GET", "/metrics", &token, "").await.status, 403);
}

#[tokio::test]
async fn tokens_are_listed_without_what_they_are_and_deleted_for_ever() {
    let (world, token, _, _) = world_with_bot().await;
    let list = world.ask("GET", TOKENS, ADMIN, "").await;
    assert!(!list.text.contains(&token) && !list.text.contains(ADMIN), "{}", list.text);
    let list = list.json();
    let of_user = |user: &str| {
        let items = list["items"].as_array().unwrap();
        items.iter().find(|item| item["spec"]["user"] == user).unwrap().clone()
    };
    let (of_bot, of_alice) = (of_user(BOT), of_user("alice"));
    assert_eq!((&list["kind"], &of_bot["kind"]), (&json!("TokenList"), &json!("Token")));
    assert_eq!(of_bot["spec"]["serviceAccount"], json!({"namespace": "default", "name": "bot"}));
    assert!(of_bot["spec"]["expirationTimestamp"].is_string() && of_bot["metadata"]["creationTimestamp"].is_string());
    assert_eq!(
        (&of_alice["spec"]["groups"], &of_alice["spec"]["expirationTimestamp"]),
        (&json!(["calculus-users"]), &Value::Null)
    );

    // As kubectl prints them.
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let table = world.ask_with("GET", TOKENS, ADMIN, "", &[("accept", table)]).await.json();
    let columns: Vec<&str> =
        table["columnDefinitions"].as_array().unwrap().iter().map(|column| column["name"].as_str().unwrap()).collect();
    assert_eq!(columns, ["Name", "User", "Expires", "Last used", "Age"]);
    assert_eq!(table["rows"].as_array().unwrap().len(), list["items"].as_array().unwrap().len());
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");

    // Who may, and what is there.
    let path = |token: &Value| format!("{TOKENS}/{}", token["metadata"]["name"].as_str().unwrap());
    let (of_bot_path, of_alice_path) = (path(&of_bot), path(&of_alice));
    let cases = [
        ("GET", TOKENS, ALICE, 403),
        ("DELETE", &of_alice_path, ALICE, 403),
        ("POST", TOKENS, ADMIN, 405),
        ("PUT", &of_bot_path, ADMIN, 405),
        ("GET", "/apis/tollgate.dev/v1/tokens?watch=true", ADMIN, 405),
        ("GET", "/apis/tollgate.dev/v1/tokens/absent", ADMIN, 404),
        ("DELETE", "/apis/tollgate.dev/v1/tokens/absent", ADMIN, 404),
        ("GET", &of_bot_path, ADMIN, 200),
        ("DELETE", &format!("{of_bot_path}?dryRun=All"), ADMIN, 200),
        ("GET", &of_bot_path, ADMIN, 200),
    ];
    for (method, path, token, status) in cases {
        let answer = world.ask(method, path, token, "").await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text);
    }

    // Nothing that has labels: a selector must not select all.
    let none = world.ask("GET", &format!("{TOKENS}?labelSelector=team%3Da"), ADMIN, "").await.json();
    assert_eq!(none["items"], json!([]));

    // An account's token, and one that never ends: its groups leave the keys, and no file brings it back.
    let (of_alices, _) = key(&world, ALICE).await;
    assert_eq!(models(&world, &of_alices).await, ALL);
    for (path, token) in [(&of_bot_path, token.as_str()), (&of_alice_path, ALICE)] {
        assert_eq!(world.ask("GET", "/version", token, "").await.status, 200);
        let deleted = world.done("DELETE", path, &Value::Null).await;
        assert_eq!(deleted["status"], "Success");
        assert_eq!(world.ask("GET", "/version", token, "").await.status, 401);
        assert_eq!(world.ask("DELETE", path, ADMIN, "").await.status, 404);
    }
    assert_eq!(models(&world, &of_alices).await, REFUSED);
    assert_eq!(world.context.cluster.view().revoked_tokens.len(), 1);
}

#[tokio::test]
async fn when_a_token_was_last_used_is_told() {
    let (world, token, _, _) = world_with_bot().await;
    world.ask("GET", "/version", &token, "").await;
    let last_used = async || {
        let list = world.done("GET", TOKENS, &Value::Null).await;
        let of_bot = list["items"].as_array().unwrap().iter().find(|item| item["spec"]["user"] == BOT).unwrap().clone();
        of_bot["status"]["lastUsedTimestamp"].is_string()
    };
    world.context.actors.drain().await;
    assert!(last_used().await);
}

#[tokio::test]
async fn a_watch_ends_with_what_let_its_client_in() {
    let (world, token, _, _) = world_with_bot().await;
    let models = "/apis/maas.opendatahub.io/v1alpha1/maasmodelrefs?watch=true";
    let open = async |path: &str, token: &str| {
        let response = world.admin.clone().oneshot(request("GET", path, token, "", &[])).await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        response.into_body()
    };
    // What comes until the watch ends: no event after the error.
    let rest = async |body: axum::body::Body| {
        let bytes = tokio::time::timeout(std::time::Duration::from_secs(10), body.collect()).await.expect("it ends");
        let text = String::from_utf8(bytes.unwrap().to_bytes().to_vec()).unwrap();
        let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        events.last().map(|event| (event["type"].clone(), event["object"]["code"].clone()))
    };
    let error = |code: u16| Some((json!("ERROR"), json!(code)));

    // The account goes.
    let watch = open(models, &token).await;
    world.done("DELETE", &format!("{ACCOUNTS}/bot"), &Value::Null).await;
    assert_eq!(rest(watch).await, error(401));

    // An administrator by group is put out of it.
    world.done("POST", ACCOUNTS, &account()).await;
    let token = token_of_bot(&world).await;
    world.done("POST", GROUPS, &group("system:masters", &[BOT])).await;
    let watch = open(&format!("{GROUPS}?watch=true"), &token).await;
    world.done("DELETE", &format!("{GROUPS}/system:masters"), &Value::Null).await;
    assert_eq!(rest(watch).await, error(403));
}
