//! A replica: an engine, an HTTP front end, and the ways in which both can fail.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::watch,
    time::{Instant, sleep},
};

use crate::{
    chance::{self, Chance},
    config::{Config, FrontEnd},
    engine::{Engine, records::Stats},
    fault::{Fault, FaultKind},
    http::{self, wire::Wire},
};

/// uvicorn closes a connection that has been idle for this long.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Until the front end notices that its engine process is gone (recorded: 149-166 ms).
const DEATH_NOTICED: Duration = Duration::from_millis(160);

/// From there until the front end exits and the port refuses (recorded: 503 at 190 ms, refused at 260 ms).
const DEATH_REPORTED: Duration = Duration::from_millis(100);

/// How often a draining server looks whether its calls are done.
const DRAIN_POLL: Duration = Duration::from_millis(10);

/// Pause after an accept error (no file descriptors left), so that it is not retried in a hot loop.
const ACCEPT_RETRY: Duration = Duration::from_millis(10);

/// A running replica; clones are the same one. The engine stops when the last clone and connection are gone.
#[derive(Clone)]
pub struct Replica {
    shared: Arc<Shared>,
}

/// What every connection of a replica sees.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) engine: Engine,
    pub(crate) fingerprint: String,
    chance: Mutex<Chance>,
    fault: Mutex<Option<Active>>,
    /// Answers by handler, method and class of status.
    http_counts: Mutex<BTreeMap<(&'static str, String, char), u64>>,
    life: watch::Sender<Life>,
    started: Instant,
}

/// A replica-wide fault and since when.
struct Active {
    fault: Fault,
    since: Instant,
}

/// What a server process does with connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Up,
    /// New connections are refused, calls in progress finish.
    Draining,
    /// Every connection is cut.
    Down,
}

impl Replica {
    /// Starts a replica on the current tokio runtime. It listens nowhere: give it connections.
    pub fn start(config: Config) -> Self {
        let shared = Shared {
            engine: Engine::start(&config),
            fingerprint: format!("vllm-0.26.0-{:08x}", chance::hash(config.model().as_bytes(), config.seed) as u32),
            chance: Mutex::new(Chance::new(config.seed)),
            fault: Mutex::new(None),
            http_counts: Mutex::new(BTreeMap::new()),
            life: watch::Sender::new(Life::Up),
            started: Instant::now(),
            config,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Accepts connections until `shutdown`, or until the replica dies or is told to stop; the port is closed on return.
    /// Calls in progress go on.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let mut shutdown = pin!(shutdown);
        let mut life = self.shared.life.subscribe();
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut shutdown => return,
                _ = life.wait_for(|life| *life != Life::Up) => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                sleep(ACCEPT_RETRY).await;
                continue;
            };
            // Small events must not wait for each other.
            let _ = stream.set_nodelay(true);
            let replica = self.clone();
            tokio::spawn(async move { replica.serve_connection(stream).await });
        }
    }

    /// Serves one connection (HTTP/1.1) to its end.
    pub async fn serve_connection<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, io: IO) {
        if !self.shared.accepts() {
            return;
        }
        let (wire, garble) = Wire::new(io);
        let service = service_fn(|request| http::serve(self.shared.clone(), request, garble.clone()));
        let connection = http1::Builder::new()
            .auto_date_header(false)
            .timer(TokioTimer::new())
            .header_read_timeout(KEEP_ALIVE)
            .serve_connection(TokioIo::new(wire), service);
        let mut connection = pin!(connection);
        let mut life = self.shared.life.subscribe();
        loop {
            tokio::select! {
                biased;
                changed = life.changed() => match (changed.is_ok(), *life.borrow_and_update()) {
                    (true, Life::Up) => {}
                    (true, Life::Draining) => connection.as_mut().graceful_shutdown(),
                    (true, Life::Down) | (false, _) => return,
                },
                _ = connection.as_mut() => return,
            }
        }
    }

    /// Sets the fault that strikes every request, or none.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.shared.set_fault(fault);
    }

    /// What it is doing and what it did.
    pub fn stats(&self) -> Stats {
        self.shared.engine.stats()
    }

    /// The engine process is killed (SIGKILL). Shortly after, the Python front end reports an error on every stream,
    /// answers 500 and 503, and is gone a tenth of a second later; the Rust front end cuts every connection.
    pub fn kill(&self) {
        self.shared.kill();
    }

    /// The engine process is stopped (SIGSTOP): no more tokens, while health, models and metrics go on answering.
    pub fn hang(&self) {
        self.shared.engine.set_hung(true);
    }

    /// The engine process goes on (SIGCONT).
    pub fn resume(&self) {
        self.shared.engine.set_hung(false);
    }

    /// The server is told to stop (SIGTERM): the port closes, and calls in progress end with what they have
    /// (`finish_reason: "abort"`) once `drain` has passed. The Rust front end cuts its connections instead.
    pub fn terminate(&self, drain: Duration) {
        self.shared.terminate(drain);
    }
}

impl Shared {
    /// Whether connections are answered at all.
    fn accepts(&self) -> bool {
        let up = *self.life.borrow() == Life::Up;
        up && self.started.elapsed() >= self.config.scaled(self.config.startup) && !self.is_slow_to_start()
    }

    /// The current Unix time in seconds, by the clock of the world.
    pub(crate) fn unix_seconds(&self) -> u64 {
        self.config.start_unix_seconds + self.started.elapsed().as_secs()
    }

    /// The Unix time of the start.
    pub(crate) fn start_seconds(&self) -> u64 {
        self.config.start_unix_seconds
    }

    /// Sixteen hexadecimal digits that have not been given out before.
    pub(crate) fn hex(&self) -> String {
        format!("{:016x}", lock(&self.chance).next())
    }

    pub(crate) fn set_fault(&self, fault: Option<Fault>) {
        let hangs = |fault: Option<&Fault>| fault.is_some_and(|fault| fault.kind == FaultKind::HungCore);
        let (is_hung, mut active) = (hangs(fault.as_ref()), lock(&self.fault));
        // A core that was stopped otherwise is not woken by a fault that comes or goes.
        if is_hung || hangs(active.as_ref().map(|active| &active.fault)) {
            self.engine.set_hung(is_hung);
        }
        *active = fault.map(|fault| Active { fault, since: Instant::now() });
    }

    pub(crate) fn fault(&self) -> Option<Fault> {
        lock(&self.fault).as_ref().map(|active| active.fault.clone())
    }

    /// The fault that strikes a request: its own, or the replica's.
    pub(crate) fn fault_for(&self, own: Option<Fault>, probe: bool) -> Option<Fault> {
        let fault = own.or_else(|| self.fault())?;
        if probe && !fault.everywhere || lock(&self.chance).unit() >= fault.rate {
            return None;
        }
        Some(fault)
    }

    /// Whether the fault `slow-start` still lasts.
    pub(crate) fn is_slow_to_start(&self) -> bool {
        lock(&self.fault).as_ref().is_some_and(|active| {
            active.fault.kind == FaultKind::SlowStart && active.since.elapsed() < active.fault.time
        })
    }

    /// Whether the engine lives and no fault says otherwise at this moment.
    pub(crate) fn is_healthy(&self) -> bool {
        let ill = lock(&self.fault).as_ref().is_some_and(|active| {
            let half = (active.fault.time / 2).as_nanos().max(1);
            active.fault.kind == FaultKind::OscillatingHealth && (active.since.elapsed().as_nanos() / half) % 2 == 1
        });
        !ill && !self.engine.is_dead()
    }

    pub(crate) fn count(&self, handler: &'static str, method: &str, status: u16) {
        let class = char::from_digit(u32::from(status / 100), 10).unwrap_or('0');
        *lock(&self.http_counts).entry((handler, method.to_owned(), class)).or_default() += 1;
    }

    pub(crate) fn http_counts(&self) -> BTreeMap<(&'static str, String, char), u64> {
        lock(&self.http_counts).clone()
    }

    pub(crate) fn kill(self: &Arc<Self>) {
        self.engine.set_hung(true);
        let shared = self.clone();
        tokio::spawn(async move {
            sleep(DEATH_NOTICED).await;
            if shared.config.front_end == FrontEnd::Python {
                shared.engine.kill();
                sleep(DEATH_REPORTED).await;
            }
            shared.life.send_replace(Life::Down);
            shared.engine.kill();
        });
    }

    pub(crate) fn terminate(self: &Arc<Self>, drain: Duration) {
        if self.config.front_end == FrontEnd::Rust {
            self.life.send_replace(Life::Down);
            return;
        }
        self.life.send_replace(Life::Draining);
        let shared = self.clone();
        let deadline = Instant::now() + drain;
        tokio::spawn(async move {
            while Instant::now() < deadline && shared.engine.open() > 0 {
                sleep(DRAIN_POLL).await;
            }
            shared.engine.stop();
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
