//! HTTP/2 clients that send frames without a request in them.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::world::{World, limits, replica};

const CUT: &str = "tollgate_connections_cut_total";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0, 0, u8::try_from(payload.len()).unwrap(), kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// `POST /` to the authority `a`, as HPACK has it: three entries of the static table, and one literal.
const POST: &[u8] = &[0x83, 0x86, 0x84, 0x01, 1, b'a'];
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A request that is taken back at once, and the next, and the next.
fn rapid_resets() -> Vec<u8> {
    let requests = (0..20_000).map(|number| 2 * number + 1);
    let pairs = requests
        .map(|stream| [frame(1, END_STREAM | END_HEADERS, stream, POST), frame(3, 0, stream, &[0, 0, 0, 8])].concat());
    pairs.collect::<Vec<_>>().concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_frames_ends_the_connection_and_says_why() {
    let (_replica, url) = replica(1).await;
    let world = World::start_limited(&[url], limits()).await;
    let times = 300_000;
    let table = [
        ("PING", frame(6, 0, 0, &[1; 8]).repeat(times)),
        ("PING that answers nothing", frame(6, 1, 0, &[1; 8]).repeat(times)),
        ("SETTINGS", frame(4, 0, 0, &[]).repeat(times)),
        ("PRIORITY", frame(2, 0, 1, &[0, 0, 0, 0, 1]).repeat(times)),
        ("WINDOW_UPDATE", frame(8, 0, 0, &[0, 0, 0, 1]).repeat(times)),
        ("a kind that does not exist", frame(0x77, 0, 0, &[1]).repeat(times)),
        ("empty DATA", [frame(1, END_HEADERS, 1, POST), frame(0, 0, 1, &[]).repeat(times)].concat()),
        ("CONTINUATION", [frame(1, 0, 1, POST), frame(9, 0, 1, &[]).repeat(times)].concat()),
        ("requests that are taken back", rapid_resets()),
    ];
    for (name, flood) in table {
        let mut connection = world.connect().await;
        connection.send([PREFACE, &frame(4, 0, 0, &[])].concat()).await;
        let taken = connection.try_send(&flood).await;
        assert!(connection.closes_within(Duration::from_secs(5)).await, "{name}: all of them are served ({taken})");
    }
    let cut = world.counter_with(CUT, "reason=\"frames\"");
    assert!(cut >= 6.0, "the HTTP library ends some of them by itself, and not these: {cut}");

    // One frame too many, and no more: nothing is in the way of the answer.
    let mut connection = world.connect().await;
    connection.send([PREFACE, &frame(4, 0, 0, &[]), &frame(6, 0, 0, &[1; 8]).repeat(1_000)].concat()).await;
    let said = connection.rest().await;
    let text = b"too many frames that carry nothing";
    let at = memchr::memmem::find(said, text).expect("it is told why");
    assert_eq!(said[at - 4..at], [0, 0, 0, 0xb], "ENHANCE_YOUR_CALM");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_is_not_counted_out() {
    let (_replica, url) = replica(2).await;
    let world = World::start_limited(&[url], limits()).await;
    let stream = std::net::TcpStream::connect(world.address).unwrap();
    stream.set_nonblocking(true).unwrap();
    let io = TokioIo::new(tokio::net::TcpStream::from_std(stream).unwrap());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..2_000 {
        let request = http::Request::get("http://gateway/healthz").body(Full::new(bytes::Bytes::new())).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "ok");
    }
    assert_eq!(world.counter_with(CUT, "reason=\"frames\""), 0.0);
}
