//! Replicas behind TLS: prompts go to who shows a certificate of the configured authority, and to nobody else.

use std::time::Duration;

use crate::caller::{chat, plain};
use crate::replica::{Replica, WORDS, trusting};
use crate::world::{Directory, LOOPBACK, World};

const SECRET: &str = "my account number is 7310";

/// Probes often, so that a replica has every chance to be spoken to.
const GATEWAY: &str = "[gateway]\nlisten = \"127.0.0.1:0\"\n[probe]\ninterval = \"50ms\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_with_a_trusted_certificate_is_probed_and_served() {
    let directory = Directory::new("trusted");
    let authority = directory.authority("ours");
    let replica = Replica::start(&authority).await;
    let upstream = trusting(authority.certificate().to_owned());
    let world = World::start(&directory, &format!("{GATEWAY}{upstream}"), &replica.url).await;
    world.wait_until_healthy().await;
    let answer = chat(plain(world.gateway).await, SECRET).await;
    assert_eq!((answer.status, answer.words().as_deref()), (200, Some(WORDS)), "{}", answer.text);
    let heard = replica.heard();
    for wanted in ["GET /health", "GET /metrics", SECRET] {
        assert!(heard.requests.iter().any(|request| request.contains(wanted)), "{wanted}: {heard:?}");
    }
    assert_eq!(heard.in_clear, 0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_cannot_be_trusted_is_told_nothing() {
    let directory = Directory::new("untrusted");
    let (ours, theirs) = (directory.authority("ours"), directory.authority("theirs"));
    let trusts_ours = trusting(ours.certificate().to_owned());
    // What the configuration trusts, whose certificate the replica shows for which name, and why it gets no calls.
    for (upstream, shown, name, why) in [
        (&*trusts_ours, &theirs, "127.0.0.1", "invalid peer certificate"),
        (&*trusts_ours, &ours, "elsewhere.example", "invalid peer certificate"),
        (LOOPBACK, &ours, "127.0.0.1", "need a certificate authority in the configuration"),
    ] {
        let replica = Replica::start(&ours).await;
        replica.show(shown, name);
        let world = World::start(&directory, &format!("{GATEWAY}{upstream}"), &replica.url).await;
        let reason = world.reason_of_illness().await;
        assert!(reason.contains(why), "{why}: {reason}");
        let answer = chat(plain(world.gateway).await, SECRET).await;
        assert_eq!(answer.status, 503, "{why}: {}", answer.text);
        assert!(answer.text.contains("no replica of the model is healthy"), "{}", answer.text);
        world.stop().await;
        let heard = replica.heard();
        assert!(heard.requests.is_empty() && heard.in_clear == 0, "{why}: it was spoken to: {heard:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_shows_another_certificate_later_is_told_nothing_more() {
    let directory = Directory::new("later");
    let (ours, theirs) = (directory.authority("ours"), directory.authority("theirs"));
    let replica = Replica::start(&ours).await;
    // One probe, and none after it: the call itself has to notice.
    let sections = "[gateway]\nlisten = \"127.0.0.1:0\"\n[probe]\ninterval = \"1h\"\n";
    let upstream = trusting(ours.certificate().to_owned());
    let world = World::start(&directory, &format!("{sections}{upstream}"), &replica.url).await;
    world.wait_until_healthy().await;
    replica.show(&theirs, "127.0.0.1");
    let answer = chat(plain(world.gateway).await, SECRET).await;
    assert_eq!(answer.status, 502, "{}", answer.text);
    assert!(answer.text.contains("the replica cannot be reached: invalid peer certificate"), "{}", answer.text);
    let mut heard = replica.heard();
    // The replica reads of the refusal a moment after the caller does.
    for _ in 0..100 {
        if heard.refused > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        heard = replica.heard();
    }
    assert!(heard.refused > 0 && heard.in_clear == 0, "{heard:?}");
    assert!(!heard.requests.iter().any(|request| request.contains(SECRET)), "{heard:?}");

    // And is served again once it shows the right one.
    replica.show(&ours, "127.0.0.1");
    let answer = chat(plain(world.gateway).await, SECRET).await;
    assert_eq!(answer.words().as_deref(), Some(WORDS), "{} {}", answer.status, answer.text);
    world.stop().await;
}
