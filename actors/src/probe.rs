//! Probe: one task per replica. Asks for its health and its metrics on a timer and publishes what it finds in the replica.

mod exposition;
mod health;
mod progress;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raft::doors::{BoxFuture, Chance};

use crate::epp::{Pool, Replica};

use health::{Health, Transition, Verdict};
use progress::{Look, Progress};

pub(crate) use exposition::Metrics;
pub(crate) use progress::{Motion, Seen};

/// How a replica is asked, without naming sockets: GET, with a deadline.
pub trait Scrape: Send + Sync + 'static {
    /// GET `base` + `path` (`http://host:port`, `/metrics`). Errors: one line why there was no answer;
    /// it contains `refused` if nothing listens there. Bodies are bounded by the implementation (4 MiB).
    fn get<'a>(&'a self, base: &'a str, path: &'a str, deadline: Duration) -> BoxFuture<'a, Result<Scraped, String>>;
}

/// A replica's answer.
#[derive(Clone, Debug)]
pub struct Scraped {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Bytes,
}

/// How all replicas are probed.
pub(crate) struct Probing {
    pub(crate) scrape: Arc<dyn Scrape>,
    pub(crate) chance: Arc<dyn Chance>,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
}

impl Probing {
    /// GET, with a deadline that holds even if the implementation forgets it.
    async fn get(&self, base: &str, path: &str) -> Result<Scraped, String> {
        match tokio::time::timeout(self.timeout, self.scrape.get(base, path, self.timeout)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {:?}", self.timeout)),
        }
    }

    /// Up to a fifth more than the interval, so that nodes and replicas do not fall into step.
    fn pause(&self) -> Duration {
        let jitter = u64::try_from(self.interval.as_micros() / 5).unwrap_or(u64::MAX);
        self.interval + Duration::from_micros(self.chance.below(jitter))
    }
}

/// The probe of one replica.
pub(crate) struct Probe {
    probing: Arc<Probing>,
    pool: Arc<Pool>,
    replica: Arc<Replica>,
    health: Health,
    capacity_tokens: Option<u64>,
    progress: Progress,
}

impl Probe {
    pub(crate) fn new(probing: Arc<Probing>, pool: Arc<Pool>, replica: Arc<Replica>) -> Probe {
        Probe {
            probing,
            pool,
            replica,
            health: Health::default(),
            capacity_tokens: None,
            progress: Progress::default(),
        }
    }

    /// Probes for ever. The first probe runs at once, so that a node is ready fast.
    pub(crate) async fn run(mut self) -> Infallible {
        loop {
            self.probe().await;
            tokio::time::sleep(self.probing.pause()).await;
        }
    }

    async fn probe(&mut self) {
        let verdict = self.ask_health().await;
        let is_good = verdict == Verdict::Good;
        match self.health.transition(verdict, self.replica.is_up()) {
            Transition::Up { is_new } => {
                if is_new {
                    self.pool.forget_replica(&self.replica);
                    (self.capacity_tokens, self.progress) = (None, Progress::default());
                }
                self.replica.comes_up(is_new);
            }
            Transition::Down(reason) => self.replica.goes_down(reason),
            Transition::Same if is_good => self.replica.comes_up(false),
            Transition::Same => {}
        }
        if is_good {
            self.ask_metrics().await;
        }
    }

    async fn ask_health(&self) -> Verdict {
        match self.probing.get(&self.replica.url, "/health").await {
            Ok(answer) if health::needs_other_path(answer.status) => {
                let models = self.probing.get(&self.replica.url, "/v1/models").await;
                health::judge_models(models.map(|answer| answer.status))
            }
            answer => health::judge(answer.map(|answer| answer.status)),
        }
    }

    /// Without an answer the last numbers stay, and fade.
    async fn ask_metrics(&mut self) {
        let mark = self.replica.mark();
        let Ok(answer) = self.probing.get(&self.replica.url, "/metrics").await else { return };
        if answer.status != 200 {
            return;
        }
        let Some(metrics) = exposition::parse(&answer.body) else { return };
        // An engine that counts nothing cannot be seen to move.
        if let Some(work) = metrics.work {
            let has_calls = metrics.running + metrics.waiting > 0.0;
            let look = Look { work, has_calls, seen: self.replica.seen() };
            self.replica.notes_motion(self.progress.note(look, mark.at()));
        }
        if metrics.capacity_tokens != self.capacity_tokens {
            self.capacity_tokens = metrics.capacity_tokens;
            if let Some(tokens) = metrics.capacity_tokens {
                self.pool.resize_cache(&self.replica, tokens);
            }
        }
        self.replica.reports(mark, metrics);
    }
}
