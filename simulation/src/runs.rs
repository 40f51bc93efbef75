//! Many runs: each in a process of its own, as many at once as there are processors.

use std::io;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::plan::Planned;

/// What is asked for.
pub(crate) struct Campaign {
    /// The seeds, in order.
    pub(crate) seeds: std::ops::Range<u64>,
    /// What each run is told beside its seed.
    pub(crate) arguments: Vec<String>,
    /// No new run begins after this.
    pub(crate) within: Option<Duration>,
    /// Each seed twice, and the hashes must be equal.
    pub(crate) twice: bool,
    /// No new run begins after one has failed.
    pub(crate) until_failure: bool,
    /// Runs at once.
    pub(crate) jobs: usize,
}

/// What came of it.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) runs: u64,
    pub(crate) failed: Vec<u64>,
    /// Seeds whose two runs were not the same.
    pub(crate) differed: Vec<u64>,
    pub(crate) simulated_seconds: f64,
}

/// One run, as its process printed it.
pub(crate) struct Report {
    pub(crate) is_ok: bool,
    pub(crate) text: String,
}

impl Report {
    /// Of everything that happened.
    pub(crate) fn hash(&self) -> Option<&str> {
        self.word("hash")
    }

    /// The word after `name` in the first line.
    fn word(&self, name: &str) -> Option<&str> {
        let mut words = self.text.lines().next()?.split_whitespace();
        words.find(|word| *word == name)?;
        words.next()
    }
}

/// The machine's time, for what is outside of any run.
pub(crate) fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "outside of any run")]
    Instant::now()
}

/// Runs a campaign, printing what fails as it fails. Errors: a run could not be started.
pub(crate) fn run(campaign: &Campaign) -> io::Result<Outcome> {
    let began = now();
    let next = Mutex::new(campaign.seeds.clone());
    let outcome = Mutex::new(Ok(Outcome::default()));
    let take = || {
        let is_late = campaign.within.is_some_and(|within| began.elapsed() >= within);
        let has_failed = campaign.until_failure && lock(&outcome).as_ref().is_ok_and(Outcome::has_failed);
        if is_late || has_failed { None } else { lock(&next).next() }
    };
    std::thread::scope(|scope| {
        for _ in 0..campaign.jobs.max(1) {
            scope.spawn(|| {
                while let Some(seed) = take() {
                    let arguments = [&["--seed".to_owned(), seed.to_string()], &*campaign.arguments].concat();
                    let judged = judge(&arguments, campaign.twice);
                    let mut outcome = lock(&outcome);
                    match (&mut *outcome, judged) {
                        (Ok(outcome), Ok(judged)) => outcome.add(seed, judged),
                        (outcome @ Ok(_), Err(error)) => *outcome = Err(error),
                        (Err(_), _) => return,
                    }
                }
            });
        }
    });
    outcome.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Outcome {
    fn has_failed(&self) -> bool {
        !self.failed.is_empty() || !self.differed.is_empty()
    }

    fn add(&mut self, seed: u64, (report, again): (Report, Option<Report>)) {
        self.runs += 1;
        self.simulated_seconds += report.word("lasted").and_then(|word| word.parse().ok()).unwrap_or(0.0);
        if again.is_some_and(|again| again.hash() != report.hash()) {
            println!("seed {seed}: two runs were not the same");
            self.differed.push(seed);
        }
        if !report.is_ok {
            println!("{}", report.text);
            self.failed.push(seed);
        }
    }
}

/// Runs this program with other arguments, once or twice.
pub(crate) fn judge(arguments: &[String], twice: bool) -> io::Result<(Report, Option<Report>)> {
    let report = one(arguments)?;
    let again = if twice { Some(one(arguments)?) } else { None };
    Ok((report, again))
}

/// Runs this program with other arguments.
fn one(arguments: &[String]) -> io::Result<Report> {
    let output = Command::new(std::env::current_exe()?).args(arguments).output()?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    if output.status.code().is_none() {
        // A panic while another one is being handled leaves no time for a report.
        text.push_str(&format!("\nPANIC: the process of this run ended by {}\n", output.status));
    }
    Ok(Report { is_ok: output.status.success(), text })
}

/// Drops faults from a failing run for as long as it fails in the same way. Returns what is left.
/// Errors: the run could not be started, or does not fail.
pub(crate) fn shrink(seed: u64, arguments: Vec<String>, faults: Vec<Planned>) -> io::Result<Vec<Planned>> {
    let fails_by = |faults: &[Planned]| {
        let mut arguments = [vec!["--seed".to_owned(), seed.to_string()], arguments.clone()].concat();
        if faults.is_empty() {
            arguments.push("--no-faults".to_owned());
        }
        arguments.extend(faults.iter().flat_map(|fault| ["--fault".to_owned(), fault.to_string()]));
        let report = one(&arguments)?;
        let property = report.word(&seed.to_string()).unwrap_or("ok").to_owned();
        Ok::<_, io::Error>((!report.is_ok).then_some(property))
    };
    let Some(property) = fails_by(&faults)? else {
        return Err(io::Error::other("this run does not fail: there is nothing to shrink"));
    };
    let mut left = faults;
    let mut at = 0;
    while at < left.len() {
        let mut fewer = left.clone();
        fewer.remove(at);
        if fails_by(&fewer)?.as_ref() == Some(&property) {
            left = fewer;
        } else {
            at += 1;
        }
    }
    Ok(left)
}
