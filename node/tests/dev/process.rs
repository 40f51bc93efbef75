//! What a started process may leave on a disk when it crashes: nothing, unless it is allowed.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use crate::run::{free_ports, signal};

/// The soft and the hard limit of core files, in `/proc/<pid>/limits`.
fn core_limits(pid: &str) -> Vec<String> {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    line.split_whitespace().take(2).map(str::to_owned).collect()
}

/// A process that serves, and its data directory's pid file.
async fn start(directory: &Path, verb: &[&str], pid_file: &str, core_dumps: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(verb).current_dir(directory).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    for port in ["GATEWAY", "ADMIN", "PEERS"] {
        command.env(format!("TOLLGATE_{port}_LISTEN"), "127.0.0.1:0");
    }
    let child = command.env("TOLLGATE_NODE_CORE_DUMPS", core_dumps).spawn().unwrap();
    for _ in 0..9_000 {
        if directory.join(pid_file).exists() {
            return child;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{verb:?} does not serve");
}

#[tokio::test]
async fn a_crash_leaves_no_memory_on_a_disk_unless_it_is_allowed() {
    let inherited = core_limits("self");
    let none = vec!["0".to_owned(); 2];
    let port = free_ports().await;
    let (gateway, admin) = (port.to_string(), (port + 10).to_string());
    let dev = ["dev", "--replicas", "1", "--gateway-port", &gateway, "--admin-port", &admin];
    let cases = [
        (&["serve", "--config", "tollgate.toml"][..], "data/pid", "false", &none),
        (&["serve", "--config", "tollgate.toml"][..], "data/pid", "true", &inherited),
        (&dev[..], ".tollgate/node-1/pid", "false", &none),
    ];
    for (number, (verb, pid_file, core_dumps, expected)) in cases.into_iter().enumerate() {
        let directory = std::env::temp_dir().join(format!("tollgate-process-{number}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("tollgate.toml"), "").unwrap();
        let mut child = start(&directory, verb, pid_file, core_dumps).await;
        let pid = child.id().unwrap();
        assert_eq!(&core_limits(&pid.to_string()), expected, "{verb:?}, core_dumps = {core_dumps}");
        if core_dumps == "false" {
            signal("ABRT", pid);
            let ended = child.wait().await.unwrap();
            assert_eq!((ended.signal(), ended.core_dumped()), (Some(6), false), "{verb:?}");
        }
        drop(child);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
