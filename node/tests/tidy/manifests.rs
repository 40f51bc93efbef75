//! The manifests agree with the product: the configuration in them is one, and every file it names is mounted.

use std::collections::BTreeMap;
use std::path::Path;

use node::config::{Config, Files};
use raft::NodeId;

const MANIFEST: &str = include_str!("../../../deploy/kubernetes/tollgate.yaml");
const SECRETS: &str = include_str!("../../../deploy/kubernetes/secrets.example.yaml");

/// The lines below `tollgate.toml: |`, without their indentation.
fn configuration() -> String {
    let (_, below) = MANIFEST.split_once("tollgate.toml: |\n").expect("the ConfigMap has the file");
    let lines = below.lines().take_while(|line| line.starts_with("    "));
    lines.map(|line| format!("{}\n", line.trim_start())).collect()
}

fn config_of(node: u32) -> Config {
    let environment = BTreeMap::from([("TOLLGATE_NODE_ID".to_owned(), node.to_string())]);
    Config::parse(&configuration(), Path::new("/etc/tollgate"), &environment).expect("it is a configuration")
}

#[test]
fn every_pod_has_a_configuration_and_is_a_member_by_the_name_of_its_service() {
    let replicas = MANIFEST.lines().find_map(|line| line.strip_prefix("  replicas: ")).expect("a StatefulSet");
    let replicas: u32 = replicas.parse().expect("a number");
    for node in 1..=replicas {
        let config = config_of(node);
        assert_eq!(config.node.id, NodeId(node.into()));
        assert_eq!(config.cluster.members.len() as u32, replicas);
        let member = &config.cluster.members[&config.node.id];
        assert_eq!(member, &format!("tollgate-{node}.tollgate-peers.tollgate.svc:7443"));
    }
}

#[test]
fn the_ports_are_those_that_the_configuration_opens() {
    let config = config_of(1);
    for (name, address) in
        [("gateway", &config.gateway.listen), ("admin", &config.admin.listen), ("peers", &config.peers.listen)]
    {
        let (host, port) = address.rsplit_once(':').expect("host:port");
        assert_eq!(host, "0.0.0.0", "{name}");
        assert!(MANIFEST.contains(&format!("- {{ name: {name}, containerPort: {port} }}")), "{name} {port}");
    }
}

#[test]
fn every_file_of_the_configuration_is_in_a_secret_that_is_mounted() {
    let config = config_of(1);
    let (ca, peers) = config.peers.files.expect("peers show certificates");
    let mut files = vec![ca, config.admin.bootstrap_token_file];
    for Files { certificate, key } in [Some(peers), config.gateway.tls, config.admin.tls].into_iter().flatten() {
        files.extend([certificate, key]);
    }
    assert_eq!(files.len(), 8, "every port has TLS");
    for file in files {
        let directory = file.parent().expect("a directory").display();
        let mount = MANIFEST.lines().find(|line| line.contains(&format!("mountPath: {directory}, readOnly: true")));
        let volume = mount.and_then(|line| line.split_once("name: ")?.1.split_once(',')).expect("it is mounted").0;
        let (_, source) = MANIFEST.split_once(&format!("- name: {volume}\n")).expect("the volume is declared");
        let secret = source.split_once("secretName: ").and_then(|(_, rest)| rest.split_once(' ')).expect("a Secret").0;
        let (_, held) = SECRETS.split_once(&format!("name: {secret}\n")).expect("the Secret is explained");
        let held = held.split("\n---").next().unwrap_or_default();
        let name = file.file_name().expect("a name").to_string_lossy();
        assert!(held.contains(&format!("\n  {name}: ")), "{} is not in the Secret {secret}", file.display());
    }
    assert!(MANIFEST.contains(&format!("mountPath: {} }}", config.node.data_dir.display())), "the data directory");
}
