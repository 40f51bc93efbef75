//! Clients that begin a TLS handshake and do not go on, and ones that never send a byte.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use crate::caller::{chat, plain, secure};
use crate::gateway_port::simulated;
use crate::world::{Directory, LOOPBACK, World, certificate};

/// The head of a TLS record that is longer than what follows it.
const HELLO: &[u8] = &[22, 3, 1, 1, 0, 1, 0, 0, 252];

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_does_not_go_on_has_a_deadline_and_takes_nobodys_place() {
    let directory = Directory::new("stalls");
    let files = certificate(&directory.authority("ours"));
    let section = "listen = \"127.0.0.1:0\"\ntls_handshake_timeout = \"500ms\"\nheader_read_timeout = \"500ms\"\nconnections_max = 20";
    let world = World::start(&directory, &format!("[gateway]\n{section}\n{files}{LOOPBACK}"), &simulated().await).await;
    world.wait_until_healthy().await;
    let authority = directory.authority("ours");
    let ca = authority.certificate();

    let mut stalled = Vec::new();
    for number in 0..60 {
        let mut stream = plain(world.gateway).await;
        stream.write_all(&HELLO[..number % HELLO.len()]).await.unwrap();
        stalled.push(stream);
    }
    // All places are taken by those, and the caller has one at once.
    let stream = secure(world.gateway, ca, &["http/1.1"]).await.unwrap();
    assert_eq!(chat(stream, "hello").await.status, 200);
    let silent = secure(world.gateway, ca, &["h2"]).await.unwrap();
    let began = Instant::now();
    let mut read = Vec::new();
    for mut stream in stalled {
        let closed = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut read)).await;
        assert!(closed.is_ok(), "a handshake goes on for ever");
    }
    let (mut reading, _writing) = tokio::io::split(silent);
    let closed = tokio::time::timeout(Duration::from_secs(5), reading.read_to_end(&mut read)).await;
    assert!(closed.is_ok(), "who shakes hands and sends nothing stays for ever");
    assert!(began.elapsed() > Duration::from_millis(200), "not before they had their time");
    world.stop().await;
}
