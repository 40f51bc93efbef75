//! The house rules that no compiler knows, and the files that must agree with each other.

mod layers;
mod manifests;
mod rules;
mod tree;
mod words;

use tree::Source;

/// Looks at one file: the lines that break the rule, each with what is wrong.
type Rule = fn(&Source) -> Vec<(usize, String)>;

/// Applies a rule to the whole tree.
fn check(rule: Rule) {
    let broken: Vec<String> = tree::sources().iter().flat_map(|source| findings(rule, source)).collect();
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

/// `path:line: what is wrong`.
fn findings(rule: Rule, source: &Source) -> Vec<String> {
    let found = rule(source).into_iter();
    found.map(|(line, wrong)| format!("{}:{line}: {wrong}", source.path)).collect()
}

/// What a rule says of a file that does not exist; a line per finding.
fn said(rule: Rule, path: &str, text: &str) -> Vec<String> {
    findings(rule, &Source { path: path.to_owned(), text: text.to_owned() })
}
