//! The route table over a state made by commands.

use std::collections::BTreeMap;
use std::sync::Arc;

use raft::command::Command;
use raft::resources::{Kind, NewObject, ObjectKey, validate};
use raft::state::{ApiKey, Token};
use raft::{RequestId, State, Timestamp, View};
use serde_json::{Value, json};
use uuid::Uuid;

use super::table::RouteTable;
use super::*;
use crate::auth::Credential;

struct World(State);

impl World {
    fn new() -> World {
        let mut world = World(State::default());
        for namespace in ["llm", "lab", "a-team"] {
            world.add(Kind::Namespace, "", namespace, json!({}));
        }
        world
    }

    fn add(&mut self, kind: Kind, namespace: &str, name: &str, body: Value) {
        let key = ObjectKey::new(kind, namespace, name);
        let object = NewObject { key, labels: BTreeMap::new(), annotations: BTreeMap::new(), body: body.to_string() };
        validate(&object).unwrap();
        let index = self.0.applied + 1;
        let command = Command::CreateObject { object, uid: Uuid::from_u128(index.into()) };
        assert!(self.0.apply(index, RequestId(index.into()), Timestamp(index), command).changed);
    }

    fn service(&mut self, namespace: &str, name: &str, served: &str) {
        self.add(Kind::InferenceService, namespace, name, json!({"spec": {"model": {"name": served}}}));
    }

    fn model(&mut self, namespace: &str, name: &str, service: &str) {
        let spec = json!({"spec": {"modelRef": {"kind": "LLMInferenceService", "name": service}}});
        self.add(Kind::ModelRef, namespace, name, spec);
    }

    fn subscription(&mut self, namespace: &str, name: &str, group: &str, models: &[&str]) {
        let limits = json!([{"limit": 100, "window": "1m"}]);
        let mut models: Vec<Value> = refs(models);
        for model in &mut models {
            model["tokenRateLimits"] = limits.clone();
        }
        let spec = json!({"spec": {"owner": {"groups": [{"name": group}]}, "modelRefs": models}});
        self.add(Kind::Subscription, namespace, name, spec);
    }

    fn policy(&mut self, name: &str, group: &str, models: &[&str]) {
        let spec = json!({"spec": {"subjects": {"groups": [{"name": group}]}, "modelRefs": refs(models)}});
        self.add(Kind::AuthPolicy, "models-as-a-service", name, spec);
    }

    fn table(&self) -> RouteTable {
        RouteTable::of(&View::of(&self.0))
    }
}

fn refs(models: &[&str]) -> Vec<Value> {
    let parts = models.iter().filter_map(|model| model.split_once('/'));
    parts.map(|(namespace, name)| json!({"namespace": namespace, "name": name})).collect()
}

fn key(user: &str, group: &str, subscription: &str) -> Caller {
    let key = ApiKey {
        id: Uuid::nil(),
        hash: [0; 32],
        name: String::new(),
        description: String::new(),
        username: user.to_owned(),
        groups: vec![group.to_owned()],
        subscription: subscription.to_owned(),
        created: Timestamp(0),
        expires: Timestamp(u64::MAX),
        ephemeral: false,
        labels: Vec::new(),
        revoked: None,
        last_used: None,
    };
    Caller { groups: key.groups.clone().into(), credential: Credential::Key(Arc::new(key)) }
}

fn token(user: &str, group: &str) -> Caller {
    let token = Token {
        hash: [0; 32],
        username: user.to_owned(),
        groups: vec![group.to_owned()],
        expires: None,
        service_account: None,
        created: None,
        last_used: None,
    };
    Caller { groups: token.groups.clone().into(), credential: Credential::Token(Arc::new(token)) }
}

/// Two namespaces publish a `qwen`; `llama` is served under a vendor's name; `ghost` has no service.
fn world() -> World {
    let mut world = World::new();
    world.service("llm", "qwen-service", "Qwen/Qwen3-8B");
    world.service("lab", "qwen", "Qwen/Qwen3-8B");
    world.service("llm", "llama", "meta/Llama-4");
    world.model("llm", "qwen", "qwen-service");
    world.model("lab", "qwen", "qwen");
    world.model("llm", "llama", "llama");
    world.model("llm", "ghost", "nobody");
    world.subscription("models-as-a-service", "dev", "team", &["llm/qwen", "llm/llama"]);
    world.subscription("models-as-a-service", "lab", "lab", &["lab/qwen"]);
    world.subscription("models-as-a-service", "more", "team", &["llm/llama", "llm/missing"]);
    world.subscription("models-as-a-service", "broken", "team", &["llm/missing"]);
    world.policy("llm", "team", &["llm/qwen"]);
    world.policy("llama", "team", &["llm/llama"]);
    world.policy("lab", "lab", &["lab/qwen"]);
    world
}

fn found(lookup: Lookup) -> String {
    match lookup {
        Lookup::Found(model) => model.id.to_string(),
        Lookup::Ambiguous(names) => format!("{names:?}").replace('"', ""),
        Lookup::Unknown => "unknown".to_owned(),
    }
}

#[test]
fn paths_mean_models_by_their_own_name_or_their_services() {
    let table = world().table();
    let cases = [
        ("llm", "qwen", Some("llm/qwen")),
        ("llm", "qwen-service", Some("llm/qwen")),
        ("lab", "qwen", Some("lab/qwen")),
        ("llm", "ghost", Some("llm/ghost")),
        ("llm", "Qwen/Qwen3-8B", None),
        ("else", "qwen", None),
    ];
    for (namespace, name, answer) in cases {
        let model = table.by_path(namespace, name).map(|model| model.id.to_string());
        assert_eq!(model.as_deref(), answer, "{namespace}/{name}");
    }
    let llama = table.by_path("llm", "llama").unwrap();
    assert_eq!((&*llama.served_name, llama.resolved), ("meta/Llama-4", true));
    let ghost = table.by_path("llm", "ghost").unwrap();
    assert_eq!((&*ghost.served_name, ghost.resolved), ("nobody", false));
}

#[test]
fn a_models_own_name_is_stronger_than_a_services() {
    let mut world = World::new();
    world.model("llm", "alias", "qwen");
    world.model("llm", "qwen", "other");
    let table = world.table();
    assert_eq!(table.by_path("llm", "qwen").unwrap().service.to_string(), "llm/other");
    assert_eq!(table.by_path("llm", "alias").unwrap().service.to_string(), "llm/qwen");
}

#[test]
fn bodies_name_models_in_several_ways() {
    let table = world().table();
    let (team, lab, nobody) = (key("ann", "team", "dev"), token("lea", "lab"), token("eve", "none"));
    let cases = [
        ("llama", &nobody, "llm/llama"),
        ("llm/qwen", &nobody, "llm/qwen"),
        ("lab/qwen", &nobody, "lab/qwen"),
        ("meta/Llama-4", &nobody, "llm/llama"),
        ("publishers/llm/models/llama", &nobody, "llm/llama"),
        ("publishers/lab/models/Qwen/Qwen3-8B", &nobody, "lab/qwen"),
        ("publishers/lab/models/llama", &nobody, "unknown"),
        // A name that two namespaces use means the one the caller may use.
        ("qwen", &team, "llm/qwen"),
        ("qwen", &lab, "lab/qwen"),
        ("Qwen/Qwen3-8B", &lab, "lab/qwen"),
        ("nothing", &team, "unknown"),
        ("", &team, "unknown"),
    ];
    for (name, caller, answer) in cases {
        assert_eq!(found(table.by_name(name, caller)), answer, "{name} by {}", caller.user());
    }

    let mut world = world();
    world.subscription("a-team", "both", "both", &["llm/qwen", "lab/qwen"]);
    world.policy("both", "both", &["llm/qwen", "lab/qwen"]);
    let lookup = world.table().by_name("qwen", &token("max", "both"));
    assert!(matches!(&lookup, Lookup::Ambiguous(names) if names.len() == 2), "{lookup:?}");
}

/// Who, namespace, model, requested, subscription or reason.
type Case = (Caller, &'static str, &'static str, Option<&'static str>, Result<&'static str, &'static str>);

#[test]
fn access_needs_an_owner_match_and_a_policy_match() {
    let table = world().table();
    let key_of = |subscription| key("ann", "team", subscription);
    let cases: Vec<Case> = vec![
        (key_of("dev"), "llm", "qwen", None, Ok("models-as-a-service/dev")),
        (key_of("dev"), "llm", "qwen", Some("more"), Ok("models-as-a-service/dev")),
        (key_of("dev"), "llm", "llama", None, Ok("models-as-a-service/dev")),
        (key_of("gone"), "llm", "qwen", None, Err("not_found")),
        (key_of("lab"), "lab", "qwen", None, Err("access_denied")),
        (key_of("dev"), "lab", "qwen", None, Err("model_not_in_subscription")),
        (key_of("broken"), "llm", "qwen", None, Err("model_unhealthy")),
        (key_of("more"), "llm", "llama", None, Ok("models-as-a-service/more")),
        (token("ann", "team"), "llm", "qwen", None, Ok("models-as-a-service/dev")),
        (token("ann", "team"), "llm", "llama", None, Err("multiple_subscriptions")),
        (token("ann", "team"), "llm", "llama", Some("more"), Ok("models-as-a-service/more")),
        (token("ann", "team"), "llm", "llama", Some("models-as-a-service/more"), Ok("models-as-a-service/more")),
        (token("ann", "team"), "llm", "llama", Some("lab"), Err("access_denied")),
        (token("ann", "team"), "llm", "llama", Some("elsewhere/more"), Err("not_found")),
        (token("ann", "team"), "lab", "qwen", None, Err("not_found")),
        (token("eve", "none"), "llm", "qwen", None, Err("not_found")),
    ];
    for (caller, namespace, name, requested, answer) in cases {
        let model = table.by_path(namespace, name).unwrap();
        let case = format!("{} {:?} {namespace}/{name} {requested:?}", caller.user(), caller.bound_subscription());
        let permit = table.authorize(caller, model, requested);
        let id = permit.as_ref().map(|permit| permit.subscription().id.to_string());
        assert_eq!(
            id.as_deref().map_err(|denied| denied.reason()),
            answer.as_ref().map(|id| *id).map_err(|why| *why),
            "{case}"
        );
    }
}

#[test]
fn an_owner_without_a_policy_is_told_so() {
    let mut world = World::new();
    world.model("llm", "qwen", "qwen");
    world.subscription("models-as-a-service", "dev", "team", &["llm/qwen"]);
    world.policy("other", "others", &["llm/qwen"]);
    let table = world.table();
    let denied = table.authorize(key("ann", "team", "dev"), table.by_path("llm", "qwen").unwrap(), None).unwrap_err();
    assert_eq!(denied, Denied::NoPolicy { user: "ann".to_owned(), model: "llm/qwen".to_owned() });
}

#[test]
fn of_subscriptions_of_one_name_the_tenants_counts() {
    let mut world = World::new();
    world.model("llm", "qwen", "qwen");
    world.policy("p", "team", &["llm/qwen"]);
    world.subscription("a-team", "dev", "team", &["llm/qwen"]);
    world.subscription("models-as-a-service", "dev", "team", &["llm/qwen"]);
    let table = world.table();
    let model = table.by_path("llm", "qwen").unwrap();
    let through = |requested| {
        let permit = table.authorize(token("ann", "team"), model, Some(requested)).unwrap();
        permit.subscription().id.to_string()
    };
    assert_eq!(through("dev"), "models-as-a-service/dev");
    assert_eq!(through("a-team/dev"), "a-team/dev");
}

#[test]
fn lists_show_what_may_be_used_and_through_what() {
    let table = world().table();
    let list = |caller: &Caller, subscription| {
        let models = table.models_for(caller, subscription).map_err(|denied| denied.reason())?;
        let line = |(model, names): &(Arc<Model>, Vec<Name>)| {
            let names: Vec<&str> = names.iter().map(|name| &*name.name).collect();
            format!("{}: {}", model.id, names.join(" "))
        };
        Ok(models.iter().map(line).collect::<Vec<String>>())
    };
    let lines = |lines: &[&str]| Ok(lines.iter().map(|line| (*line).to_owned()).collect());
    let ann = token("ann", "team");
    assert_eq!(list(&ann, None), lines(&["llm/llama: dev more", "llm/qwen: dev"]));
    assert_eq!(list(&ann, Some("more")), lines(&["llm/llama: more"]));
    assert_eq!(list(&ann, Some("lab")), Err("access_denied"));
    assert_eq!(list(&key("ann", "team", "more"), Some("dev")), lines(&["llm/llama: more"]));
    assert_eq!(list(&token("eve", "none"), None), lines(&[]));
}
