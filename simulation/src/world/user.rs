//! A user: calls, streams, hangs up, retries, and writes down what came back.

use std::rc::Rc;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::call::{Call, Ended};
use super::gateway::{self, GATEWAY_PORT};
use super::http::{Answer, Ask, Client, End};
use super::net::SimNet;
use super::setup::MODEL_PATH;
use super::{Phase, Shared};
use crate::chance::Chance;
use crate::properties::Violation;
use crate::trace;

/// How long a user waits for an answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// For so long somebody goes on trying a key that was revoked.
const JUST_REVOKED: Duration = Duration::from_millis(1500);

/// A user's name on the network.
pub(crate) fn name(number: usize) -> String {
    format!("user-{number}")
}

/// A user's life: several calls at a time.
pub(crate) async fn host(shared: Rc<Shared>, number: usize) -> turmoil::Result {
    let net = Rc::new(SimNet::of(&name(number), shared.plan.seed));
    let mut chance = Chance::of(shared.plan.seed, &name(number));
    let hands = match (shared.plan.is_skewed, number) {
        (false, _) => chance.between(1, 4),
        (true, 1) => 6,
        (true, _) => 1,
    };
    let mut calling = tokio::task::JoinSet::new();
    for hand in 1..=hands {
        let chance = Chance::of(shared.plan.seed, &format!("{} hand {hand}", name(number)));
        calling.spawn_local(call_on(shared.clone(), net.clone(), number, hand, chance));
    }
    while let Some(ended) = calling.join_next().await {
        ended?;
    }
    Ok(())
}

async fn call_on(shared: Rc<Shared>, net: Rc<SimNet>, user: usize, hand: u64, mut chance: Chance) {
    let mut client = Client::new(&net);
    // Most are people, some are loops that somebody forgot.
    let pauses = if chance.percent(10) { (1, 10) } else { (5, 400) };
    let mut pause = Duration::ZERO;
    let mut calls = 0;
    while shared.phase.get() == Phase::SettingUp {
        sleep(Duration::from_millis(100)).await;
    }
    while shared.goes_on_after(pause).await {
        calls += 1;
        // A key that was just revoked is tried often, wherever somebody may not have heard of it.
        let (tries_revoked, tries_just_revoked) = (chance.percent(20), chance.percent(60));
        let keys: Vec<usize> = {
            let keys = shared.keys.borrow();
            let own: Vec<usize> = (0..keys.len()).filter(|at| keys[*at].user == user).collect();
            let is_new = |at: &usize| keys[*at].revoked.is_some_and(|revoked| trace::now() < revoked + JUST_REVOKED);
            let may_try = |at: &usize| tries_revoked || keys[*at].revoked.is_none();
            let just_revoked: Vec<usize> = own.iter().copied().filter(is_new).collect();
            match tries_just_revoked && !just_revoked.is_empty() {
                true => just_revoked,
                false => own.into_iter().filter(may_try).collect(),
            }
        };
        if keys.is_empty() {
            continue;
        }
        let key = *chance.pick(&keys);
        let node = choose_node(&shared, &mut chance);
        let id = format!("u{user}h{hand}c{calls}");
        // They find out whether what is left of a limit can be used.
        let is_smallest =
            shared.plan.is_skewed && hand == 1 && (shared.phase.get() == Phase::Calm || chance.percent(20));
        let is_poison = shared.poisoning.borrow().contains(&user);
        let text = match (is_poison, is_smallest) {
            (true, _) => Text::poison(),
            (false, true) => Text::smallest(),
            (false, false) => Text::draw(&mut chance, &id),
        };
        let (is_streamed, is_stated) = (text.streams, text.max_tokens.is_some());
        let at = {
            let mut history = shared.calls.borrow_mut();
            let began = trace::now();
            let call = Call { id: id.clone(), key, node, is_smallest, is_streamed, is_stated, began, ended: None };
            history.push(call);
            history.len() - 1
        };
        let ended = call(&shared, &mut client, &mut chance, key, node, &id, text).await;
        trace::event(&name(user), &format!("{id} with key {key} on node {node}: {ended:?}"));
        // Some ask again at once when they were refused.
        pause = match ended {
            _ if is_poison => Duration::from_millis(chance.between(5, 50)),
            Ended::Refused(_) | Ended::Broken(_) if chance.percent(30) => Duration::from_millis(chance.between(1, 20)),
            _ => Duration::from_millis(chance.between(pauses.0, pauses.1)),
        };
        shared.calls.borrow_mut()[at].ended = Some((trace::now(), ended));
    }
}

/// Mostly one that a load balancer would choose. Some callers remember where they were sent before.
fn choose_node(shared: &Shared, chance: &mut Chance) -> usize {
    let was_there = |node: &usize| shared.nodes[*node - 1].is_unwanted.get() && !shared.nodes[*node - 1].is_lost.get();
    let left: Vec<usize> = (1..=shared.plan.nodes).filter(was_there).collect();
    if !left.is_empty() && chance.percent(20) {
        return *chance.pick(&left);
    }
    let steady = if shared.plan.shuns_restarted { shared.steady_nodes() } else { Vec::new() };
    if steady.is_empty() { shared.some_node(chance) } else { *chance.pick(&steady) }
}

/// What is asked, and how.
struct Text {
    content: String,
    max_tokens: Option<u64>,
    streams: bool,
    hang_up_after: Option<usize>,
    /// It is a message to which engines answer 500.
    is_poison: bool,
}

impl Text {
    fn draw(chance: &mut Chance, id: &str) -> Text {
        let streams = chance.percent(50);
        let hang_up_after = chance.percent(15).then(|| chance.between(0, 8) as usize);
        let words = "word ".repeat(chance.between(1, 60) as usize);
        let max_tokens = chance.percent(80).then(|| chance.between(1, 80));
        Text { content: format!("{id} {words}"), max_tokens, streams, hang_up_after, is_poison: false }
    }

    fn smallest() -> Text {
        Text { content: "x".to_owned(), max_tokens: Some(1), streams: false, hang_up_after: None, is_poison: false }
    }

    fn poison() -> Text {
        Text { is_poison: true, ..Text::smallest() }
    }
}

async fn call(
    shared: &Shared,
    client: &mut Client,
    chance: &mut Chance,
    key: usize,
    node: usize,
    id: &str,
    text: Text,
) -> Ended {
    let secret = shared.keys.borrow()[key].secret.clone();
    let Text { content, max_tokens, streams, hang_up_after, is_poison } = text;
    let mut body = json!({
        "model": "sim",
        "messages": [{"role": "user", "content": content}],
        "stream": streams,
    });
    if let Some(tokens) = max_tokens {
        body["max_tokens"] = tokens.into();
    }
    if streams && chance.percent(50) {
        body["stream_options"] = json!({"include_usage": true, "continuous_usage_stats": true});
        body["return_token_ids"] = true.into();
    }
    if is_poison {
        body["messages"] = json!([]);
    }
    let endpoint = if is_poison { "/v1/messages" } else { "/v1/chat/completions" };
    let (host, path) = (gateway::name(node), format!("{MODEL_PATH}{endpoint}"));
    let asked = Ask {
        host: &host,
        port: GATEWAY_PORT,
        method: Method::POST,
        path: &path,
        token: &secret,
        id,
        content_type: "application/json",
        body: body.to_string(),
        within: PATIENCE,
        hang_up_after,
        keeps: chance.percent(60),
    };
    match client.ask(&asked).await {
        Err(error) => Ended::Broken(error),
        Ok(answer) if answer.status != 200 => Ended::Refused(answer.status),
        Ok(answer) => {
            // What did arrive is looked at, also when it is not all.
            let read = if streams { read_stream(shared, id, &answer) } else { read_whole(shared, id, &answer) };
            match answer.end {
                End::Complete => read,
                End::HungUp => Ended::HungUp,
                End::Broken => Ended::Broken("the answer broke off".to_owned()),
            }
        }
    }
}

/// The answer to another call would be a leak. Here two calls with one answer are found; whether the answer's id is the engine's for
/// this call is compared when the engines tell (USAGE).
fn check_owner(shared: &Shared, id: &str, answer: &Value) {
    let theirs = answer["id"].as_str().unwrap_or_default();
    if theirs.is_empty() {
        return;
    }
    let before = shared.answers.borrow_mut().insert(theirs.to_owned(), id.to_owned());
    if let Some(other) = before.filter(|other| other != id) {
        shared.violate(Violation::new("OWN", format!("call {id} was answered with the answer to {other}")));
    }
}

/// A whole answer that is no JSON came from an engine that talks nonsense, or from us.
fn check_sense(shared: &Shared, id: &str, answer: &Answer) {
    if answer.end == End::Complete && shared.plan.usage_is_true() {
        let text = String::from_utf8_lossy(&answer.body);
        shared.violate(Violation::new("STREAM", format!("call {id} has got all of what is no JSON: {text}")));
    }
}

fn read_whole(shared: &Shared, id: &str, answer: &Answer) -> Ended {
    let Ok(value) = serde_json::from_slice::<Value>(&answer.body) else {
        check_sense(shared, id, answer);
        return Ended::Broken("not JSON".to_owned());
    };
    check_owner(shared, id, &value);
    Ended::Answered { tokens: value["usage"]["total_tokens"].as_u64() }
}

/// A stream is over when it says so; without that it broke, whatever HTTP says. One that counts its tokens lets us see that none is
/// missing and none is out of order.
fn read_stream(shared: &Shared, id: &str, answer: &Answer) -> Ended {
    let text = String::from_utf8_lossy(&answer.body);
    let (mut tokens, mut seen, mut is_done, mut error) = (None, 0, false, None);
    for data in text.lines().filter_map(|line| line.strip_prefix("data: ")) {
        if is_done {
            shared.violate(Violation::new("STREAM", format!("call {id} got something after its end: {data}")));
        }
        if data == "[DONE]" {
            is_done = true;
            continue;
        }
        let Ok(event) = serde_json::from_str::<Value>(data) else {
            check_sense(shared, id, answer);
            error = Some("an event that is not JSON".to_owned());
            continue;
        };
        check_owner(shared, id, &event);
        if !event["error"].is_null() {
            error = Some("an error event".to_owned());
        }
        tokens = event["usage"]["total_tokens"].as_u64().or(tokens);
        seen += event["choices"][0]["token_ids"].as_array().map_or(0, Vec::len) as u64;
        let counted = event["usage"]["completion_tokens"].as_u64().filter(|_| shared.plan.usage_is_true());
        if let Some(counted) = counted.filter(|counted| *counted != seen) {
            let text = format!("call {id} has got {seen} tokens when {counted} had been produced");
            shared.violate(Violation::new("STREAM", text));
        }
    }
    match error {
        Some(error) => Ended::Broken(error),
        None if is_done => Ended::Answered { tokens },
        None => Ended::Broken("the stream has no end".to_owned()),
    }
}
