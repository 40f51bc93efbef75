//! Rules of a file by itself. What they look for is written in two pieces here, so that this file keeps them too.

use crate::tree::Source;
use crate::{check, said};

const LINES_MAX: usize = 600;

const LEFTOVERS: [&str; 3] = [concat!("to", "do!("), concat!("unimpl", "emented!("), concat!("db", "g!(")];

const EXPECT: [&str; 2] = [concat!("#[exp", "ect("), concat!("#![exp", "ect(")];
const ALLOW: [&str; 2] = [concat!("#[al", "low("), concat!("#![al", "low(")];

/// Where packages come from, and how a mirror is named. Which registry is used is for whoever builds.
const REGISTRIES: [&str; 9] = [
    concat!("index.", "crates.io"),
    concat!("static.", "crates.io"),
    concat!("sparse+", "http"),
    concat!("replace", "-with"),
    concat!("pypi", ".org"),
    concat!("files.python", "hosted.org"),
    concat!("--index", "-url"),
    concat!("registry.npm", "js.org"),
    concat!("proxy.gol", "ang.org"),
];

const WORKPLACE: &str = concat!("/wo", "rk/");

/// What the lock file says of every package that is not ours.
const LOCKED: &str = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";

fn has_no_leftovers(source: &Source) -> Vec<(usize, String)> {
    if !source.is_rust() {
        return Vec::new();
    }
    let leftover = |line: &str| LEFTOVERS.into_iter().find(|leftover| line.contains(leftover));
    let found = source.lines().filter_map(|(number, line)| Some((number, leftover(line)?)));
    found.map(|(number, leftover)| (number, format!("{leftover}…) is not finished"))).collect()
}

fn is_short(source: &Source) -> Vec<(usize, String)> {
    let count = source.text.lines().count();
    if count <= LINES_MAX || source.path == "Cargo.lock" {
        return Vec::new();
    }
    vec![(LINES_MAX + 1, format!("has {count} lines: divide it, {LINES_MAX} is the most"))]
}

fn has_something_of_its_own(source: &Source) -> Vec<(usize, String)> {
    let is_code = |line: &&str| !line.is_empty() && !line.starts_with("//") && !line.starts_with('#');
    let code: Vec<&str> = source.text.lines().map(str::trim).filter(is_code).collect();
    let code = code.join(" ");
    let mut statements = code.split(';').map(str::trim).filter(|statement| !statement.is_empty()).peekable();
    if !source.is_rust() || statements.peek().is_none() || !statements.all(is_reexport) {
        return Vec::new();
    }
    vec![(1, "only hands on what others have: name those where they are used".to_owned())]
}

fn is_reexport(statement: &str) -> bool {
    let rest = statement.strip_prefix("pub").unwrap_or(statement).trim_start();
    let rest =
        if rest.starts_with('(') { rest.split_once(')').map_or(rest, |(_, rest)| rest.trim_start()) } else { rest };
    rest.starts_with("use ")
}

fn lints_are_kept_or_excused(source: &Source) -> Vec<(usize, String)> {
    if !source.is_rust() {
        return Vec::new();
    }
    let begins = |at: usize, of: [&str; 2]| of.iter().any(|start| source.text[at..].starts_with(start));
    let mut wrong = Vec::new();
    for (at, _) in source.text.match_indices('#') {
        let number =
            source.text[..at].lines().count().max(1) + usize::from(source.text[..at].ends_with('\n') && at > 0);
        if begins(at, ALLOW) {
            wrong.push((number, "a lint is switched off: keep it, or expect it with a reason".to_owned()));
        } else if begins(at, EXPECT) {
            let attribute = source.text[at..].split_once(")]").map_or("", |(attribute, _)| attribute);
            if !attribute.contains("reason = \"") || attribute.contains("reason = \"\"") {
                wrong.push((number, "a lint is expected without a reason".to_owned()));
            }
        }
    }
    wrong
}

fn names_no_workplace(source: &Source) -> Vec<(usize, String)> {
    let mut wrong = Vec::new();
    for (number, line) in source.lines() {
        if line.contains(WORKPLACE) {
            wrong.push((number, format!("{WORKPLACE} is a path of one machine")));
        }
        if let Some(registry) = REGISTRIES.iter().find(|registry| line.contains(*registry)) {
            wrong.push((number, format!("{registry} is where somebody's packages come from")));
        }
        if source.path == "Cargo.lock" && line.starts_with("source = ") && line != LOCKED {
            wrong.push((number, "a package is locked to another registry".to_owned()));
        }
    }
    wrong
}

#[test]
fn nothing_unfinished_is_left() {
    check(has_no_leftovers);
    for leftover in LEFTOVERS {
        let text = format!("fn a() {{\n    {leftover}\"x\")\n}}");
        assert_eq!(said(has_no_leftovers, "a.rs", &text), [format!("a.rs:2: {leftover}…) is not finished")]);
    }
}

#[test]
fn no_file_is_too_long_to_read() {
    check(is_short);
    assert_eq!(said(is_short, "a.md", &"x\n".repeat(600)), [""; 0]);
    assert_eq!(said(is_short, "a.md", &"x\n".repeat(601)), ["a.md:601: has 601 lines: divide it, 600 is the most"]);
}

#[test]
fn every_file_has_something_of_its_own() {
    check(has_something_of_its_own);
    for only_reexports in [
        "//! All of it.\n\npub use crate::a::{\n    A,\n    B,\n};\n",
        "use b::C;\n#[doc(hidden)]\npub(crate) use C as D;\n",
    ] {
        let said = said(has_something_of_its_own, "a.rs", only_reexports);
        assert_eq!(said, ["a.rs:1: only hands on what others have: name those where they are used"]);
    }
    for text in ["//! Nothing yet.\n", "mod a;\npub use a::A;\n", "use a::A;\nfn user() {}\n"] {
        assert_eq!(said(has_something_of_its_own, "a.rs", text), [""; 0], "{text}");
    }
}

#[test]
fn lints_are_not_switched_off_without_a_reason() {
    check(lints_are_kept_or_excused);
    let rule = lints_are_kept_or_excused;
    let [outer, inner] = EXPECT;
    for (text, wrong) in [
        (format!("\n{}dead_code)]", ALLOW[0]), "a.rs:2: a lint is switched off: keep it, or expect it with a reason"),
        (format!("{}dead_code)]", ALLOW[1]), "a.rs:1: a lint is switched off: keep it, or expect it with a reason"),
        (format!("x\n\n    {outer}dead_code)]"), "a.rs:3: a lint is expected without a reason"),
        (format!("{inner}\n    dead_code,\n    reason = \"\"\n)]"), "a.rs:1: a lint is expected without a reason"),
    ] {
        assert_eq!(said(rule, "a.rs", &text), [wrong], "{text}");
    }
    let excused = format!("{outer}\n    dead_code,\n    reason = \"the test next door needs it\"\n)]");
    assert_eq!(said(rule, "a.rs", &excused), [""; 0]);
}

#[test]
fn no_file_knows_where_it_was_written() {
    check(names_no_workplace);
    let rule = names_no_workplace;
    for place in REGISTRIES {
        let said = said(rule, "a.md", &format!("x\n{place}"));
        assert_eq!(said, [format!("a.md:2: {place} is where somebody's packages come from")]);
    }
    let path = format!("cd {WORKPLACE}main");
    assert_eq!(said(rule, "a.sh", &path), [format!("a.sh:1: {WORKPLACE} is a path of one machine")]);
    assert_eq!(said(rule, "Cargo.lock", LOCKED), [""; 0]);
    let elsewhere = "source = \"registry+https://packages.example\"";
    assert_eq!(said(rule, "Cargo.lock", elsewhere), ["Cargo.lock:1: a package is locked to another registry"]);
}
