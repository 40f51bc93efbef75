//! Health needs no credentials, readiness names what is missing, metrics are not for everybody.

use crate::world::{ADMIN, ALICE, PROMETHEUS, World, ask};

#[tokio::test]
async fn health_is_for_all_and_metrics_for_some() {
    let world = World::start().await;
    world.furnish().await;
    let key = {
        let answer = world.ask("POST", "/maas-api/v1/api-keys", ALICE, r#"{"name":"k"}"#).await;
        answer.json()["key"].as_str().unwrap().to_owned()
    };
    let cases = [
        ("/healthz", "", 200, "ok"),
        ("/livez", "", 200, "ok"),
        ("/metrics", "", 401, "send a bearer token"),
        ("/metrics", "nonsense", 401, "send a bearer token"),
        ("/metrics", ALICE, 403, "system:monitoring"),
        ("/metrics", &key, 403, "system:monitoring"),
        ("/metrics", PROMETHEUS, 200, "tollgate_"),
        ("/metrics", ADMIN, 200, "tollgate_"),
    ];
    for (path, token, status, part) in cases {
        let answer = world.ask("GET", path, token, "").await;
        assert_eq!(answer.status, status, "{path} {token}: {}", answer.text);
        assert!(answer.text.contains(part), "{path} {token}: {}", answer.text);
    }
    for router in [&world.admin, &world.public] {
        // The pool of the service that was just created may take a moment to be known.
        for _ in 0..100 {
            if ask(router, "GET", "/readyz", "", "", &[]).await.status == 200 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert_eq!(ask(router, "GET", "/readyz", "", "", &[]).await.text, "ok");
    }
}

#[tokio::test]
async fn a_node_without_a_leader_says_so() {
    let world = World::start().await;
    world.context.cluster.shutdown().await;
    // The serving lease runs out.
    for _ in 0..200 {
        if world.ask("GET", "/readyz", "", "").await.status == 503 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let answer = world.ask("GET", "/readyz", "", "").await;
    assert_eq!(answer.status, 503);
    assert!(
        answer.text.lines().any(|line| line.starts_with("lease: ") || line.starts_with("leader: ")),
        "{}",
        answer.text
    );
    assert_eq!(world.ask("GET", "/healthz", "", "").await.status, 200);
}
