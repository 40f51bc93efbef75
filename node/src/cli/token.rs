//! `tollgate token`: which bearer tokens work, and how one is withdrawn.

use clap::Subcommand;
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::admin_port::Asker;
use super::exit::Failure;
use super::table;

const TOKENS: &str = "/apis/tollgate.dev/v1/tokens";

/// List bearer tokens, or revoke one
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    List(List),
    Revoke(Revoke),
}

/// Print every bearer token that works, administrators' and ServiceAccounts': never the token itself
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  source .tollgate/dev.env
  tollgate token list

ID is what `tollgate token revoke` takes. The same: kubectl get tokens.")]
struct List {
    #[command(flatten)]
    asker: Asker,
}

/// End a bearer token for ever; answered when no node accepts it any more
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tollgate token revoke 6f9619ff8b86d011b42d

API keys that were made with the token go on: revoke them, or delete the ServiceAccount that owns them. An
administrator's token that is revoked works never again, also if admin.bootstrap_token_file still has it.
The same: kubectl delete token ID.")]
struct Revoke {
    /// The token's id: never the token, which others could see on a command line
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    asker: Asker,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    match args.verb {
        Verb::List(list) => print!("{}", shown(&list.asker.get(TOKENS).await?.body)),
        Verb::Revoke(revoke) => {
            let path = format!("{TOKENS}/{}", utf8_percent_encode(&revoke.id, NON_ALPHANUMERIC));
            revoke.asker.ask(Method::DELETE, &path).await?;
            println!("token {} is revoked", revoke.id);
        }
    }
    Ok(())
}

/// A TokenList as a table.
fn shown(list: &Value) -> String {
    let mut rows = vec![["ID", "USER", "CREATED", "EXPIRES", "LAST USED", "OWN GROUPS"].map(str::to_owned)];
    for token in list["items"].as_array().into_iter().flatten() {
        let (metadata, spec) = (&token["metadata"], &token["spec"]);
        let text = |value: &Value, absent: &str| value.as_str().unwrap_or(absent).to_owned();
        let groups = spec["groups"].as_array().into_iter().flatten().filter_map(Value::as_str);
        rows.push([
            text(&metadata["name"], "-"),
            text(&spec["user"], "-"),
            text(&metadata["creationTimestamp"], "unknown"),
            text(&spec["expirationTimestamp"], "never"),
            text(&token["status"]["lastUsedTimestamp"], "never"),
            groups.collect::<Vec<_>>().join(", "),
        ]);
    }
    table::aligned(&rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_is_a_line() {
        let list = json!({"items": [
            {
                "metadata": {"name": "0123456789abcdef0123", "creationTimestamp": null},
                "spec": {"user": "admin", "groups": ["system:masters"], "expirationTimestamp": null},
                "status": {"lastUsedTimestamp": "2026-11-22T12:00:00Z"},
            },
            {
                "metadata": {"name": "f1", "creationTimestamp": "2026-11-22T11:00:00Z"},
                "spec": {"user": "ann", "groups": [], "expirationTimestamp": "2026-11-23T11:00:00Z"},
                "status": {"lastUsedTimestamp": null},
            },
        ]});
        let page = "\
ID                    USER   CREATED               EXPIRES               LAST USED             OWN GROUPS
0123456789abcdef0123  admin  unknown               never                 2026-11-22T12:00:00Z  system:masters
f1                    ann    2026-11-22T11:00:00Z  2026-11-23T11:00:00Z  never
";
        assert_eq!(shown(&list), page);
    }
}
