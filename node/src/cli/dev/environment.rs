//! What a shell needs to use the running nodes: `dev.env` and a kubeconfig. Both hold secrets: mode 0600.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use raft::doors::Chance;

use super::super::exit::Failure;
use super::plan::Plan;
use super::seeding::Seeded;
use crate::files;

/// The exports of an earlier run.
pub(super) type Exports = BTreeMap<String, String>;

/// The administrator's token: from its file, or new. Every node is pointed at the same file.
pub(super) fn admin_token(plan: &Plan, chance: &dyn Chance) -> Result<String, Failure> {
    let file = plan.admin_token_file();
    let mut bytes = [0; 32];
    chance.fill(&mut bytes);
    files::create_secret(&file, &URL_SAFE_NO_PAD.encode(bytes))
        .and_then(|_| std::fs::read_to_string(&file))
        .map(|token| token.trim().to_owned())
        .map_err(|error| Failure::unavailable(format!("{}: {error}", file.display())))
}

/// `<data-dir>/dev.env`.
pub(super) fn file(plan: &Plan) -> PathBuf {
    plan.data_dir.join("dev.env")
}

/// What an earlier run wrote; `None` if there was none that got so far.
pub(super) fn read(plan: &Plan) -> Option<Exports> {
    let text = std::fs::read_to_string(file(plan)).ok()?;
    Some(parse(&text))
}

fn parse(text: &str) -> Exports {
    let lines = text.lines().filter_map(|line| line.strip_prefix("export ")?.split_once('='));
    lines.map(|(name, value)| (name.to_owned(), value.trim_matches('\'').replace("'\\''", "'"))).collect()
}

fn render(exports: &Exports) -> String {
    let mut text = "# Written by `tollgate dev`. The key and the tokens in here are secrets.\n".to_owned();
    for (name, value) in exports {
        let _ = writeln!(text, "export {name}='{}'", value.replace('\'', "'\\''"));
    }
    text
}

/// Writes `dev.env` and the kubeconfig.
pub(super) fn write(plan: &Plan, admin_token: &str, seeded: &Seeded, pids: &[u32]) -> Result<(), Failure> {
    let kubeconfig = plan.data_dir.join("kubeconfig");
    let ca = plan.tls_dir().join("ca.crt");
    let unwritten =
        |path: &PathBuf, error: std::io::Error| Failure::unavailable(format!("{}: {error}", path.display()));
    let authority = std::fs::read(&ca).map_err(|error| unwritten(&ca, error))?;
    files::replace(&kubeconfig, &kubeconfig_text(plan, &authority, admin_token), true)
        .map_err(|error| unwritten(&kubeconfig, error))?;
    let urls: Vec<String> = plan.nodes.iter().map(|node| node.gateway_url()).collect();
    let exports = [
        ("MAAS_URL", plan.maas_url()),
        ("OCP_TOKEN", admin_token.to_owned()),
        ("USER_TOKEN", seeded.user_token.clone()),
        ("API_KEY", seeded.key.secret.clone()),
        ("API_KEY_ID", seeded.key.id.clone()),
        ("AGENT_API_KEY", seeded.agent_key.secret.clone()),
        ("AGENT_API_KEY_ID", seeded.agent_key.id.clone()),
        ("OPENAI_API_KEY", seeded.key.secret.clone()),
        ("MODEL_NAME", plan.model.name.clone()),
        ("MODEL_ENDPOINT", model_endpoint(plan)),
        ("KUBECONFIG", kubeconfig.display().to_string()),
        ("MAAS_ADMIN_URL", plan.nodes[0].admin_url()),
        ("MAAS_ADMIN_CA", ca.display().to_string()),
        ("MAAS_ADMIN_TOKEN_FILE", plan.admin_token_file().display().to_string()),
        ("NODE_PIDS", join(pids)),
        ("NODE_URLS", urls.join(" ")),
    ];
    let exports = exports.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let file = file(plan);
    files::replace(&file, &render(&exports), true).map_err(|error| unwritten(&file, error))
}

/// Another process is a node now. A failure is worth a line, not an end.
pub(super) fn refresh_pids(plan: &Plan, pids: &[u32]) {
    let Some(mut exports) = read(plan) else { return };
    exports.insert("NODE_PIDS".to_owned(), join(pids));
    if let Err(error) = files::replace(&file(plan), &render(&exports), true) {
        eprintln!("tollgate: {}: {error}", file(plan).display());
    }
}

/// What an agent is given as its endpoint.
pub(super) fn model_endpoint(plan: &Plan) -> String {
    format!("{}/{}/{}/v1", plan.maas_url(), plan.model.namespace, plan.model.name)
}

fn join(pids: &[u32]) -> String {
    pids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
}

/// One context per node, the first one current.
fn kubeconfig_text(plan: &Plan, authority: &[u8], token: &str) -> String {
    let authority = STANDARD.encode(authority);
    let (mut clusters, mut contexts) = (String::new(), String::new());
    for node in &plan.nodes {
        let (name, url) = (format!("node-{}", node.id), node.admin_url());
        let _ = write!(
            clusters,
            "- name: {name}\n  cluster:\n    server: {url}\n    certificate-authority-data: {authority}\n"
        );
        let _ = write!(
            contexts,
            "- name: {name}\n  context:\n    cluster: {name}\n    user: admin\n    namespace: models-as-a-service\n"
        );
    }
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: node-1\nclusters:\n{clusters}contexts:\n{contexts}users:\n\
         - name: admin\n  user:\n    token: {token}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exports_are_read_as_they_were_written() {
        let exports: Exports = [("A", "plain"), ("B", "two words"), ("C", "it's"), ("D", "")]
            .map(|(n, v)| (n.to_owned(), v.to_owned()))
            .into();
        assert_eq!(parse(&render(&exports)), exports);
    }
}
