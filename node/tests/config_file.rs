//! The configuration file: the example is complete and true, and every mistake is named with what would be right.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use node::config::Config;
use raft::NodeId;

const EXAMPLE: &str = include_str!("../../deploy/tollgate.example.toml");

fn parse(text: &str, environment: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let environment: BTreeMap<String, String> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Config::parse(text, Path::new("/etc/tollgate"), &environment)
        .map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
}

/// One line per case: what is written, and what is said of it.
fn check(cases: &[(&str, &[&str])]) {
    for (text, said) in cases {
        let mistakes = parse(text, &[]).expect_err(text);
        assert_eq!(mistakes, *said, "{text}");
    }
}

#[test]
fn an_empty_file_is_one_node_on_loopback() {
    let config = parse("", &[]).unwrap();
    assert_eq!(config.gateway.listen, "127.0.0.1:8080");
    assert_eq!(config.gateway.public_url, "http://127.0.0.1:8080");
    assert_eq!(config.admin.listen, "127.0.0.1:8443");
    assert_eq!(config.node.data_dir, Path::new("/etc/tollgate/data"));
    assert_eq!(config.admin.bootstrap_token_file, Path::new("/etc/tollgate/data/admin.token"));
    assert_eq!(config.cluster.members, BTreeMap::from([(NodeId(1), "127.0.0.1:7443".to_owned())]));
    assert_eq!(config.gateway.limits.body_max, 32 << 20);
}

#[test]
fn the_example_says_the_defaults() {
    let (example, empty) = (parse(EXAMPLE, &[]).unwrap(), parse("", &[]).unwrap());
    assert_eq!(format!("{example:#?}"), format!("{empty:#?}"));
}

/// A key that nobody knows makes the reader name the known ones: those are what the example must show.
#[test]
fn the_example_names_every_key() {
    let shown: BTreeSet<&str> = EXAMPLE
        .lines()
        .filter_map(|line| line.trim_start_matches("# ").split_once(" = "))
        .map(|(key, _)| key)
        .filter(|key| key.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        .collect();
    for section in ["cluster", "node", "peers", "gateway", "admin", "upstream", "probe", "quota", "log"] {
        let mistakes = parse(&format!("[{section}]\nxxxxxxxxxxxxxxxxxxxxxxxx = 1"), &[]).unwrap_err();
        let (_, known) = mistakes[0].split_once(": there are ").expect("the known keys");
        for key in known.split(", ").filter(|key| *key != "members") {
            assert!(shown.contains(key), "{section}.{key} is not in the example");
        }
    }
}

#[test]
fn values_carry_their_units_and_variables_win() {
    let text = "[gateway]\nlisten = \"0.0.0.0:80\"\nbody_max = \"1MiB\"\nidle_timeout = \"2m\"\n[node]\nid = 2\n[log]\nformat = \"json\"";
    let config = parse(text, &[("TOLLGATE_GATEWAY_BODY_MAX", "2GiB"), ("TOLLGATE_NODE_ID", "7")]).unwrap();
    assert_eq!(config.gateway.listen, "0.0.0.0:80");
    assert_eq!(config.gateway.limits.body_max, 2 << 30);
    assert_eq!(config.gateway.limits.idle_timeout, Duration::from_secs(120));
    assert_eq!(config.node.id, NodeId(7));
    assert_eq!(config.gateway.sse_keep_alive, None);
    let text = "[gateway]\nsse_keep_alive = \"15s\"";
    let kept = |environment| parse(text, environment).unwrap().gateway.sse_keep_alive.unwrap().as_secs();
    assert_eq!((kept(&[]), kept(&[("TOLLGATE_GATEWAY_SSE_KEEP_ALIVE", "1m")])), (15, 60));
}

#[test]
fn a_smaller_port_has_smaller_limits_and_proxies_are_a_list_or_a_variable() {
    let text = "[gateway]\nconnections_max = 100\ntrusted_proxies = [\"10.0.0.0/8\"]";
    let limits = parse(text, &[]).unwrap().gateway.limits;
    assert_eq!((limits.connections_per_address_max, limits.connections_unauthenticated_max), (100, 100));
    assert!(limits.trusted_proxies[0].contains([10, 1, 2, 3].into()));
    let limits = parse("", &[("TOLLGATE_ADMIN_TRUSTED_PROXIES", "192.0.2.1, 2001:db8::/32")]).unwrap().admin.limits;
    assert_eq!(limits.trusted_proxies.len(), 2);
}

#[test]
fn members_are_a_table_or_a_variable() {
    let tls = "[peers]\nca = \"ca.crt\"\ncertificate = \"/tls/peer.crt\"\nkey = \"peer.key\"\n";
    let from_file = parse(&format!("{tls}[cluster.members]\n1 = \"a:1\"\n2 = \"b:2\""), &[]).unwrap();
    let from_variable = parse(tls, &[("TOLLGATE_CLUSTER_MEMBERS", "1=a:1, 2=b:2")]).unwrap();
    assert_eq!(from_file.cluster, from_variable.cluster);
    let (ca, files) = from_file.peers.files.unwrap();
    assert_eq!(
        (ca.as_path(), files.certificate.as_path()),
        (Path::new("/etc/tollgate/ca.crt"), Path::new("/tls/peer.crt"))
    );
}

#[test]
fn a_node_that_joins_founds_nothing_and_shows_certificates_all_the_same() {
    let tls = "[peers]\nca = \"ca.crt\"\ncertificate = \"peer.crt\"\nkey = \"peer.key\"\n[node]\nid = 4\n";
    for (text, variables) in [
        (format!("{tls}[cluster]\njoin = true"), &[][..]),
        (format!("{tls}[cluster]\njoin = false"), &[("TOLLGATE_CLUSTER_JOIN", "true")]),
    ] {
        let config = parse(&text, variables).unwrap();
        assert!(config.cluster.join);
        assert_eq!((config.node.id, config.cluster.members), (NodeId(4), BTreeMap::new()));
    }
    assert!(!parse("", &[]).unwrap().cluster.join);
}

#[test]
fn mistakes_are_told_with_what_would_be_right() {
    const DURATION: &str = "is not a duration: write a whole number and a unit, such as \"10s\" (ms, s, m, h, d)";
    const SIZE: &str = "is not a size: write a whole number and a unit, such as \"32MiB\" (B, KiB, MiB, GiB)";
    const ADDRESS: &str = "is not an address: write host:port, such as \"127.0.0.1:8080\" or \"[::1]:8080\"";
    check(&[
        ("[gateway]\nidle_timeout = \"10\"", &[&format!("gateway.idle_timeout: \"10\" {DURATION}")]),
        ("[gateway]\nidle_timeout = 10", &[&format!("gateway.idle_timeout: 10 {DURATION}")]),
        ("[gateway]\nidle_timeout = \"10 parsecs\"", &[&format!("gateway.idle_timeout: \"10 parsecs\" {DURATION}")]),
        ("[gateway]\nidle_timeout = \"0s\"", &["gateway.idle_timeout: \"0s\" is too small: it must be above zero"]),
        ("[gateway]\nsse_keep_alive = \"30\"", &[&format!("gateway.sse_keep_alive: \"30\" {DURATION}")]),
        ("[gateway]\nsse_keep_alive = \"500ms\"", &["gateway.sse_keep_alive: 500ms is not within 1s and 600s"]),
        ("[gateway]\nsse_keep_alive = \"1h\"", &["gateway.sse_keep_alive: 3600s is not within 1s and 600s"]),
        ("[gateway]\nbody_max = \"32MB\"", &[&format!("gateway.body_max: \"32MB\" {SIZE}")]),
        (
            "[gateway]\nbody_max = \"99999999999999999999GiB\"",
            &[&format!("gateway.body_max: \"99999999999999999999GiB\" {SIZE}")],
        ),
        (
            "[gateway]\nheader_max = \"1KiB\"",
            &["gateway.header_max: is less than 8KiB: heads of ordinary clients would not fit"],
        ),
        (
            "[gateway]\ntrusted_proxies = [\"10.0.0.0/40\"]",
            &[
                "gateway.trusted_proxies: \"10.0.0.0/40\" is not a network: write an address or a prefix, such as \"10.0.0.7\" or \"10.0.0.0/8\"",
            ],
        ),
        (
            "[admin]\ntrusted_proxies = \"10.0.0.0/8\"",
            &[
                "admin.trusted_proxies: is \"10.0.0.0/8\": write a list of text, such as [\"10.0.0.0/8\", \"2001:db8::/32\"]",
            ],
        ),
        ("[gateway]\nframes_burst = 1", &["gateway.frames_burst: 1 is not a whole number from 100 to 1000000"]),
        ("[gateway]\nlisten = \"8080\"", &[&format!("gateway.listen: \"8080\" {ADDRESS}")]),
        ("[gateway]\nlisten = \"host:http\"", &[&format!("gateway.listen: \"host:http\" {ADDRESS}")]),
        ("[gateway]\nlisten = \"::1:80\"", &[&format!("gateway.listen: \"::1:80\" {ADDRESS}")]),
        ("[gateway]\nlisten = 8080", &["gateway.listen: is 8080: write text in quotes"]),
        ("[gateway]\nlisten = \"\"", &["gateway.listen: is empty: leave the key out to get its default"]),
        (
            "[gateway]\npublic_url = \"maas\"",
            &["gateway.public_url: \"maas\" is not a URL: write https://host or http://host:port"],
        ),
        (
            "[traces]\nendpoint = \"collector:4318\"",
            &["traces.endpoint: \"collector:4318\" is not a URL such as \"http://otel-collector:4318\""],
        ),
        (
            "[traces]\nendpoint = \"https://collector:4318\"",
            &["traces.ca: is missing: an https:// collector is known by who signs its certificate"],
        ),
        ("[gateway]\nkey = \"k\"", &["gateway.certificate: is missing: a private key needs its certificate"]),
        ("[gateway]\nlistne = \"a:1\"", &["gateway.listne: is not a key of [gateway]: did you mean `listen`?"]),
        ("[gatway]", &["[gatway]: is not a section: did you mean `gateway`?"]),
        (
            "[database]",
            &[
                "[database]: is not a section: there are admin, cluster, gateway, log, node, peers, probe, quota, traces, upstream",
            ],
        ),
        ("listen = 1", &["listen: stands outside a section: write it below one, such as [gateway]"]),
        ("[node]\nid = 0", &["node.id: 0 is not a whole number from 1 to 9223372036854775807"]),
        ("[node]\nid = \"one\"", &["node.id: \"one\" is not a whole number from 1 to 9223372036854775807"]),
        ("[log]\nformat = \"xml\"", &["log.format: \"xml\" is not one of \"auto\", \"text\", \"json\""]),
        (
            "[admin]\nlisten = \"0.0.0.0:8443\"",
            &[
                "admin.certificate: is missing: administrators' tokens must not cross a network in clear, and admin.listen is 0.0.0.0:8443",
            ],
        ),
        (
            "[peers]\nlisten = \"0.0.0.0:7443\"",
            &[
                "peers.certificate: is missing: without one anybody could speak as a node, and peers.listen is 0.0.0.0:7443",
            ],
        ),
        (
            "[cluster.members]\n2 = \"a:1\"",
            &["cluster.members: does not list this node, whose node.id is 1: add `1 = \"host:port\"`"],
        ),
        (
            "[cluster.members]\n1 = \"a:1\"\n2 = \"a:2\"",
            &[
                "peers.certificate: is missing: several nodes only talk over mutual TLS (give peers.ca, peers.certificate and peers.key)",
            ],
        ),
        ("[cluster]\njoin = \"yes\"", &["cluster.join: \"yes\" is not true or false"]),
        (
            "[cluster]\njoin = true",
            &[
                "peers.certificate: is missing: several nodes only talk over mutual TLS (give peers.ca, peers.certificate and peers.key)",
            ],
        ),
        (
            "[peers]\nca = \"a\"\ncertificate = \"c\"\nkey = \"k\"\n[cluster]\njoin = true\n[cluster.members]\n1 = \"a:1\"",
            &[
                "cluster.members: is who founds a cluster, and cluster.join = true says that this node joins one: leave one of them out",
            ],
        ),
        (
            "[cluster.members]\n1 = \"a:1\"\none = \"a:2\"",
            &["cluster.members: \"one\" is not a node's number: write 1, 2, 3, …"],
        ),
        (
            "[peers]\ncertificate = \"c\"\nkey = \"k\"",
            &["peers.ca: is missing: it says whose certificates other nodes must show"],
        ),
    ]);
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text =
        "[gateway]\nlisten = \"nowhere\"\nbody_max = \"much\"\n[quota]\nrecal_wait = \"1s\"\n[probe]\ninterval = true";
    let mistakes = parse(text, &[("TOLLGATE_NODE_ID", "-1"), ("TOLLGATE_NODE_DATA_DRI", "x")]).unwrap_err();
    let places: BTreeSet<&str> =
        mistakes.iter().filter_map(|mistake| mistake.split_once(": ")).map(|(place, _)| place).collect();
    let wanted = [
        "TOLLGATE_NODE_DATA_DRI",
        "TOLLGATE_NODE_ID",
        "gateway.body_max",
        "gateway.listen",
        "probe.interval",
        "quota.recal_wait",
    ];
    assert_eq!(places, wanted.into());
    assert!(
        mistakes
            .contains(&"TOLLGATE_NODE_DATA_DRI: is not a setting: did you mean `TOLLGATE_NODE_DATA_DIR`?".to_owned())
    );
}

#[test]
fn variables_that_an_orchestrator_sets_are_not_mistakes() {
    parse("", &[("TOLLGATE_SERVICE_HOST", "10.0.0.1"), ("TOLLGATE_PORT", "tcp://10.0.0.1:80")]).unwrap();
}

#[test]
fn a_file_that_is_not_toml_is_told_with_its_line() {
    let mistakes = parse("[gateway]\nlisten = \"a:1\"\nlisten 2", &[]).unwrap_err();
    assert_eq!(mistakes.len(), 1);
    assert!(mistakes[0].starts_with("line 3: is not TOML: "), "{}", mistakes[0]);
}
