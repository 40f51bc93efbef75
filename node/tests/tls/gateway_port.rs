//! The gateway's port with a certificate: who trusts it is served, and nobody else disturbs.

use std::time::Duration;

use sim_vllm::{Config, Replica};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::caller::{chat, chat_http2, plain, secure};
use crate::world::{Directory, LOOPBACK, World, certificate};

/// A simulated replica behind a port, and its URL.
pub(crate) async fn simulated() -> String {
    let config = Config { model_names: vec!["acme/qwen".to_owned()], speed: 50.0, ..Config::default() };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { Replica::start(config).serve(listener, std::future::pending()).await });
    url
}

async fn start(directory: &Directory) -> World {
    let files = certificate(&directory.authority("ours"));
    let world =
        World::start(directory, &format!("[gateway]\nlisten = \"127.0.0.1:0\"\n{files}{LOOPBACK}"), &simulated().await)
            .await;
    world.wait_until_healthy().await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn who_trusts_its_authority_is_served_over_http1_and_http2() {
    let directory = Directory::new("served");
    let world = start(&directory).await;
    let authority = directory.authority("ours");
    let ca = authority.certificate();
    // What a client offers, what is chosen, and that the chosen protocol carries a call.
    for (offered, chosen) in [
        (&[][..], None),
        (&["http/1.1"][..], Some("http/1.1")),
        (&["http/1.1", "h2"][..], Some("h2")),
        (&["h2"][..], Some("h2")),
    ] {
        let stream = secure(world.gateway, ca, offered).await.unwrap();
        let agreed = stream.get_ref().1.alpn_protocol().map(|protocol| String::from_utf8_lossy(protocol).into_owned());
        assert_eq!(agreed.as_deref(), chosen, "{offered:?}");
        let answer = match chosen {
            Some("h2") => chat_http2(stream, "hello").await,
            _ => chat(stream, "hello").await,
        };
        assert_eq!(answer.status, 200, "{offered:?}: {}", answer.text);
        assert!(answer.text.contains("\"chat.completion\""), "{offered:?}: {}", answer.text);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_speak_tls_or_trusts_another_authority_fails_and_disturbs_nobody() {
    let directory = Directory::new("others");
    let world = start(&directory).await;

    // In clear there is no answer, only an end.
    let mut stream = plain(world.gateway).await;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: gateway\r\n\r\n").await.unwrap();
    let mut read = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut read)).await;
    assert!(closed.is_ok(), "the connection is closed");
    assert!(!read.starts_with(b"HTTP/"), "it was answered in clear: {}", String::from_utf8_lossy(&read));

    // Another authority is the client's to refuse.
    let stranger = directory.authority("theirs");
    let refused = secure(world.gateway, stranger.certificate(), &["h2"]).await.err().expect("it is not trusted");
    assert!(refused.to_string().contains("invalid peer certificate"), "{refused}");

    // Neither has disturbed anybody.
    let authority = directory.authority("ours");
    let stream = secure(world.gateway, authority.certificate(), &["http/1.1"]).await.unwrap();
    assert_eq!(chat(stream, "hello").await.status, 200);
    world.stop().await;
}
