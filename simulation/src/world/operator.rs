//! Whoever administers the cluster: makes what users need, then goes on changing things while they break, and remembers what
//! it was told.

use std::rc::Rc;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::gateway::{self, ADMIN_PORT};
use super::http::{Answer, Ask, Client, End};
use super::leavers;
use super::net::SimNet;
use super::setup::{self, ADMIN_TOKEN};
use super::{Key, Phase, Shared};
use crate::chance::Chance;
use crate::properties::Violation;
use crate::trace;

/// Objects that administrators change and read at the same time.
pub(crate) const GROUPS: usize = 3;
/// Administrators at work at the same time.
const ADMINISTRATORS: usize = 3;
/// How long an administrator waits for an answer.
const PATIENCE: Duration = Duration::from_secs(12);
/// Who is in the cluster.
const MEMBERS: &str = "/tollgate/v1/members";
/// Nobody knows the state of things until the first write.
pub(crate) const FIRST_VALUE: &str = "v0";

/// One call of the admin API that the history keeps.
#[derive(Clone, Debug)]
pub(crate) struct AdminCall {
    pub(crate) began: Duration,
    pub(crate) ended: Option<(Duration, AdminOutcome)>,
    pub(crate) op: AdminOp,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AdminOp {
    /// Sets a group's one member.
    Write { group: usize, value: String },
    /// Reads it.
    Read { group: usize },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AdminOutcome {
    /// A status, and the group's member if there is one in the answer.
    Answered(u16, Option<String>),
    /// It may or may not have taken effect.
    Unknown,
}

/// The operator's life.
pub(crate) async fn host(shared: Rc<Shared>) -> turmoil::Result {
    let net = Rc::new(SimNet::of("operator", shared.plan.seed));
    let mut chance = Chance::of(shared.plan.seed, "operator");
    for (path, object) in setup::objects(&shared.plan, GROUPS) {
        create(&shared, &net, &mut chance, &path, &object).await;
    }
    let mut tokens = Vec::new();
    for user in 1..=shared.plan.users {
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 86_400},
        });
        let answer = create(&shared, &net, &mut chance, &setup::token_path(user), &request).await;
        tokens.push(answer["status"]["token"].as_str().unwrap_or_default().to_owned());
    }
    // Keys that may be there though nobody was told, by user.
    let mut unknown = vec![0; tokens.len()];
    for (at, token) in tokens.iter().enumerate() {
        let key = loop {
            let node = shared.some_node(&mut chance);
            match create_key(&shared, &net, node, at + 1, token).await {
                Made::Key(key) => break key,
                Made::Refused => {
                    untrue(&shared, format!("node {node} has too many keys of user {} for a first", at + 1))
                }
                Made::Unknown => unknown[at] += 1,
            }
            sleep(Duration::from_millis(100)).await;
        };
        shared.keys.borrow_mut().push(key);
    }
    bound_keys(&shared, &net, &mut chance).await;
    trace::event("operator", "everything is set up");
    for number in 1..=ADMINISTRATORS {
        tokio::task::spawn_local(administrate(shared.clone(), net.clone(), number));
    }
    tokio::task::spawn_local(leavers::come_and_go(shared.clone(), net.clone()));
    tokio::task::spawn_local(manage_keys(shared.clone(), net.clone(), chance, tokens, unknown));
    replace_lost(shared, net).await
}

/// Puts a new node, under a new number, in the place of each that is lost or not wanted any more.
async fn replace_lost(shared: Rc<Shared>, net: Rc<SimNet>) -> turmoil::Result {
    let mut chance = Chance::of(shared.plan.seed, "replacements");
    loop {
        // A person has to notice first.
        sleep(Duration::from_millis(chance.between(100, 1_500))).await;
        let lost = shared.nodes.iter().position(|slot| slot.will_be_replaced() && slot.successor.get().is_none());
        let spare = shared.nodes.iter().position(|slot| !slot.exists.get());
        let (Some(lost), Some(spare)) = (lost, spare) else { continue };
        let (lost, spare) = (lost + 1, spare + 1);
        trace::event("operator", &format!("node {spare} takes the place of node {lost}"));
        let path = format!("{MEMBERS}/{lost}");
        change_members(&shared, &net, &mut chance, Method::DELETE, &path, &Value::Null).await;
        shared.nodes[lost - 1].taken_out.set(Some(trace::now()));
        shared.nodes[spare - 1].exists.set(true);
        let newcomer = json!({"id": spare, "address": gateway::peer_address(spare)});
        change_members(&shared, &net, &mut chance, Method::POST, MEMBERS, &newcomer).await;
        while !is_ready(&net, spare).await {
            sleep(Duration::from_millis(200)).await;
        }
        shared.front.borrow_mut().iter_mut().filter(|node| **node == lost).for_each(|node| *node = spare);
        // One that was not lost runs on until somebody stops it. It may answer, but admits nobody.
        sleep(Duration::from_millis(chance.between(100, 3_000))).await;
        shared.nodes[lost - 1].is_lost.set(true);
        shared.nodes[lost - 1].stop.borrow().notify_one();
        shared.nodes[lost - 1].successor.set(Some(spare));
        trace::event("operator", &format!("node {spare} has taken the place of node {lost}"));
    }
}

/// What whoever sends calls to nodes asks first.
async fn is_ready(net: &Rc<SimNet>, node: usize) -> bool {
    let asked = admin(net, node, Method::GET, "/readyz", ADMIN_TOKEN, "application/json", &Value::Null).await;
    asked.is_ok_and(|answer| answer.status == 200)
}

/// Asks for a change of the members until it is made, on one node after the other.
async fn change_members(
    shared: &Shared,
    net: &Rc<SimNet>,
    chance: &mut Chance,
    method: Method,
    path: &str,
    body: &Value,
) {
    loop {
        let node = shared.some_living_node(chance);
        match admin(net, node, method.clone(), path, ADMIN_TOKEN, "application/json", body).await {
            Ok(answer) if answer.status < 300 => return,
            Ok(answer) => trace::event("operator", &format!("{method} {path}: {}", answer.status)),
            Err(error) => trace::event("operator", &format!("{method} {path}: {error}")),
        }
        sleep(Duration::from_millis(300)).await;
    }
}

/// Creates an object, on one node after the other, and returns what is answered.
async fn create(shared: &Shared, net: &Rc<SimNet>, chance: &mut Chance, path: &str, object: &Value) -> Value {
    let mut is_first = true;
    loop {
        let node = shared.some_living_node(chance);
        match admin(net, node, Method::POST, path, ADMIN_TOKEN, "application/json", object).await {
            Ok(answer) if answer.status < 300 => return serde_json::from_slice(&answer.body).unwrap_or_default(),
            // An earlier attempt has made it, and its answer was lost.
            Ok(answer) if answer.status == 409 && !is_first => return Value::Null,
            Ok(answer) if answer.status == 409 => {
                untrue(shared, format!("node {node} says that {path} has it already, and nobody had asked for it"));
            }
            Ok(answer) => trace::event("operator", &format!("{path}: {}", answer.status)),
            Err(error) => trace::event("operator", &format!("{path}: {error}")),
        }
        is_first = false;
        sleep(Duration::from_millis(100)).await;
    }
}

/// One call of a node's admin port.
pub(super) async fn admin(
    net: &Rc<SimNet>,
    node: usize,
    method: Method,
    path: &str,
    token: &str,
    content_type: &str,
    body: &Value,
) -> Result<Answer, String> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let host = gateway::name(node);
    let asked = Ask {
        host: &host,
        port: ADMIN_PORT,
        method,
        path,
        token,
        id: "",
        content_type,
        body,
        within: PATIENCE,
        hang_up_after: None,
        keeps: false,
    };
    let answer = Client::new(net).ask(&asked).await?;
    if answer.end == End::Complete { Ok(answer) } else { Err("the answer broke off".to_owned()) }
}

/// What came of a wish for a key.
enum Made {
    Key(Key),
    /// The user has as many as one may have.
    Refused,
    /// It may or may not have been made.
    Unknown,
}

async fn create_key(shared: &Shared, net: &Rc<SimNet>, node: usize, user: usize, token: &str) -> Made {
    let body = json!({"name": "a key", "subscription": "sim"});
    let made = admin(net, node, Method::POST, "/maas-api/v1/api-keys", token, "application/json", &body).await;
    let Ok(answer) = made else { return Made::Unknown };
    let made: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    match (answer.status, made["id"].as_str(), made["key"].as_str()) {
        (201, Some(id), Some(secret)) => {
            Made::Key(Key { user, id: id.to_owned(), secret: secret.to_owned(), revoking: None, revoked: None })
        }
        (403, ..) if made["code"] == "api_key_limit_reached" => Made::Refused,
        (400..500, ..) => {
            untrue(shared, format!("a new key for user {user} was refused with {} on node {node}", answer.status));
            Made::Unknown
        }
        _ => Made::Unknown,
    }
}

/// Sets how many keys a user may have, and for how long ended ones are kept.
async fn bound_keys(shared: &Shared, net: &Rc<SimNet>, chance: &mut Chance) {
    let (path, patch) = setup::tenant_patch();
    loop {
        let node = shared.some_living_node(chance);
        let merge = "application/merge-patch+json";
        let answer = admin(net, node, Method::PATCH, &path, ADMIN_TOKEN, merge, &patch).await;
        if answer.is_ok_and(|answer| answer.status < 300) {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// An answer that no history explains: the operator alone makes and revokes keys, and nothing is wrong with what it asks for.
fn untrue(shared: &Shared, text: String) {
    shared.violate(Violation::new("LINEAR", text));
}

/// Makes keys and revokes them, as long as anybody calls.
async fn manage_keys(
    shared: Rc<Shared>,
    net: Rc<SimNet>,
    mut chance: Chance,
    tokens: Vec<String>,
    mut unknown: Vec<usize>,
) {
    while shared.goes_on_after(Duration::from_millis(chance.between(300, 2_000))).await {
        if shared.phase.get() == Phase::SettingUp {
            continue;
        }
        let user = chance.between(1, tokens.len() as u64) as usize;
        // Sometimes on two nodes at once: each sees room for one, and there may be no more.
        let nodes = [shared.some_node(&mut chance), shared.some_node(&mut chance)];
        let wishes = if chance.percent(40) { 2 } else { 1 };
        let may_work = shared.keys.borrow().iter().filter(|key| key.user == user && key.revoked.is_none()).count();
        let token = &tokens[user - 1];
        let made = match wishes {
            1 => vec![create_key(&shared, &net, nodes[0], user, token).await],
            _ => {
                let both = tokio::join!(
                    create_key(&shared, &net, nodes[0], user, token),
                    create_key(&shared, &net, nodes[1], user, token)
                );
                vec![both.0, both.1]
            }
        };
        unknown[user - 1] += made.iter().filter(|made| matches!(made, Made::Unknown)).count();
        let is_refused = made.iter().any(|made| matches!(made, Made::Refused));
        // The other wish of the two may have been the last that had room.
        if is_refused && may_work + unknown[user - 1] + (wishes - 1) < setup::KEYS_MAX {
            let text = format!(
                "user {user} was refused a key on one of the nodes {nodes:?}, has {may_work}, and {} more at most",
                unknown[user - 1]
            );
            shared.violate(Violation::new("KEYS", text));
        }
        for made in made {
            if let Made::Key(key) = made {
                shared.keys.borrow_mut().push(key);
            }
        }
        // Every user keeps the first key.
        let first = shared.plan.users;
        let revocable: Vec<usize> = {
            let keys = shared.keys.borrow();
            (first..keys.len()).filter(|at| keys[*at].revoked.is_none()).collect()
        };
        if revocable.is_empty() || !chance.percent(60) {
            continue;
        }
        let at = *chance.pick(&revocable);
        let (id, owner, is_first) = {
            let mut keys = shared.keys.borrow_mut();
            let is_first = keys[at].revoking.is_none();
            keys[at].revoking.get_or_insert(trace::now());
            (keys[at].id.clone(), keys[at].user, is_first)
        };
        let node = shared.some_node(&mut chance);
        let path = format!("/maas-api/v1/api-keys/{id}");
        let revoked =
            admin(&net, node, Method::DELETE, &path, &tokens[owner - 1], "application/json", &Value::Null).await;
        let Ok(answer) = revoked else { continue };
        if is_first && (400..500).contains(&answer.status) {
            untrue(
                &shared,
                format!("the first revocation of key {at} was refused with {} on node {node}", answer.status),
            );
        }
        if answer.status < 300 {
            trace::event("operator", &format!("key {at} is revoked, says node {node}"));
            shared.keys.borrow_mut()[at].revoked = Some(trace::now());
        }
    }
}

/// Writes and reads groups, and keeps the history.
async fn administrate(shared: Rc<Shared>, net: Rc<SimNet>, number: usize) {
    let mut chance = Chance::of(shared.plan.seed, &format!("administrator {number}"));
    let mut writes = 0;
    while shared.goes_on_after(Duration::from_millis(chance.between(50, 700))).await {
        let group = chance.between(1, GROUPS as u64) as usize;
        let op = if chance.percent(50) {
            writes += 1;
            AdminOp::Write { group, value: format!("v{number}-{writes}") }
        } else {
            AdminOp::Read { group }
        };
        let node = shared.some_node(&mut chance);
        let at = {
            let mut history = shared.admin.borrow_mut();
            history.push(AdminCall { began: trace::now(), ended: None, op: op.clone() });
            history.len() - 1
        };
        let outcome = perform(&shared, &net, node, &op).await;
        trace::event("operator", &format!("administrator {number}, node {node}: {op:?} -> {outcome:?}"));
        shared.admin.borrow_mut()[at].ended = Some((trace::now(), outcome));
    }
}

async fn perform(shared: &Shared, net: &Rc<SimNet>, node: usize, op: &AdminOp) -> AdminOutcome {
    let merge = "application/merge-patch+json";
    let answer = match op {
        AdminOp::Write { group, value } => {
            let patch = json!({"users": [value]});
            admin(net, node, Method::PATCH, &setup::group_path(*group), ADMIN_TOKEN, merge, &patch).await
        }
        AdminOp::Read { group } => {
            admin(net, node, Method::GET, &setup::group_path(*group), ADMIN_TOKEN, merge, &Value::Null).await
        }
    };
    let Ok(answer) = answer else { return AdminOutcome::Unknown };
    let object: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    if answer.status == 404 || (answer.status < 300 && object["users"][0].is_null()) {
        untrue(shared, format!("node {node} answers {op:?} with {} and {object}", answer.status));
    }
    AdminOutcome::Answered(answer.status, object["users"][0].as_str().map(str::to_owned))
}
