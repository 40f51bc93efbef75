//! Replicas at addresses where none may be: no connection is made, and the reason is told.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::world::{Directory, LOOPBACK, World};

const SECTIONS: &str = "[gateway]\nlisten = \"127.0.0.1:0\"\n[probe]\ninterval = \"20ms\"\n";

/// A server that answers every request in the same way, and counts its connections.
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Server {
    fn start(answer: String) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, connections) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let counted = connections.clone();
        tokio::task::spawn_blocking(move || {
            for stream in listener.incoming() {
                counted.fetch_add(1, Ordering::SeqCst);
                let Ok(mut stream) = stream else { return };
                let mut head = [0; 4096];
                if !stream.read(&mut head).is_ok_and(|read| read > 0) {
                    // The test's own connection, at its end.
                    return;
                }
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        Server { address, connections }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    /// Ends the thread.
    fn drop(&mut self) {
        let _ = std::net::TcpStream::connect(self.address);
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test(flavor = "multi_thread")]
async fn loopback_is_no_place_for_replicas_unless_it_is_allowed() {
    let directory = Directory::new("loopback");
    let server = Server::start("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned());
    let port = server.address.port();
    // Every way to write the address; a name is judged by what it resolves to.
    for host in ["127.0.0.1", "127.9.9.9", "localhost", "127.1", "2130706433", "[::1]", "[::ffff:127.0.0.1]"] {
        let world = World::start(&directory, SECTIONS, &format!("http://{host}:{port}")).await;
        let reason = world.reason_of_illness().await;
        assert!(reason.contains("`upstream.allow_loopback = true`"), "{host}: {reason}");
        world.stop().await;
    }
    assert_eq!(server.connections(), 0);

    let world = World::start(&directory, &format!("{SECTIONS}{LOOPBACK}"), &format!("http://127.0.0.1:{port}")).await;
    world.wait_until_healthy().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nodes_own_ports_and_forbidden_addresses_are_never_replicas() {
    let directory = Directory::new("own-ports");
    let port = free_port();
    let sections = format!("[gateway]\nlisten = \"127.0.0.1:{port}\"\n[probe]\ninterval = \"20ms\"\n{LOOPBACK}");
    for (url, why) in [
        (format!("http://127.0.0.1:{port}"), "a port of this node itself"),
        (format!("http://localhost:{port}"), "a port of this node itself"),
        // Written so that it is no literal address: 169.254.169.254.
        ("http://2852039166:80".to_owned(), "169.254.169.254 is a link-local address"),
        ("http://0:80".to_owned(), "0.0.0.0 is an unspecified address"),
    ] {
        let world = World::start(&directory, &sections, &url).await;
        let reason = world.reason_of_illness().await;
        assert!(reason.contains(why), "{url}: {reason}");
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_follows_no_redirect() {
    let directory = Directory::new("redirect");
    let inside = Server::start("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned());
    let location = format!("http://{}/health", inside.address);
    for status in [301, 302, 303, 307, 308] {
        let answer = format!(
            "HTTP/1.1 {status} Elsewhere\r\nlocation: {location}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        let replica = Server::start(answer);
        let sections = format!("{SECTIONS}{LOOPBACK}");
        let world = World::start(&directory, &sections, &format!("http://{}", replica.address)).await;
        let reason = world.reason_of_illness().await;
        assert!(reason.contains(&format!("/health answered {status}")), "{reason}");
        world.stop().await;
    }
    assert_eq!(inside.connections(), 0);
}
