//! One node: what a person finds after `tollgate dev`, and after a restart.

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use serde_json::json;

use crate::run::{CHAT, Dev, chat};

#[tokio::test(flavor = "multi_thread")]
async fn everything_works_without_setting_anything_up() {
    let mut dev = Dev::start("one", &[]).await;

    // The page names what was set up, and shows the key.
    let exports = dev.exports();
    let page = dev.output();
    for wanted in [
        &exports["API_KEY"],
        &exports["AGENT_API_KEY"],
        &exports["MAAS_URL"],
        "source .tollgate/dev.env",
        "kubectl get maassubscriptions",
        "ANTHROPIC_AUTH_TOKEN=$AGENT_API_KEY",
        "codex -m $MODEL_NAME",
        "OPENAI_BASE_URL=$MODEL_ENDPOINT",
    ] {
        assert!(page.contains(wanted), "the page does not say {wanted}:\n{page}");
    }

    // dev.env is complete, and nobody else may read it.
    let names: Vec<&str> = exports.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "AGENT_API_KEY",
            "AGENT_API_KEY_ID",
            "API_KEY",
            "API_KEY_ID",
            "KUBECONFIG",
            "MAAS_ADMIN_CA",
            "MAAS_ADMIN_TOKEN_FILE",
            "MAAS_ADMIN_URL",
            "MAAS_URL",
            "MODEL_ENDPOINT",
            "MODEL_NAME",
            "NODE_PIDS",
            "NODE_URLS",
            "OCP_TOKEN",
            "OPENAI_API_KEY",
            "USER_TOKEN",
        ]
    );
    assert_eq!(exports["MAAS_URL"], format!("http://127.0.0.1:{}", dev.gateway_port));
    assert_eq!(exports["MODEL_ENDPOINT"], format!("{}/gpt-oss-model/gpt-oss-20b/v1", exports["MAAS_URL"]));
    assert!(exports["API_KEY"].starts_with("sk-oai-"));
    assert_eq!(exports["API_KEY"], exports["OPENAI_API_KEY"]);
    for secret in ["dev.env", "kubeconfig", "admin.token", "tls/ca.key", "tls/server.key"] {
        let mode = std::fs::metadata(dev.dir.join(".tollgate").join(secret)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{secret}");
    }

    // The key opens the model, and nothing else does.
    let answer = dev.gateway(1).post(CHAT, &chat("What is the derivative of x^3?", 20)).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text);
    let message = &answer.json()["choices"][0]["message"];
    assert!(message["content"].is_string() || message["reasoning"].is_string(), "{}", answer.text);
    let wrong = crate::client::Client::plain(&exports["MAAS_URL"], "sk-oai-invalid-key-12345");
    assert_eq!(wrong.post(CHAT, &chat("hello", 5)).await.unwrap().status, 403);

    // Where that call's limits stand is a command away.
    let (id, name) = (&*exports["API_KEY_ID"], &*exports["MODEL_NAME"]);
    let explain = dev.asked(&["quota", "explain", "--key", id, "--model", name], &exports).await;
    let line = explain.lines().find(|line| line.starts_with("50000 total per 1h")).unwrap_or_default();
    assert!(explain.starts_with(&format!("key {} of ", exports["API_KEY_ID"])), "{explain}");
    let cells: Vec<&str> = line.split("  ").filter(|cell| !cell.is_empty()).map(str::trim).collect();
    assert!(cells.len() == 8 && cells[6].ends_with('Z'), "{explain}");
    assert!(!explain.contains(&exports["API_KEY"]), "{explain}");

    // So is what it used, to the token.
    let total = answer.json()["usage"]["total_tokens"].as_u64().unwrap();
    let mut export = String::new();
    for _ in 0..100 {
        export = dev.asked(&["usage", "export", "--by", "key,model"], &exports).await;
        if export.lines().count() == 2 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let cells: Vec<&str> = export.lines().last().unwrap_or_default().split(',').collect();
    assert_eq!((cells[3], cells[8], cells[14]), (id, "1", &*total.to_string()), "{export}");

    // The user's token makes keys; the administrator's sees resources.
    let body = json!({"name": "mine", "subscription": "calculus-dev"});
    let made = dev.admin_as(1, &exports["USER_TOKEN"]).post("/maas-api/v1/api-keys", &body).await.unwrap();
    assert_eq!(made.status, 201, "{}", made.text);
    let path = "/apis/maas.opendatahub.io/v1alpha1/namespaces/models-as-a-service/maassubscriptions/calculus-dev";
    let subscription = dev.admin(1).get(path).await.unwrap();
    assert_eq!(subscription.json()["status"]["phase"], "Active", "{}", subscription.text);

    assert!(dev.stop().await, "Ctrl-C ends it well");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_the_key_the_tokens_the_usage_and_what_was_changed() {
    const GROUP: &str = "/apis/user.openshift.io/v1/groups/calculus-users";
    const POLICY: &str =
        "/apis/maas.opendatahub.io/v1alpha1/namespaces/models-as-a-service/maasauthpolicies/calculus-dev-access";
    let mut dev = Dev::start("restart", &["--replicas", "1"]).await;
    let before = dev.exports();
    let first = dev.gateway(1).post(CHAT, &chat("hello", 30)).await.unwrap();
    assert_eq!(first.status, 200, "{}", first.text);
    let used = first.json()["usage"]["total_tokens"].as_u64().unwrap();
    let users = json!({"users": ["admin", "kube:admin", "system:serviceaccount:models-as-a-service:developer"]});
    let patched = dev.admin(1).call("PATCH", GROUP, Some(&users)).await.unwrap();
    assert_eq!(patched.status, 200, "{}", patched.text);

    assert!(dev.stop().await);
    dev.start_again().await;

    // Same credentials, and the page does not show the key again.
    let after = dev.exports();
    for name in ["AGENT_API_KEY", "API_KEY", "OCP_TOKEN", "USER_TOKEN", "MODEL_ENDPOINT"] {
        assert_eq!(before[name], after[name], "{name}");
    }
    for key in ["API_KEY", "AGENT_API_KEY"] {
        assert!(!dev.output().contains(&after[key]), "{key}");
    }
    // What was changed stays changed.
    let group = dev.admin(1).get(GROUP).await.unwrap();
    assert_eq!(group.json()["users"], users["users"], "{}", group.text);
    assert_eq!(dev.admin(1).get(POLICY).await.unwrap().status, 200);
    // What was used stays used: the second call's answer counts both.
    let second = dev.gateway(1).post(CHAT, &chat("hello", 30)).await.unwrap();
    assert_eq!(second.status, 200, "{}", second.text);
    let remaining = second.number("x-ratelimit-remaining-tokens").unwrap();
    assert!(remaining <= 50_000 - used, "{remaining} remain although {used} were used before the restart");
    assert!(dev.stop().await);
}

/// What Claude Code sends on its first turn: some 20,000 tokens of instructions and tools, and `max_tokens` of 32,000.
#[tokio::test(flavor = "multi_thread")]
async fn the_key_for_coding_agents_has_room_for_their_calls() {
    let mut dev = Dev::start("agents", &["--replicas", "1"]).await;
    let exports = dev.exports();
    let agent = dev.gateway_as(1, &exports["AGENT_API_KEY"]);
    let instructions = "Read the file before you edit it, and run its tests afterwards. ".repeat(1_300);
    let call = json!({
        "model": exports["MODEL_NAME"], "max_tokens": 32_000, "system": instructions, "stream": false,
        "messages": [{"role": "user", "content": "What is in this directory?"}],
        // The simulated model would go on for the length it drew; a short answer keeps the test short.
        "stop_sequences": ["."],
    });
    for _ in 0..3 {
        let answer = agent.post("/v1/messages", &call).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text);
        let usage = &answer.json()["usage"];
        let prompt: u64 = ["input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"]
            .iter()
            .filter_map(|field| usage[field].as_u64())
            .sum();
        assert!(prompt > 15_000, "the call was to be as large as an agent's: {usage}");
    }
    assert!(dev.stop().await);
}

/// A data directory from before there were coding agents gets their key at its next start.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_data_directory_gets_what_is_new() {
    let mut dev = Dev::start("older", &["--replicas", "1"]).await;
    assert!(dev.stop().await);
    let file = dev.dir.join(".tollgate/dev.env");
    let exports = std::fs::read_to_string(&file).unwrap();
    let older: String =
        exports.lines().filter(|line| !line.contains("AGENT_")).map(|line| format!("{line}\n")).collect();
    std::fs::write(&file, older).unwrap();
    dev.start_again().await;
    let agent = dev.gateway_as(1, &dev.exports()["AGENT_API_KEY"]);
    let answer = agent.post(CHAT, &chat("hello", 5)).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(dev.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_said_in_one_line() {
    let dev = Dev::start("taken", &["--replicas", "1"]).await;
    let mut command = dev.command();
    let output = command.args(["--data-dir", "other"]).stderr(Stdio::piped()).output().await.unwrap();
    let said = format!("tollgate: port {} is taken: choose another with --gateway-port", dev.gateway_port);
    assert_eq!(String::from_utf8_lossy(&output.stderr).trim(), said);
    assert_eq!(output.status.code(), Some(69));
}
