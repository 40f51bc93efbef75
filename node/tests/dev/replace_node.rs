//! A node is lost with its disk, and another takes its place: what the README says, against real processes.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Child;
use tokio::time::{Instant, sleep};

use crate::client::{Answer, Client};
use crate::run::{CHAT, Dev, chat, signal};

const MEMBERS: &str = "/tollgate/v1/members";

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_node_is_taken_out_and_a_new_one_takes_its_place_while_calls_go_on() {
    let mut dev = Dev::start("replace", &["--nodes", "3", "--replicas", "1"]).await;
    let before = ids(&members(&dev.admin(1)).await);
    assert_eq!(before, [1, 2, 3]);

    // Node 3 is gone, disk and all. Another may take its place before or after it is taken out.
    let old = std::fs::read_to_string(dev.dir.join(".tollgate/node-3/tollgate.toml")).unwrap();
    signal("KILL", dev.pids()[2]);
    dev.wait_for_output("Node 3 ended").await;
    std::fs::remove_dir_all(dev.dir.join(".tollgate/node-3/raft")).unwrap();
    let out = done(dev.admin(2).call("DELETE", &format!("{MEMBERS}/3"), None).await);
    assert_eq!((ids(&out), out["retired"].clone()), (vec![1, 2], json!([3])));
    let again = done(dev.admin(1).call("DELETE", &format!("{MEMBERS}/3"), None).await);
    assert_eq!(again["retired"], json!([3]));
    let call = dev.gateway(1).post(CHAT, &chat("hello", 5)).await.unwrap();
    assert_eq!(call.status, 200, "{}", call.text);

    // Node 4 waits to be added, and says so.
    let newcomer = Newcomer::start(&dev, &old).await;
    newcomer.wait_for_readyz(&dev, "leader: no leader is known").await;
    let ready = dev.admin(4).get("/readyz").await.unwrap().text;
    assert!(ready.contains("member: this node has no vote yet") && ready.contains("lease: "), "{ready}");
    assert_eq!(dev.gateway(4).post(CHAT, &chat("hello", 5)).await.unwrap().status, 503);

    // Its number must be new.
    let used = dev.admin(1).post(MEMBERS, &json!({"id": 3, "address": newcomer.address})).await.unwrap();
    assert_eq!(used.status, 409, "{}", used.text);
    assert!(used.text.contains("number 3 is of a node that was taken out: use a new number"), "{}", used.text);
    let added = done(dev.admin(2).post(MEMBERS, &json!({"id": 4, "address": newcomer.address})).await);
    assert_eq!(ids(&added), [1, 2, 4]);
    let last = &added["members"][2];
    assert_eq!((&last["address"], &last["voter"]), (&json!(newcomer.address), &json!(true)));

    // It serves, and it counts: with another node gone there is still a majority.
    newcomer.wait_for_readyz(&dev, "ok").await;
    let answer = dev.gateway(4).post(CHAT, &chat("hello", 5)).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text);
    signal("KILL", dev.pids()[0]);
    let answer = dev.gateway(4).post(CHAT, &chat("hello", 5)).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(ids(&members(&dev.admin(4)).await), [1, 2, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_taken_out_while_it_runs_refuses_calls_at_once_and_stops_when_asked() {
    let mut dev = Dev::start("taken-out", &["--nodes", "3", "--replicas", "1"]).await;
    let members = members(&dev.admin(1)).await;
    let leads = members["members"].as_array().unwrap().iter().find(|member| member["leader"] == json!(true)).unwrap();
    let leader = u16::try_from(leads["id"].as_u64().unwrap()).unwrap();
    let other = if leader == 1 { 2 } else { 1 };

    // The one that leads, asked itself. It has a call in progress, which goes on.
    let (gateway, slow) = (dev.gateway(leader), chat("tell me a long story", 1000));
    let in_progress = tokio::spawn(async move { gateway.post(CHAT, &slow).await });
    sleep(Duration::from_millis(300)).await;
    let out = done(dev.admin(leader).call("DELETE", &format!("{MEMBERS}/{leader}"), None).await);
    assert!(!ids(&out).contains(&u64::from(leader)) && out["retired"] == json!([leader]), "{out}");
    assert!(!in_progress.is_finished());
    let refused = dev.gateway(leader).post(CHAT, &chat("hello", 5)).await.unwrap();
    assert_eq!(refused.status, 503, "{}", refused.text);
    let ready = dev.admin(leader).get("/readyz").await.unwrap();
    assert_eq!(ready.text, "retired: this node was taken out of the cluster: stop it\n");
    let asked = Instant::now();
    for (method, path, body) in
        [("GET", MEMBERS, Value::Null), ("POST", MEMBERS, json!({"id": 7, "address": "127.0.0.1:9"}))]
    {
        let refused = dev.admin(leader).call(method, path, Some(&body)).await.unwrap();
        assert_eq!(refused.status, 503, "{}", refused.text);
        assert!(refused.text.contains("this node was taken out of the cluster: ask another"), "{}", refused.text);
    }
    assert!(asked.elapsed() < Duration::from_secs(2), "it knows, so nobody waits: {:?}", asked.elapsed());

    // The rest goes on, and what was used at the node that is out is told to the others.
    let told = in_progress.await.unwrap().unwrap();
    assert_eq!(told.status, 200, "{}", told.text);
    let used = told.json()["usage"]["total_tokens"].as_u64().unwrap();
    let answer = dev.gateway(other).post(CHAT, &chat("hello", 5)).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text);
    let used = used + answer.json()["usage"]["total_tokens"].as_u64().unwrap();
    sleep(Duration::from_secs(1)).await;
    let path = format!("/tollgate/v1/quota?key={}&model=gpt-oss-20b", dev.exports()["API_KEY_ID"]);
    let told = dev.admin(other).get(&path).await.unwrap().json();
    assert_eq!(told["limits"][0]["used"], used, "{told}");

    let asked = Instant::now();
    assert!(dev.stop().await);
    assert!(asked.elapsed() < Duration::from_secs(5), "it drains: {:?}", asked.elapsed());
}

/// Node 4, started as an administrator would: node 3's file with another number, and `join`.
struct Newcomer {
    address: String,
    _process: Child,
}

impl Newcomer {
    async fn start(dev: &Dev, of_node_3: &str) -> Newcomer {
        let address = format!("127.0.0.1:{}", dev.gateway_port + 8);
        let dir: PathBuf = dev.dir.join(".tollgate/node-4");
        std::fs::create_dir_all(&dir).unwrap();
        let (kept, _) = of_node_3.split_once("[cluster]").expect("a section");
        let mut text = String::new();
        let mut section = "";
        for line in kept.lines() {
            let line = line.replace("node-3", "node-4");
            section = line.strip_prefix('[').map_or(section, |_| match line.as_str() {
                "[peers]" => "peers",
                "[gateway]" => "gateway",
                "[admin]" => "admin",
                _ => "",
            });
            text += &match (section, line.split_once(" = ")) {
                (_, Some(("id", _))) => "id = 4".to_owned(),
                ("peers", Some(("listen", _))) => format!("listen = \"{address}\""),
                ("gateway", Some(("listen", _))) => format!("listen = \"127.0.0.1:{}\"", dev.gateway_port + 3),
                ("admin", Some(("listen", _))) => format!("listen = \"127.0.0.1:{}\"", dev.admin_port + 3),
                _ => line,
            };
            text.push('\n');
        }
        text += "[cluster]\nname = \"dev\"\njoin = true\n";
        let file = dir.join("tollgate.toml");
        std::fs::write(&file, text).unwrap();
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tollgate"));
        let process = command.arg("serve").arg("--config").arg(&file).kill_on_drop(true).spawn().unwrap();
        Newcomer { address, _process: process }
    }

    async fn wait_for_readyz(&self, dev: &Dev, text: &str) {
        let started = Instant::now();
        loop {
            let answer = dev.admin(4).get("/readyz").await;
            if answer.as_ref().is_ok_and(|answer| answer.text.contains(text)) {
                return;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "/readyz never said {text:?}, but {answer:?}");
            sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn members(admin: &Client) -> Value {
    done(admin.get(MEMBERS).await)
}

fn done(answer: Result<Answer, String>) -> Value {
    let answer = answer.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

fn ids(members: &Value) -> Vec<u64> {
    members["members"].as_array().unwrap().iter().map(|member| member["id"].as_u64().unwrap()).collect()
}
