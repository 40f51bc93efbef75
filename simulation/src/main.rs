//! The proof: the real node (consensus, actors, HTTP, our storage logic and data plane) on simulated time, network and disk,
//! on one thread, from one seed.
//!
//! A run has two phases. While things break, nothing unsafe may happen; when they stop breaking, everything must come back. What
//! "unsafe" and "come back" mean is in [`properties`]; what breaks is in [`plan`].
//!
//! # What could make two runs of one seed differ, and why it does not
//!
//! - Wall time: the clock door ([`world`]'s clock follows simulated time). `date` headers are off.
//! - Monotonic time: tokio's, paused, moved by the simulated network's steps.
//! - Chance of ours: the chance door, seeded by node and start; everything here draws from [`chance`] by name.
//! - Chance of openraft: its deterministic runtime, seeded through the same door.
//! - Chance of tokio (wake order of watchers, `select!`): the runtimes are seeded, which needs `--cfg tokio_unstable`; our `select!` are biased.
//! - Numbers of tokio's tasks, on which the order of their end depends: aligned at the start of a run.
//! - Order of hash maps: none of ours is walked where the order can be seen. ractor ends the children of an actor in such an order, so ours
//!   are ended one by one before.
//! - The network and the disk: simulated, with draws from the seed.
//! - Threads: one. Nothing of the product starts any outside the disk door.
//! - Files: a node reads one, its administrator's token, which is the same in every run.

mod chance;
mod plan;
mod properties;
mod runs;
mod scenarios;
mod trace;
mod world;

use std::ops::Range;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use plan::{Aim, Plan, Planned};
use properties::Violation;
use runs::Campaign;
use world::Tally;

#[cfg(not(tokio_unstable))]
compile_error!("the simulation needs tokio's seeded scheduler: build it with RUSTFLAGS=\"--cfg tokio_unstable\"");

/// Runs the whole cluster under faults. Everything that happens in a run follows from its seed: a failure is printed with the
/// command that repeats it.
#[derive(Parser)]
#[command(name = "simulation")]
struct Options {
    /// Run this seed, and say what happened.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Run these seeds, each in a process of its own: `1..1000` is 1 to 999.
    #[arg(long, value_name = "A..B", value_parser = range)]
    seeds: Option<Range<u64>>,
    /// Begin no run after so long: `90s`, `10m`. Without --seeds the seeds are new ones.
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    within: Option<Duration>,
    /// At what plans are aimed.
    #[arg(long, value_enum, default_value_t)]
    aim: Aim,
    /// Run every seed, or every scenario, twice, and compare the hashes of everything that happened.
    #[arg(long)]
    twice: bool,
    /// With --seeds or --for: stop at the first failure.
    #[arg(long)]
    until_failure: bool,
    /// Runs at once; as many as there are processors if nothing is said.
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Run this hand-made trap, or `all` of them; it fails if the fault did not happen.
    #[arg(long, value_name = "NAME")]
    scenario: Option<String>,
    /// With --seed: instead of the faults of its plan, this one, written as plans print it. May be given several times.
    #[arg(long, value_name = "FAULT")]
    fault: Vec<Planned>,
    /// With --seed: no faults at all. With --scenario: the same, to see that it is noticed.
    #[arg(long)]
    no_faults: bool,
    /// With --seed, when it fails: drop faults as long as it still fails, and print what is left.
    #[arg(long)]
    shrink: bool,
    /// With --seed: print the plan and the last events in any case.
    #[arg(long)]
    events: bool,
    /// With --seed or --scenario: print what the nodes log, as far as this filter lets it through: `info`, `raft=debug`. To stderr.
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(filter) = &options.log {
        let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
        logs.with_timer(trace::SimulatedTime).init();
    }
    let result = match (&options.scenario, options.seed) {
        (Some(name), _) if name == "all" => all_scenarios(&options),
        (Some(name), seed) => scenario(name, seed.unwrap_or(1), &options),
        (None, seed) => by_seed(seed, &options),
    };
    result.unwrap_or_else(|error| {
        eprintln!("simulation: {error}");
        ExitCode::from(2)
    })
}

fn by_seed(seed: Option<u64>, options: &Options) -> std::io::Result<ExitCode> {
    match seed {
        Some(seed) if options.shrink => shrink(seed, options),
        Some(seed) => {
            let again = format!("--seed {seed}{}{}{}", aim(options.aim), faults(&options.fault), no_faults(options));
            Ok(one(&plan(seed, options)?, &again, |_| true, options))
        }
        None => many(options),
    }
}

fn scenario(name: &str, seed: u64, options: &Options) -> std::io::Result<ExitCode> {
    let names = || scenarios::SCENARIOS.map(|scenario| scenario.name).join(", ");
    let found = scenarios::find(name);
    let scenario =
        found.ok_or_else(|| std::io::Error::other(format!("no scenario `{name}`: there are {}", names())))?;
    let mut plan = scenario.plan(seed).map_err(std::io::Error::other)?;
    if options.no_faults {
        plan.faults.clear();
    }
    let again = format!("--scenario {name} --seed {seed}{}", no_faults(options));
    Ok(one(&plan, &again, scenario.happened, options))
}

fn all_scenarios(options: &Options) -> std::io::Result<ExitCode> {
    let mut failed = Vec::new();
    for scenario in scenarios::SCENARIOS {
        let seed = options.seed.unwrap_or(1).to_string();
        let mut arguments = vec!["--scenario".to_owned(), scenario.name.to_owned(), "--seed".to_owned(), seed];
        arguments.extend(options.no_faults.then(|| "--no-faults".to_owned()));
        let (report, again) = runs::judge(&arguments, options.twice)?;
        let is_as_expected = if options.no_faults { report.text.contains(" IDLE ") } else { report.is_ok };
        println!("{:<16} {}", scenario.name, report.text.lines().next().unwrap_or_default());
        let is_same = again.is_none_or(|again| again.hash() == report.hash());
        if !is_same {
            println!("two runs were not the same");
        }
        if !is_as_expected {
            println!("{}", report.text);
        }
        if !is_as_expected || !is_same {
            failed.push(scenario.name);
        }
    }
    println!("{} scenarios, failed: {failed:?}", scenarios::SCENARIOS.len());
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The plan of a seed, with the faults that were asked for. Errors: one of them can happen to nobody.
fn plan(seed: u64, options: &Options) -> std::io::Result<Plan> {
    let mut plan = match options.aim {
        Aim::Everything => Plan::draw(seed),
        Aim::Ledger => Plan::draw_for_ledger(seed),
    };
    if !options.fault.is_empty() || options.no_faults {
        plan.faults = options.fault.clone();
    }
    plan.check().map_err(std::io::Error::other)?;
    Ok(plan)
}

/// Runs a plan and says what came of it. `again` repeats it; `happened` says whether its faults took place.
fn one(plan: &Plan, again: &str, happened: impl Fn(&Tally) -> bool, options: &Options) -> ExitCode {
    let began = runs::now();
    let mut result = world::run(plan);
    if result.violation.is_none() && !happened(&result.tally) {
        let text = format!("what should have gone wrong did not: {:?}", result.tally);
        result.violation = Some(Violation::new("IDLE", text));
    }
    let (hash, events) = result.digest;
    println!(
        "seed {} {} hash {hash:016x} events {events} lasted {:.1} took {:.2} {}",
        plan.seed,
        result.violation.as_ref().map_or("ok", |violation| violation.id),
        result.elapsed.as_secs_f64(),
        began.elapsed().as_secs_f64(),
        result.tally
    );
    if options.events || result.violation.is_some() {
        print!("{plan}");
        trace::recent().iter().for_each(|line| println!("{line}"));
    }
    let Some(violation) = result.violation else { return ExitCode::SUCCESS };
    println!("{violation}");
    println!("again: cargo run -p simulation --release -- {again}");
    ExitCode::FAILURE
}

fn aim(aim: Aim) -> &'static str {
    match aim {
        Aim::Everything => "",
        Aim::Ledger => " --aim ledger",
    }
}

fn no_faults(options: &Options) -> &'static str {
    if options.no_faults { " --no-faults" } else { "" }
}

fn faults(faults: &[Planned]) -> String {
    faults.iter().map(|fault| format!(" --fault '{fault}'")).collect()
}

fn many(options: &Options) -> std::io::Result<ExitCode> {
    if options.seeds.is_none() && options.within.is_none() {
        return Err(std::io::Error::other("say what to run: --seed N, --seeds A..B or --for TIME"));
    }
    let jobs = options.jobs.or_else(|| std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
    let seeds = options.seeds.clone().unwrap_or_else(fresh);
    let campaign = Campaign {
        seeds: seeds.clone(),
        arguments: aim(options.aim).split_whitespace().map(str::to_owned).collect(),
        within: options.within,
        twice: options.twice,
        until_failure: options.until_failure,
        jobs,
    };
    let began = runs::now();
    let outcome = runs::run(&campaign)?;
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{} seeds from {} on, {} failed, {} not the same twice; {:.0} simulated s in {seconds:.0} s: {:.1} a second, {:.0} seeds a minute",
        outcome.runs,
        seeds.start,
        outcome.failed.len(),
        outcome.differed.len(),
        outcome.simulated_seconds,
        outcome.simulated_seconds / seconds,
        outcome.runs as f64 * 60.0 / seconds,
    );
    let is_well = outcome.runs > 0 && outcome.failed.is_empty() && outcome.differed.is_empty();
    if !is_well {
        println!("failed: {:?}; not the same twice: {:?}", outcome.failed, outcome.differed);
    }
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Seeds that nobody has run yet. The only chance that is not in a seed: it chooses the seeds.
fn fresh() -> Range<u64> {
    #[expect(clippy::disallowed_methods, reason = "outside of any run")]
    let now = std::time::SystemTime::now();
    let start = now.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs()) * 1_000;
    start..u64::MAX
}

fn shrink(seed: u64, options: &Options) -> std::io::Result<ExitCode> {
    let arguments = aim(options.aim).split_whitespace().map(str::to_owned).collect();
    let left = runs::shrink(seed, arguments, plan(seed, options)?.faults)?;
    let left = if left.is_empty() { " --no-faults".to_owned() } else { faults(&left) };
    println!("it still fails with: cargo run -p simulation --release -- --seed {seed}{}{left}", aim(options.aim));
    Ok(ExitCode::FAILURE)
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let wrong = || format!("`{text}` is no range: write 1..1000");
    let (from, to) = text.split_once("..").ok_or_else(wrong)?;
    Ok(from.parse().map_err(|_| wrong())?..to.parse().map_err(|_| wrong())?)
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time: write 90s or 10m");
    let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
    match text.strip_suffix('m') {
        Some(minutes) => Ok(Duration::from_secs(60 * number(minutes)?)),
        None => Ok(Duration::from_secs(number(text.strip_suffix('s').ok_or_else(wrong)?)?)),
    }
}
