//! `tollgate quota`: where limits stand.

use clap::Subcommand;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::admin_port::Asker;
use super::exit::Failure;
use super::table;

/// Say where limits stand
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Explain(Explain),
}

/// Print every limit that applies to a key's calls to a model, and where it stands on which node
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  source .tollgate/dev.env
  tollgate quota explain --key 6f9619ff-8b86-d011-b42d-00cf4fc964ff --model gpt-oss-20b

USED is what calls have used in the window, HELD what nodes hold for calls now and to come, FREE what no node
holds. What a killed node held is orphaned until its next incarnation tells, or until the window ends.")]
struct Explain {
    /// The key's id: never its secret, which others could see on a command line
    #[arg(long, value_name = "ID")]
    key: String,
    /// The model: NAMESPACE/NAME, or a name that only one model of the key's subscription has
    #[arg(long, value_name = "MODEL")]
    model: String,
    #[command(flatten)]
    asker: Asker,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let Verb::Explain(explain) = args.verb;
    let escaped = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let path = format!("/tollgate/v1/quota?key={}&model={}", escaped(&explain.key), escaped(&explain.model));
    let answer = explain.asker.get(&path).await?;
    print!("{}", shown(&answer.body));
    Ok(())
}

/// The answer as a table.
fn shown(answer: &Value) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let key = &answer["key"];
    let mut page = format!(
        "key {} of {}, {}, through subscription {}, model {}\nat {}\n\n",
        text(&key["id"]),
        text(&key["user"]),
        text(&key["status"]),
        text(&key["subscription"]),
        text(&answer["model"]),
        text(&answer["time"])
    );
    let mut rows = vec![["LIMIT", "FOR", "USED", "HELD", "FREE", "DEBT", "RESETS", "NODES"].map(str::to_owned)];
    for limit in answer["limits"].as_array().into_iter().flatten() {
        let node = |node: &Value| {
            let orphaned = node["stranded"].as_f64().filter(|orphaned| *orphaned > 0.0);
            let orphaned = orphaned.map(|orphaned| format!(" and {orphaned} orphaned")).unwrap_or_default();
            format!("{}: {}{orphaned}", node["node"], node["granted"])
        };
        let is_hard = if limit["enforcement"] == "hard" { ", hard" } else { "" };
        let nodes: Vec<String> = limit["nodes"].as_array().into_iter().flatten().map(node).collect();
        let otherwise = if limit["unit"] == "in_progress" { "as calls end" } else { "when used" };
        let per = limit["window"].as_str().filter(|window| !window.is_empty());
        let per = per.map(|window| format!(" per {window}")).unwrap_or_default();
        rows.push([
            format!("{} {}{per}{is_hard}", limit["limit"], text(&limit["unit"])),
            text(&limit["subject"]),
            limit["used"].to_string(),
            limit["held"].to_string(),
            limit["free"].to_string(),
            limit["debt"].to_string(),
            limit["resets"].as_str().unwrap_or(otherwise).to_owned(),
            if nodes.is_empty() { "-".to_owned() } else { nodes.join(", ") },
        ]);
    }
    page.push_str(&table::aligned(&rows));
    page
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_limit_is_a_line_and_columns_are_aligned() {
        let limit = |unit: &str, enforcement: &str, used: u64, resets: Value, nodes: Value| {
            json!({"limit": 500, "unit": unit, "enforcement": enforcement, "scope": "user", "subject": "ann", "window": "1h", "used": used, "held": 30, "free": 1,
                "debt": 0, "resets": resets, "nodes": nodes})
        };
        let nodes = json!([{"node": 1, "granted": 20, "stranded": 0}, {"node": 3, "granted": 0, "stranded": 10}]);
        let answer = json!({
            "key": {"id": "k-1", "user": "ann", "subscription": "dev", "status": "active"},
            "model": "llm/qwen",
            "time": "2026-11-22T12:00:00Z",
            "limits": [
                limit("total", "hard", 469, json!("2026-11-22T12:40:00Z"), nodes),
                limit("requests", "reserve", 0, Value::Null, json!([])),
                json!({"limit": 8, "unit": "in_progress", "enforcement": "hard", "scope": "user", "subject": "ann", "window": "", "used": 0, "held": 2,
                    "free": 6, "debt": 0, "resets": Value::Null, "nodes": [{"node": 2, "granted": 2, "stranded": 0}]}),
                json!({"limit": 500.0, "unit": "cost", "enforcement": "reserve", "scope": "subscription", "subject": "everybody", "window": "month",
                    "used": 12.5, "held": 0.25, "free": 487.25, "debt": 0.0, "resets": "2026-12-01T00:00:00Z",
                    "nodes": [{"node": 1, "granted": 0.25, "stranded": 0.0}]}),
            ],
        });
        let page = "\
key k-1 of ann, active, through subscription dev, model llm/qwen
at 2026-11-22T12:00:00Z

LIMIT                   FOR        USED  HELD  FREE    DEBT  RESETS                NODES
500 total per 1h, hard  ann        469   30    1       0     2026-11-22T12:40:00Z  1: 20, 3: 0 and 10 orphaned
500 requests per 1h     ann        0     30    1       0     when used             -
8 in_progress, hard     ann        0     2     6       0     as calls end          2: 2
500.0 cost per month    everybody  12.5  0.25  487.25  0.0   2026-12-01T00:00:00Z  1: 0.25
";
        assert_eq!(shown(&answer), page);
    }
}
