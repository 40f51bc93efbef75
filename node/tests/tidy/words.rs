//! The words of ARCHITECTURE.md's table, and those that they have replaced.

use crate::tree::{Source, sources};
use crate::{check, said};

/// A word that had a second meaning, or none in the field, and the one to say.
struct Replaced {
    old: &'static [&'static str],
    new: &'static str,
    /// Where: a file, or a directory with `/` at its end. Elsewhere the old word may mean something else.
    places: &'static [&'static str],
}

const QUOTA: &[&str] = &["actors/src/quota/", "actors/benches/", "actors/tests/"];
const LEDGER: &[&str] = &[
    "actors/src/quota/",
    "actors/tests/",
    "actors/benches/",
    "raft/src/journal.rs",
    "raft/src/journal/",
    "raft/src/command/",
    "raft/src/state/meter.rs",
    "raft/src/state/meter/",
    "raft/src/state/node.rs",
    "raft/benches/",
];
const OURS: &[&str] = &[
    "actors/",
    "raft/",
    "node/src/",
    "simulation/src/",
    "simulation/mutations/",
    "deploy/",
    "ARCHITECTURE.md",
    "README.md",
];

const REPLACED: [Replaced; 17] = [
    replaced(&["Tended", "tended"], "set state", OURS),
    replaced(&["Care"], "set state", QUOTA),
    replaced(&["Moment"], "ledger snapshot", OURS),
    replaced(&["Party", "party", "parties"], "limit subject", OURS),
    replaced(&["Turns"], "round robin", &["actors/src/quota/"]),
    replaced(&["Wish", "wish"], "demand", QUOTA),
    replaced(&["Bill", "bill"], "charge guard", &["actors/", "node/src/gateway/", "ARCHITECTURE.md"]),
    replaced(&["Draw", "draw", "draws", "drawn", "drawing"], "acquire", LEDGER),
    replaced(&["stranded", "strands", "strand"], "orphaned", OURS),
    replaced(
        &["book", "books", "Book", "booked"],
        "local allowance",
        &["actors/", "raft/", "node/src/", "ARCHITECTURE.md", "README.md"],
    ),
    replaced(&["life", "lives", "Life", "Lives", "EarlierLives"], "incarnation", LEDGER),
    replaced(&["retired", "retire"], "closed (only nodes are retired)", &["actors/src/quota/"]),
    replaced(&["Meter"], "LocalMeter (a meter is the ledger's)", &["actors/src/quota/allowance/"]),
    replaced(&["Note"], "SlotState (a note is the journal's)", &["actors/src/quota/"]),
    replaced(&["Refusal"], "CommandRefusal (a Refusal is the gateway's)", &["raft/", "actors/", "node/src/admin/"]),
    replaced(&["Verdict"], "EventAction (a verdict is of a health check)", &["node/src/gateway/"]),
    replaced(
        &["Verdict"],
        "another word (a verdict is of a health check)",
        &["node/src/accept/", "simulation/src/", "raft/"],
    ),
];

const fn replaced(old: &'static [&'static str], new: &'static str, places: &'static [&'static str]) -> Replaced {
    Replaced { old, new, places }
}

/// The admin API's key for what is orphaned: what is written to callers stays as it was promised.
const PROMISED: [&str; 2] = ["\"stranded\"", "`stranded`"];

fn says_no_replaced_word(source: &Source) -> Vec<(usize, String)> {
    let is_in = |place: &&str| match place.ends_with('/') {
        true => source.path.starts_with(place),
        false => source.path == *place,
    };
    let here: Vec<&Replaced> = REPLACED.iter().filter(|replaced| replaced.places.iter().any(is_in)).collect();
    if here.is_empty() {
        return Vec::new();
    }
    let mut wrong = Vec::new();
    for (number, line) in source.lines() {
        let line = PROMISED.iter().fold(line.to_owned(), |line, promised| line.replace(promised, ""));
        for word in line.split(|c: char| !c.is_alphanumeric()) {
            let replaced = here.iter().find(|replaced| replaced.old.contains(&word));
            wrong.extend(replaced.map(|replaced| (number, format!("say {} instead of {word}", replaced.new))));
        }
    }
    wrong
}

/// The rows of the table: the word, and the paths it is to be found at.
fn table(text: &str) -> Vec<(String, Vec<String>)> {
    let words = text.split_once("\n## Words\n").map_or("", |(_, words)| words);
    let rows = words.lines().filter(|line| line.starts_with("| ")).skip(1);
    let row = |line: &str| {
        let cells: Vec<&str> = line.split(" | ").collect();
        let [word, .., place] = cells[..] else { panic!("{line:?} is no row of three") };
        let paths = place.split('`').skip(1).step_by(2).filter(|path| path.contains('/'));
        let whole = |path: &str| match path.strip_prefix("quota/") {
            Some(rest) => format!("actors/src/quota/{rest}"),
            None => path.to_owned(),
        };
        (word.trim_start_matches("| ").to_owned(), paths.map(whole).collect())
    };
    rows.map(row).collect()
}

#[test]
fn replaced_words_do_not_come_back() {
    check(says_no_replaced_word);
    let rule = says_no_replaced_word;
    for (path, line, wrong) in [
        ("actors/src/quota/refill/a.rs", "struct Tended {", "say set state instead of Tended"),
        ("actors/src/quota/refill/a.rs", "    is_drawing: bool,", "say acquire instead of drawing"),
        ("raft/src/state/meter.rs", "/// Tokens of an earlier life.", "say incarnation instead of life"),
        ("ARCHITECTURE.md", "when the node's book is empty", "say local allowance instead of book"),
        ("node/src/gateway/a.rs", "let bill = reserve();", "say charge guard instead of bill"),
        ("node/src/admin/own/quota.rs", "window.stranded.iter()", "say orphaned instead of stranded"),
    ] {
        assert_eq!(said(rule, path, line), [format!("{path}:1: {wrong}")]);
    }
    for (path, line) in [
        ("node/src/admin/own/quota.rs", "json!({\"stranded\": amount(orphaned)})"),
        ("raft/src/state/view.rs", "pub retired: OrdSet<NodeId>,"),
        ("simulation/src/plan.rs", "let plan = Plan::draw(seed);"),
        ("node/src/gateway/mod.rs", "//! The data plane: the life of one call."),
        ("simulation/TRACK_RECORD.md", "what an earlier life has told the ledger is told again"),
    ] {
        assert_eq!(said(rule, path, line), [""; 0], "{path}");
    }
    for place in REPLACED.iter().flat_map(|replaced| replaced.places) {
        let is_there = sources().iter().any(|source| source.path.starts_with(place));
        assert!(is_there, "{place} has moved: the rule guards nothing");
    }
}

#[test]
fn every_word_of_the_table_has_one_row_and_is_where_it_says() {
    let sources = sources();
    let architecture = sources.iter().find(|source| source.path == "ARCHITECTURE.md").expect("it is there");
    let rows = table(&architecture.text);
    assert!(rows.len() > 40, "the table has moved: {rows:?}");
    let words: Vec<&String> = rows.iter().map(|(word, _)| word).collect();
    assert!(words.is_sorted_by(|one, next| one < next), "each once, in order: {words:?}");
    for (word, paths) in &rows {
        for path in paths {
            let is_there = sources.iter().any(|source| match path.ends_with('/') {
                true => source.path.starts_with(path),
                false => source.path == *path,
            });
            assert!(is_there, "{word}: {path} is not there");
        }
    }
    let text = "\n## Words\n\n| word | meaning | where |\n|---|---|---|\n| hold | x | `quota/a.rs`; `B` |\n";
    assert_eq!(table(text), [("hold".to_owned(), vec!["actors/src/quota/a.rs".to_owned()])]);
}
