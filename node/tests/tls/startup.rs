//! `tollgate serve` with TLS files that cannot be used: one line that names the section, the file and what is wrong with it.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use raft::doors::{Clock, SystemClock};
use tokio::process::Command;

use crate::world::Directory;

const NO_FILE: &str = "cannot be read: No such file or directory (os error 2)";
const NO_CERTIFICATE: &str = "has no certificate: it must have a block that begins with -----BEGIN CERTIFICATE-----";
const NO_KEY: &str =
    "has no private key: it must have a block that begins with -----BEGIN PRIVATE KEY-----, which is not encrypted";
const NO_END: &str = "is not PEM: a block has no end; were line breaks lost?";
const MORE: &str = "is not PEM: a line that begins a block has more in it; were line breaks lost?";
const STRANGERS: &str = "does not belong to the private key two.key: name two files that were issued together";

/// What it says, without the directory's name, and how it ends. No port of this machine is in its way.
async fn serve(directory: &Path, configuration: &str) -> (String, Option<i32>) {
    let file = directory.join("tollgate.toml");
    std::fs::write(&file, configuration).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(["serve", "--config"]).arg(&file).stdin(Stdio::null()).env("TOLLGATE_LOG_FILTER", "error");
    command.kill_on_drop(true);
    for port in ["GATEWAY", "ADMIN", "PEERS"] {
        command.env(format!("TOLLGATE_{port}_LISTEN"), "127.0.0.1:0");
    }
    let ended = tokio::time::timeout(Duration::from_secs(30), command.output()).await;
    let output = ended.unwrap_or_else(|_| panic!("it started all the same with {configuration}")).unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    (said.replace(&format!("{}/", directory.display()), ""), output.status.code())
}

/// What is wrong is said without a word of the file: it may hold a key.
#[tokio::test]
async fn a_tls_file_that_cannot_be_used_is_named_with_its_section_and_what_is_wrong() {
    let directory = Directory::new("startup");
    let authority = directory.authority("");
    for name in ["one", "two"] {
        authority.issue(name, &["localhost"], SystemClock.wall()).unwrap();
    }
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    let key = std::fs::read_to_string(directory.path().join("one.key")).unwrap();
    write("folded.key", &key.replace('\n', " "));
    write("torn.key", &key.replace('\n', " ")[..60]);
    write("encrypted.key", &key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"));
    write("cut.crt", "-----BEGIN CERTIFICATE-----\nMIIB\n");
    let cases = [
        ("gateway", "none.crt", "one.key", "none.crt", NO_FILE),
        ("gateway", "one.crt", "none.key", "none.key", NO_FILE),
        ("gateway", "one.key", "one.key", "one.key", NO_CERTIFICATE),
        ("gateway", "cut.crt", "one.key", "cut.crt", NO_END),
        ("gateway", "one.crt", "encrypted.key", "encrypted.key", NO_KEY),
        ("gateway", "one.crt", "folded.key", "folded.key", NO_END),
        ("gateway", "one.crt", "torn.key", "torn.key", MORE),
        ("gateway", "folded.key", "one.key", "folded.key", NO_END),
        ("gateway", "one.crt", "two.key", "one.crt", STRANGERS),
        ("admin", "none.crt", "one.key", "none.crt", NO_FILE),
        ("peers", "one.crt", "none.key", "none.key", NO_FILE),
    ];
    let expect = async |section: &str, keys: &str, wrong: &str| {
        let (said, code) = serve(directory.path(), &format!("[{section}]\n{keys}")).await;
        assert_eq!(said, format!("tollgate: TLS of [{section}] in the configuration: {wrong}\n"));
        assert_eq!(code, Some(64), "{said}");
    };
    for (section, certificate, key, file, wrong) in cases {
        let ca = if section == "peers" { "ca = \"ca.crt\"\n" } else { "" };
        let keys = format!("{ca}certificate = \"{certificate}\"\nkey = \"{key}\"\n");
        expect(section, &keys, &format!("{file}: {wrong}")).await;
    }
    expect(
        "peers",
        "ca = \"none.crt\"\ncertificate = \"one.crt\"\nkey = \"one.key\"\n",
        &format!("none.crt: {NO_FILE}"),
    )
    .await;
    expect("upstream", "ca = \"one.key\"\n", &format!("one.key: {NO_CERTIFICATE}")).await;
}
