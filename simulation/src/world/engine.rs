//! A vLLM replica: the simulated one, behind a listener of the simulated network.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use sim_vllm::{Config, Fault, Replica, RequestRecord};
use tokio::time::sleep;
use turmoil::net::TcpListener;

use super::Shared;
use crate::chance::seed_of;
use crate::trace;

/// Where it listens.
pub(crate) const PORT: u16 = 8000;
/// How often it looks for orders. What touches its clock must happen in its own runtime.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// An engine's name on the network.
pub(crate) fn name(number: usize) -> String {
    format!("engine-{number}")
}

/// What the world tells an engine, and what it tells the world.
pub(crate) struct EngineSlot {
    orders: RefCell<Vec<Order>>,
    /// What became of its requests, as it said last.
    pub(crate) records: RefCell<Vec<RequestRecord>>,
}

enum Order {
    Fault(Option<Fault>),
    Hang(bool),
    Report,
}

impl EngineSlot {
    pub(crate) fn new() -> EngineSlot {
        EngineSlot { orders: RefCell::default(), records: RefCell::default() }
    }

    pub(crate) fn set_fault(&self, fault: Option<Fault>) {
        self.orders.borrow_mut().push(Order::Fault(fault));
    }

    pub(crate) fn set_hung(&self, hung: bool) {
        self.orders.borrow_mut().push(Order::Hang(hung));
    }

    /// Asks it to bring `records` up to date.
    pub(crate) fn ask_for_records(&self) {
        self.orders.borrow_mut().push(Order::Report);
    }

    /// Whether there is something that it was told and has not done.
    pub(crate) fn has_orders(&self) -> bool {
        !self.orders.borrow().is_empty()
    }

    /// What the requests of this id took, each.
    pub(crate) fn tokens_of(&self, id: &str) -> Vec<u64> {
        let records = self.records.borrow();
        let of_call = records.iter().filter(|record| record.client_id == id);
        of_call.map(|record| (record.prompt_tokens + record.produced_tokens) as u64).collect()
    }

    fn obey(&self, replica: &Replica) {
        for order in self.orders.borrow_mut().drain(..) {
            match order {
                Order::Fault(fault) => replica.set_fault(fault),
                Order::Hang(true) => replica.hang(),
                Order::Hang(false) => replica.resume(),
                Order::Report => *self.records.borrow_mut() = replica.stats().requests,
            }
        }
    }
}

/// The life of an engine.
pub(crate) async fn host(shared: Rc<Shared>, number: usize) -> turmoil::Result {
    let config = Config { seed: seed_of(shared.plan.seed, &name(number)), speed: 2.0, ..Config::default() };
    let replica = Replica::start(config);
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    let obeying = replica.clone();
    tokio::task::spawn_local(async move {
        loop {
            shared.engines[number - 1].obey(&obeying);
            sleep(LOOK_EVERY).await;
        }
    });
    trace::event(&name(number), "serves");
    loop {
        let (stream, _) = listener.accept().await?;
        let replica = replica.clone();
        tokio::spawn(async move { replica.serve_connection(stream).await });
    }
}

/// Where gateways reach all engines.
pub(crate) fn urls(engines: usize) -> String {
    (1..=engines).map(|number| format!("http://{}:{PORT}", name(number))).collect::<Vec<_>>().join(",")
}
