//! People who leave: each has an account, a token and a key, until something of that is taken away. When that is answered no node may
//! let them in by it.
//!
//! They ask only for what costs no tokens, so limits and usage are the users' alone.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::gateway::{self, ADMIN_PORT, GATEWAY_PORT};
use super::http::{Ask, Client};
use super::net::SimNet;
use super::operator::admin;
use super::setup::{self, ADMIN_TOKEN, LEAVERS, MODEL_PATH};
use super::{Phase, Shared};
use crate::chance::Chance;
use crate::properties::Violation;
use crate::trace;

const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
const GROUPS: &str = "/apis/user.openshift.io/v1/groups";
const TOKENS: &str = "/apis/tollgate.dev/v1/tokens";
/// How often those who have left try every node.
const TRIES: u64 = 3;
/// For so long they wait for a node's answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is taken away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Taken {
    /// The ServiceAccount.
    Account,
    /// The place in the Group that owns the subscription.
    Membership,
    /// That Group.
    Group,
    /// The token.
    Token,
}

impl Taken {
    const ALL: [Taken; 4] = [Taken::Account, Taken::Membership, Taken::Group, Taken::Token];

    fn ends_key(self) -> bool {
        self != Taken::Token
    }

    fn ends_token(self) -> bool {
        matches!(self, Taken::Account | Taken::Token)
    }
}

/// Somebody who will leave.
struct Leaver {
    account: String,
    token: String,
    key: String,
}

impl fmt::Display for Leaver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.account)
    }
}

/// Lets people come and go, as long as anybody calls.
pub(super) async fn come_and_go(shared: Rc<Shared>, net: Rc<SimNet>) {
    let mut office = Office { chance: Chance::of(shared.plan.seed, "leavers"), shared, net };
    let mut number = 0;
    loop {
        let pause = Duration::from_millis(office.chance.between(100, 1_200));
        if !office.shared.goes_on_after(pause).await {
            return;
        }
        if office.shared.phase.get() == Phase::SettingUp {
            continue;
        }
        number += 1;
        // Where an answer is missing nobody knows what is so: the next one, please.
        if let Some(leaver) = office.enter(number).await {
            office.leave(&leaver).await;
        }
    }
}

/// Who makes accounts and takes them away.
struct Office {
    shared: Rc<Shared>,
    net: Rc<SimNet>,
    chance: Chance,
}

impl Office {
    /// Asks some node as the bearer of `token`: the status and the body of its answer.
    async fn ask(&mut self, method: Method, path: &str, token: &str, kind: &str, body: &Value) -> Option<(u16, Value)> {
        let node = self.shared.some_living_node(&mut self.chance);
        let answer = admin(&self.net, node, method, path, token, kind, body).await.ok()?;
        Some((answer.status, serde_json::from_slice(&answer.body).unwrap_or_default()))
    }

    async fn done(&mut self, method: Method, path: &str, kind: &str, body: &Value) -> Option<Value> {
        let (status, answer) = self.ask(method, path, ADMIN_TOKEN, kind, body).await?;
        (status < 300).then_some(answer)
    }

    async fn create_account(&mut self, account: &str) -> Option<Value> {
        let object = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}});
        self.done(Method::POST, &setup::accounts_path(), JSON, &object).await
    }

    /// The Group's only member.
    async fn set_member(&mut self, user: &str) -> Option<()> {
        let users = json!([user]);
        let path = format!("{GROUPS}/{LEAVERS}");
        let (status, _) = self.ask(Method::PATCH, &path, ADMIN_TOKEN, MERGE, &json!({"users": users})).await?;
        match status {
            404 => {
                let metadata = json!({"name": LEAVERS});
                let group = json!({"apiVersion": "user.openshift.io/v1", "kind": "Group", "metadata": metadata, "users": users});
                self.done(Method::POST, GROUPS, JSON, &group).await.map(drop)
            }
            200 => Some(()),
            _ => None,
        }
    }

    async fn enter(&mut self, number: u64) -> Option<Leaver> {
        let account = format!("leaver-{number}");
        self.create_account(&account).await?;
        self.set_member(&setup::user_of(&account)).await?;
        let path = format!("{}/{account}/token", setup::accounts_path());
        let made = self.done(Method::POST, &path, JSON, &json!({})).await?;
        let token = made["status"]["token"].as_str()?.to_owned();
        let wanted = json!({"name": "a key", "subscription": "sim"});
        let (status, made) = self.ask(Method::POST, "/maas-api/v1/api-keys", &token, JSON, &wanted).await?;
        if status != 201 {
            return None;
        }
        let key = made["key"].as_str()?.to_owned();
        Some(Leaver { account, token, key })
    }

    async fn leave(&mut self, leaver: &Leaver) {
        let taken = *self.chance.pick(&Taken::ALL);
        if self.take(taken, leaver).await.is_none() {
            return;
        }
        trace::event("operator", &format!("{leaver} has left: {taken:?}"));
        self.try_all(taken, leaver).await;
        // Another account of that name is somebody else's.
        if taken == Taken::Account && self.create_account(&leaver.account).await.is_some() {
            self.try_all(taken, leaver).await;
        }
    }

    async fn take(&mut self, taken: Taken, leaver: &Leaver) -> Option<()> {
        let path = match taken {
            Taken::Membership => return self.set_member("nobody").await,
            Taken::Account => format!("{}/{}", setup::accounts_path(), leaver.account),
            Taken::Group => format!("{GROUPS}/{LEAVERS}"),
            Taken::Token => {
                let list = self.done(Method::GET, TOKENS, JSON, &Value::Null).await?;
                let user = setup::user_of(&leaver.account);
                let theirs = list["items"].as_array()?.iter().find(|token| token["spec"]["user"] == user.as_str())?;
                format!("{TOKENS}/{}", theirs["metadata"]["name"].as_str()?)
            }
        };
        self.done(Method::DELETE, &path, JSON, &Value::Null).await.map(drop)
    }

    /// Tries what was ended on every node there is, at once and then again.
    async fn try_all(&mut self, taken: Taken, leaver: &Leaver) {
        for _ in 0..TRIES {
            let mut trying = JoinSet::new();
            for node in self.shared.cluster_nodes() {
                if taken.ends_key() {
                    let path = format!("{MODEL_PATH}/v1/models");
                    let (net, key) = (self.net.clone(), leaver.key.clone());
                    trying.spawn_local(
                        async move { (node, "key", is_let_in(&net, node, GATEWAY_PORT, &path, &key).await) },
                    );
                }
                if taken.ends_token() {
                    let (net, token) = (self.net.clone(), leaver.token.clone());
                    trying.spawn_local(async move {
                        (node, "token", is_let_in(&net, node, ADMIN_PORT, "/version", &token).await)
                    });
                }
            }
            let began = trace::now();
            while let Some(tried) = trying.join_next().await {
                if let Ok((node, what, true)) = tried {
                    let text = format!(
                        "node {node} accepts the {what} of {leaver} at {began:?}, after {taken:?} was taken away"
                    );
                    self.shared.violate(Violation::new("REVOKED", text));
                }
            }
            sleep(Duration::from_millis(self.chance.between(50, 600))).await;
        }
    }
}

/// Whether a node answers what only somebody with a good credential gets.
async fn is_let_in(net: &Rc<SimNet>, node: usize, port: u16, path: &str, credential: &str) -> bool {
    let host = gateway::name(node);
    let asked = Ask {
        host: &host,
        port,
        method: Method::GET,
        path,
        token: credential,
        id: "",
        content_type: JSON,
        body: String::new(),
        within: PATIENCE,
        hang_up_after: None,
        keeps: false,
    };
    Client::new(net).ask(&asked).await.is_ok_and(|answer| answer.status < 300)
}
