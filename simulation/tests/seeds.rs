//! A few runs for every change: the same seeds each time, some of them twice, and some that nobody has run before.

use std::process::Command;

fn simulate(arguments: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_simulation"))
        .args(arguments)
        .output()
        .expect("the binary was built beside this test");
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    assert!(output.status.success(), "simulation {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
}

#[test]
fn seeds_that_are_run_each_time_hold_every_property() {
    simulate(&["--seeds", "1..9", "--jobs", "1"]);
}

#[test]
fn a_seed_gives_the_same_run_twice() {
    simulate(&["--seeds", "101..104", "--twice", "--jobs", "1"]);
}

#[test]
fn new_seeds_hold_every_property() {
    simulate(&["--for", "30s", "--jobs", "1"]);
}

#[test]
fn every_kind_of_fault_happens_and_is_survived() {
    simulate(&["--scenario", "all", "--twice"]);
}

#[test]
fn a_fault_that_does_not_happen_is_noticed() {
    simulate(&["--scenario", "all", "--no-faults"]);
}

#[test]
fn every_way_to_break_the_product_on_purpose_still_applies() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let mut stale = Vec::new();
    let patches = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/mutations")).expect("it is beside this test");
    for file in patches.map(|entry| entry.expect("it can be listed").path()) {
        if file.extension().is_none_or(|extension| extension != "patch") {
            continue;
        }
        let checked = Command::new("git").args(["apply", "--check"]).arg(&file).current_dir(root).output();
        if !checked.expect("git is there").status.success() {
            stale.push(file);
        }
    }
    assert!(stale.is_empty(), "these patches do not apply any more: {stale:?}");
}
