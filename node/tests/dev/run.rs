//! `tollgate dev` as a person runs it: the real binary, in a directory of its own, on free ports.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use raft::doors::{Net, TokioNet};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::client::Client;

/// The variables of dev.env.
pub(crate) type Exports = BTreeMap<String, String>;

/// A build machine under load is slow; what is measured is measured elsewhere.
const READY_MAX: Duration = Duration::from_secs(90);

/// A directory, ports, and the process if it runs.
pub(crate) struct Dev {
    pub(crate) dir: PathBuf,
    pub(crate) gateway_port: u16,
    pub(crate) admin_port: u16,
    arguments: Vec<String>,
    running: Option<Running>,
}

struct Running {
    child: Child,
    output: watch::Receiver<String>,
}

impl Dev {
    /// Starts it and waits for the page.
    pub(crate) async fn start(name: &str, arguments: &[&str]) -> Dev {
        let dir = std::env::temp_dir().join(format!("tollgate-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        let gateway_port = free_ports().await;
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut dev = Dev { dir, gateway_port, admin_port: gateway_port + 10, arguments, running: None };
        dev.start_again().await;
        dev
    }

    /// Starts it after [`Dev::stop`] or [`Dev::kill`], in the same directory and on the same ports.
    pub(crate) async fn start_again(&mut self) {
        let mut child = self.command().spawn().unwrap();
        let output = collect(&mut child);
        self.running = Some(Running { child, output });
        self.wait_for_output("Ctrl-C drains").await;
    }

    /// What another command prints, with the variables of dev.env.
    pub(crate) async fn asked(&self, arguments: &[&str], exports: &Exports) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        let output = command.args(arguments).envs(exports).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The command line.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        command
            .arg("dev")
            .args(["--gateway-port", &self.gateway_port.to_string(), "--admin-port", &self.admin_port.to_string()])
            .args(&self.arguments)
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true);
        command
    }

    /// Everything it has printed.
    pub(crate) fn output(&self) -> String {
        self.running.as_ref().expect("it runs").output.borrow().clone()
    }

    /// Waits until it has printed `text`.
    pub(crate) async fn wait_for_output(&mut self, text: &str) {
        let output = &mut self.running.as_mut().expect("it runs").output;
        let seen = tokio::time::timeout(READY_MAX, output.wait_for(|output| output.contains(text)));
        let seen = matches!(seen.await, Ok(Ok(_)));
        assert!(seen, "it never printed {text:?}, but:\n{}", self.output());
    }

    /// dev.env as it is now.
    pub(crate) fn exports(&self) -> Exports {
        let text = std::fs::read_to_string(self.dir.join(".tollgate/dev.env")).unwrap();
        let lines = text.lines().filter_map(|line| line.strip_prefix("export ")?.split_once('='));
        lines.map(|(name, value)| (name.to_owned(), value.trim_matches('\'').to_owned())).collect()
    }

    /// The processes of the nodes.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.exports()["NODE_PIDS"].split(' ').map(|pid| pid.parse().unwrap()).collect()
    }

    /// A client of node `number`'s gateway with the API key.
    pub(crate) fn gateway(&self, number: u16) -> Client {
        self.gateway_as(number, &self.exports()["API_KEY"])
    }

    /// The same with another key.
    pub(crate) fn gateway_as(&self, number: u16, key: &str) -> Client {
        Client::plain(&format!("http://127.0.0.1:{}", self.gateway_port + number - 1), key)
    }

    /// A client of node `number`'s admin API with `token`.
    pub(crate) fn admin_as(&self, number: u16, token: &str) -> Client {
        let url = format!("https://127.0.0.1:{}", self.admin_port + number - 1);
        Client::tls(&url, token, &self.dir.join(".tollgate/tls/ca.crt"))
    }

    /// The same as the administrator.
    pub(crate) fn admin(&self, number: u16) -> Client {
        self.admin_as(number, &self.exports()["OCP_TOKEN"])
    }

    /// Asks it to stop, as Ctrl-C does, and waits for its end. Returns whether it ended well.
    pub(crate) async fn stop(&mut self) -> bool {
        let mut running = self.running.take().expect("it runs");
        signal("INT", running.child.id().unwrap());
        let ended = tokio::time::timeout(Duration::from_secs(30), running.child.wait()).await;
        ended.expect("it ends").unwrap().success()
    }
}

impl Drop for Dev {
    /// Nodes end with their parent. A failed test leaves its directory to be looked at.
    fn drop(&mut self) {
        self.running.take();
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// `kill -<name> <pid>`.
pub(crate) fn signal(name: &str, pid: u32) {
    let status = std::process::Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().unwrap();
    assert!(status.success(), "kill -{name} {pid}");
}

/// A short chat call's body.
pub(crate) fn chat(words: &str, max_tokens: u32) -> Value {
    json!({"model": "gpt-oss-20b", "messages": [{"role": "user", "content": words}], "max_tokens": max_tokens})
}

/// Where chat calls go.
pub(crate) const CHAT: &str = "/gpt-oss-model/gpt-oss-20b/v1/chat/completions";

/// Reads what it prints as it comes.
fn collect(child: &mut Child) -> watch::Receiver<String> {
    let (output, seen) = watch::channel(String::new());
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            output.send_modify(|output| {
                output.push_str(&line);
                output.push('\n');
            });
        }
    });
    seen
}

/// The first of twenty free ports in a row.
pub(crate) async fn free_ports() -> u16 {
    #[expect(clippy::disallowed_methods, reason = "tests that run at once must not choose alike")]
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let start = u64::from(now.subsec_micros()) + u64::from(std::process::id()) * 20;
    for attempt in 0..200 {
        let first = u16::try_from(10_000 + (start + attempt * 20) % 9_000 / 20 * 20).unwrap();
        let mut held = Vec::new();
        for port in first..first + 20 {
            if let Ok(listener) = TokioNet.listen(&format!("127.0.0.1:{port}")).await {
                held.push(listener);
            }
        }
        if held.len() == 20 {
            return first;
        }
    }
    panic!("no twenty free ports in a row");
}
