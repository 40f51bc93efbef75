//! `tollgate dev` in front of a server that runs already, or will, or never can.

use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::client::Client;
use crate::run::{Dev, chat};

const CHAT: &str = "/models/qwen3-8b/v1/chat/completions";

/// A simulated vLLM as a process of its own.
struct Vllm {
    port: u16,
    _child: Child,
}

impl Vllm {
    /// Starts it and waits until it listens.
    async fn start(port: u16) -> Vllm {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .args(["sim-vllm", "--port", &port.to_string(), "--model", "Qwen/Qwen3-8B", "--speed", "20"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let line = BufReader::new(child.stdout.take().unwrap()).lines().next_line().await.unwrap();
        assert!(line.as_ref().is_some_and(|line| line.contains("Qwen/Qwen3-8B")), "{line:?}");
        Vllm { port, _child: child }
    }

    /// Generations that it has brought to an end.
    async fn served(&self) -> f64 {
        let page = Client::plain(&format!("http://127.0.0.1:{}", self.port), "").get("/metrics").await.unwrap();
        let ended = page.text.lines().filter(|line| line.starts_with("vllm:request_success_total{"));
        ended.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }
}

/// A port that nobody listens on.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn body() -> serde_json::Value {
    let mut body = chat("hello", 10);
    body["model"] = "qwen3-8b".into();
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_server_is_published_under_its_own_name() {
    let vllm = Vllm::start(free_port()).await;
    let url = format!("http://127.0.0.1:{}/v1", vllm.port);
    let mut dev = Dev::start("running", &["--replica", &url, "--model", "Qwen/Qwen3-8B"]).await;
    let page = dev.output();
    assert!(page.contains("Tollgate is ready: 1 node, 1 replica of Qwen/Qwen3-8B, here called qwen3-8b."), "{page}");
    assert!(!page.contains("do not answer yet"), "{page}");

    assert_eq!(vllm.served().await, 0.0);
    let answer = dev.gateway(1).post(CHAT, &body()).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json()["usage"]["completion_tokens"], 10, "{}", answer.text);
    assert_eq!(vllm.served().await, 1.0, "it reached this server");
    assert!(dev.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_run_yet_is_said_on_the_page_and_used_once_it_does() {
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}");
    let mut dev = Dev::start("absent", &["--replica", &url, "--model", "Qwen/Qwen3-8B"]).await;
    let page = dev.output();
    assert!(page.contains("The replicas do not answer yet: calls get 503 until one of them does."), "{page}");
    let refused = dev.gateway(1).post(CHAT, &body()).await.unwrap();
    assert_eq!(refused.status, 503, "{}", refused.text);
    assert_eq!(refused.json()["error"]["message"], "no replica of the model is healthy", "{}", refused.text);

    let vllm = Vllm::start(port).await;
    let mut answer = refused;
    for _ in 0..200 {
        answer = dev.gateway(1).post(CHAT, &body()).await.unwrap();
        if answer.status == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!((answer.status, vllm.served().await), (200, 1.0), "{}", answer.text);
    assert!(dev.stop().await);
}

/// In a directory of its own, which must stay empty.
async fn refused(arguments: &[&str]) -> Output {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("tollgate-refused-{}-{number}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.arg("dev").args(arguments).current_dir(&dir).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(30), command.output());
    let output = output.await.expect("it is refused at once").unwrap();
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0, "{arguments:?}: something was made");
    std::fs::remove_dir_all(&dir).unwrap();
    output
}

#[tokio::test]
async fn a_command_line_that_cannot_be_meant_is_refused_with_what_to_write() {
    let no_url = |url: &str| format!("tollgate: --replica {url} is not a server's URL: write http://host:port\n");
    let with = |url: &'static str| vec!["--replica", url, "--model", "m"];
    let twice = [with("http://host:8000"), vec!["--replica", "http://host:8000/v1"]].concat();
    let cases = [
        (with("127.0.0.1:8000"), no_url("127.0.0.1:8000")),
        (with("ftp://host"), no_url("ftp://host")),
        (with("http://"), no_url("http://")),
        (with("http://host:99999"), no_url("http://host:99999")),
        (with("http://two words"), no_url("http://two words")),
        (with("http://host/some/path"), no_url("http://host/some/path")),
        (
            with("http://user:password@host"),
            "tollgate: a --replica has credentials in its URL: write http://host:port\n".to_owned(),
        ),
        (twice, "tollgate: --replica http://host:8000/v1 is given twice: leave one out\n".to_owned()),
    ];
    for (arguments, said) in cases {
        let output = refused(&arguments).await;
        assert_eq!(String::from_utf8_lossy(&output.stderr), said, "{arguments:?}");
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
    }
}

#[tokio::test]
async fn a_server_without_its_models_name_is_refused_with_the_missing_argument() {
    for (arguments, wanted) in [
        (&["--replica", "http://host:8000"][..], "required arguments were not provided:\n  --model <NAME>"),
        (&["--replica", "http://host:8000", "--model", ""][..], "a value is required for '--model <NAME>'"),
        (
            &["--replica", "http://host:8000", "--model", "m", "--replicas", "2"][..],
            "'--replica <URL>' cannot be used with '--replicas <R>'",
        ),
    ] {
        let output = refused(arguments).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(wanted), "{arguments:?}: {said}");
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
    }
}
