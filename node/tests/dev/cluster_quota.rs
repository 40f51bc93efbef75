//! One limit, three nodes: never passed, and used to its end.

use futures_util::future::join_all;
use serde_json::json;

use crate::client::Client;
use crate::run::{CHAT, Dev, chat};

const SUBSCRIPTIONS: &str = "/apis/maas.opendatahub.io/v1alpha1/namespaces/models-as-a-service/maassubscriptions";

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_calls_at_once_over_three_nodes_never_pass_a_limit_that_fits_fifty() {
    let mut dev = Dev::start("quota", &["--nodes", "3"]).await;
    // What one such call uses.
    let probe = dev.gateway(1).post(CHAT, &chat("hello", 20)).await.unwrap();
    assert_eq!(probe.status, 200, "{}", probe.text);
    let one = probe.json()["usage"]["total_tokens"].as_u64().unwrap();
    let limit = one * 50;

    let model = json!({"name": "gpt-oss-20b", "namespace": "gpt-oss-model", "tokenRateLimits": [{"limit": limit, "window": "1h"}]});
    let small = json!({
        "apiVersion": "maas.opendatahub.io/v1alpha1", "kind": "MaaSSubscription",
        "metadata": {"name": "small", "namespace": "models-as-a-service"},
        "spec": {"owner": {"groups": [{"name": "calculus-users"}]}, "modelRefs": [model]},
    });
    let made = dev.admin(1).post(SUBSCRIPTIONS, &small).await.unwrap();
    assert_eq!(made.status, 201, "{}", made.text);
    let user = dev.exports()["USER_TOKEN"].clone();
    let key = dev
        .admin_as(1, &user)
        .post("/maas-api/v1/api-keys", &json!({"name": "small", "subscription": "small"}))
        .await
        .unwrap();
    assert_eq!(key.status, 201, "{}", key.text);
    let key = key.json()["key"].as_str().unwrap().to_owned();

    let nodes: Vec<Client> =
        (0..3).map(|node| Client::plain(&format!("http://127.0.0.1:{}", dev.gateway_port + node), &key)).collect();
    let body = chat("hello", 20);
    let answers = join_all((0..200).map(|call| nodes[call % 3].post(CHAT, &body))).await;
    let (mut admitted, mut used) = (0, 0);
    for answer in answers {
        let answer = answer.unwrap();
        match answer.status {
            200 => {
                let tokens = answer.json()["usage"]["total_tokens"].as_u64().unwrap();
                (admitted, used) = (admitted + 1, used + tokens);
            }
            429 => assert!(answer.headers.contains_key("retry-after"), "{}", answer.text),
            _ => panic!("{} {}", answer.status, answer.text),
        }
    }
    assert!(used <= limit, "{used} tokens were used of a limit of {limit}");

    // Callers who ask again, from any node, get what is left, as long as one call really fits into it.
    let burst = admitted;
    let mut refused_in_a_row = 0;
    for turn in 0..60 {
        let answer = nodes[turn % 3].post(CHAT, &body).await.unwrap();
        match answer.status {
            200 => {
                used += answer.json()["usage"]["total_tokens"].as_u64().unwrap();
                admitted += 1;
                refused_in_a_row = 0;
            }
            429 => refused_in_a_row += 1,
            _ => panic!("{} {}", answer.status, answer.text),
        }
        if refused_in_a_row == 3 {
            break;
        }
    }
    println!("{burst} calls admitted at once, {admitted} in the end; {used} of {limit} tokens used; a call uses {one}");
    assert!(used <= limit, "{used} tokens were used of a limit of {limit}");
    assert!(limit - used < one, "{} of {limit} tokens cannot be used, though a call uses {one}", limit - used);
    assert!(dev.stop().await);
}
