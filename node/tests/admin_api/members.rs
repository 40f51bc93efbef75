//! Who is in the cluster: for administrators, on the admin port, and every refusal says what to do.

use serde_json::json;

use crate::world::{ADMIN, ALICE, PROMETHEUS, World, ask};

const MEMBERS: &str = "/tollgate/v1/members";

#[tokio::test]
async fn every_refusal_says_what_to_do() {
    let world = World::start().await;
    world.furnish().await;
    let key = {
        let answer = world.ask("POST", "/maas-api/v1/api-keys", ALICE, r#"{"name":"k"}"#).await;
        answer.json()["key"].as_str().unwrap().to_owned()
    };
    let members = world.ask("GET", MEMBERS, ADMIN, "").await;
    let address = members.json()["members"][0]["address"].as_str().unwrap().to_owned();
    let only = json!({"members": [{"id": 1, "address": address, "leader": true, "voter": true}], "retired": []});
    assert_eq!((members.status, members.json()), (200, only.clone()));

    let of_the_only_one = json!({"id": 2, "address": address}).to_string();
    let moved = r#"{"id":1,"address":"elsewhere:7443"}"#;
    let large = format!(r#"{{"id":2,"address":"{}:1"}}"#, "x".repeat(5000));
    let (first, ninth) = (format!("{MEMBERS}/1"), format!("{MEMBERS}/9"));
    let cases = [
        ("GET", MEMBERS, "", "", 401, "send an administrator's bearer token"),
        ("GET", MEMBERS, "nonsense", "", 401, "send an administrator's bearer token"),
        ("GET", MEMBERS, ALICE, "", 403, "send a token of system:masters"),
        ("GET", MEMBERS, PROMETHEUS, "", 403, "send a token of system:masters"),
        ("GET", MEMBERS, &key, "", 403, "send a token of system:masters"),
        ("POST", MEMBERS, ALICE, moved, 403, "send a token of system:masters"),
        ("DELETE", &first, ALICE, "", 403, "send a token of system:masters"),
        ("DELETE", &first, "", "", 401, "send an administrator's bearer token"),
        ("PUT", MEMBERS, ADMIN, moved, 405, "method not allowed"),
        ("GET", &first, ADMIN, "", 405, "method not allowed"),
        // What cannot be a member.
        ("POST", MEMBERS, ADMIN, "", 400, "invalid request body: EOF"),
        ("POST", MEMBERS, ADMIN, "[]", 400, "invalid request body: send a JSON object"),
        ("POST", MEMBERS, ADMIN, r#"{"id":2}"#, 400, "missing field `address`"),
        ("POST", MEMBERS, ADMIN, r#"{"id":"2","address":"a:1"}"#, 400, "invalid type: string"),
        ("POST", MEMBERS, ADMIN, r#"{"id":2,"id":3,"address":"a:1"}"#, 400, "duplicate field"),
        ("POST", MEMBERS, ADMIN, r#"{"id":2,"address":"a:1","voter":true}"#, 400, "unknown field `voter`"),
        ("POST", MEMBERS, ADMIN, r#"{"id":0,"address":"a:1"}"#, 400, "id: 0 is not a whole number from 1 to"),
        (
            "POST",
            MEMBERS,
            ADMIN,
            r#"{"id":2,"address":"a"}"#,
            400,
            "address: \\\"a\\\" is not an address: write host:port",
        ),
        ("POST", MEMBERS, ADMIN, r#"{"id":2,"address":"a:0"}"#, 400, "has port 0"),
        ("POST", MEMBERS, ADMIN, &large, 413, "larger than 4096 bytes"),
        ("DELETE", "/tollgate/v1/members/one", ADMIN, "", 400, "is not a node's number: write 1, 2, 3"),
        ("DELETE", "/tollgate/v1/members/0", ADMIN, "", 400, "is not a node's number: write 1, 2, 3"),
        // What the cluster refuses.
        ("POST", MEMBERS, ADMIN, moved, 409, "node 1 is a member already, at 127.0.0.1:"),
        ("POST", MEMBERS, ADMIN, &of_the_only_one, 409, "is the address of node 1: take that one out first"),
        ("DELETE", &ninth, ADMIN, "", 404, "node 9 is not a member of the cluster"),
        ("DELETE", &first, ADMIN, "", 409, "node 1 is the last one: add another before it is taken out"),
        ("POST", MEMBERS, ADMIN, r#"{"id":2,"address":"127.0.0.1:9"}"#, 503, "start it with cluster.join = true"),
    ];
    for (method, path, token, body, status, part) in cases {
        let answer = world.ask(method, path, token, body).await;
        assert_eq!(answer.status, status, "{method} {path} {body}: {}", answer.text);
        assert!(answer.text.starts_with(r#"{"error":""#) && answer.text.contains(part), "{body}: {}", answer.text);
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.header("www-authenticate"), if status == 401 { "Bearer" } else { "" });
    }

    // A member that is one already is no mistake, and nothing of all this has changed anything.
    let again = only["members"][0].clone();
    let again = json!({"id": again["id"], "address": again["address"]}).to_string();
    let answer = world.ask("POST", MEMBERS, ADMIN, &again).await;
    assert_eq!((answer.status, answer.json()), (200, only));
    let public = ask(&world.public, "GET", MEMBERS, ADMIN, "", &[]).await;
    assert_eq!(public.status, 404, "administrators have a port of their own");
}
