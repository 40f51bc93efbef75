//! A state with a log in front of it, for tests: every change gets the next index and a request id of its own.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{MeterId, Outcome, State, Subject};
use crate::command::{Command, Reply};
use crate::ids::{RequestId, Timestamp};
use crate::resources::{Kind, LimitKind, LimitScope, NewObject, ObjectKey, TENANT_NAMESPACE, Unit};

/// See the module.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) state: State,
    pub(crate) time: Timestamp,
    pub(crate) index: u64,
}

impl Log {
    pub(crate) fn apply(&mut self, command: Command) -> Outcome {
        self.index += 1;
        self.state.apply(self.index, RequestId(u128::from(self.index)), self.time, command)
    }

    pub(crate) fn reply(&mut self, command: Command) -> Reply {
        self.apply(command).reply
    }

    /// Creates an object, or fails the test.
    pub(crate) fn create(&mut self, object: NewObject) {
        let uid = Uuid::from_u128(u128::from(self.index) + 1);
        let reply = self.reply(Command::CreateObject { object, uid });
        assert!(matches!(reply, Reply::Object(_)), "{reply:?}");
    }

    /// Replaces an object, or fails the test.
    pub(crate) fn update(&mut self, object: NewObject) {
        let reply = self.reply(Command::UpdateObject { object, resource_version: None });
        assert!(matches!(reply, Reply::Object(_)), "{reply:?}");
    }
}

/// An object without labels and annotations.
pub(crate) fn object(kind: Kind, namespace: &str, name: &str, body: &str) -> NewObject {
    NewObject {
        key: ObjectKey::new(kind, namespace, name),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        body: body.to_owned(),
    }
}

/// The subscription `team` with one limit on `llm/granite`.
pub(crate) fn subscription(limit: u64, window: &str) -> NewObject {
    let body = format!(
        r#"{{"spec":{{"owner":{{"users":["ann"]}},"modelRefs":[{{"namespace":"llm","name":"granite",
            "tokenRateLimits":[{{"limit":{limit},"window":"{window}"}}]}}]}}}}"#
    );
    object(Kind::Subscription, TENANT_NAMESPACE, "team", &body)
}

/// The meter of `user` on the limit of [`subscription`] with windows of so many seconds.
pub(crate) fn meter(user: &str, window_seconds: u32) -> MeterId {
    MeterId {
        subscription: (TENANT_NAMESPACE.to_owned(), "team".to_owned()),
        model: ("llm".to_owned(), "granite".to_owned()),
        limit: LimitKind { window_seconds, unit: Unit::Total, scope: LimitScope::User },
        subject: Subject::User(user.to_owned()),
    }
}
