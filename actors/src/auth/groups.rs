//! In which groups a user is now: those of Group objects, those of a ServiceAccount's name, those that the user's tokens bring, and
//! [`AUTHENTICATED`].

use std::collections::HashMap;
use std::sync::Arc;

use raft::resources::{KeyGroups, Kind, Spec, service_account_groups};
use raft::state::{ApiKey, Token};
use raft::{Timestamp, View};

/// The group of everybody who shows a good credential.
const AUTHENTICATED: &str = "system:authenticated";

/// What the objects of a View say of users' groups.
pub(super) struct Groups {
    /// Of every user whom a Group object names: all groups but those that tokens bring.
    named: HashMap<String, Arc<[String]>>,
    /// Of a user whom nothing names.
    everybody: Arc<[String]>,
    of_keys: KeyGroups,
}

impl Groups {
    pub(super) fn of(view: &View) -> Groups {
        let mut named: HashMap<&String, Vec<String>> = HashMap::new();
        for object in view.objects_of(Kind::Group) {
            let Spec::Group(group) = &object.spec else { continue };
            for user in &group.users {
                let names = named.entry(user).or_default();
                if names.last() != Some(&object.key.name) {
                    names.push(object.key.name.clone());
                }
            }
        }
        let named = named.into_iter().map(|(user, names)| (user.clone(), with_own(user, names)));
        Groups { named: named.collect(), everybody: with_own("", Vec::new()), of_keys: view.tenant().key_groups }
    }

    /// The groups of a key: its owner's now, or those it was created with.
    pub(super) fn of_key(&self, view: &View, key: &ApiKey, now: Timestamp) -> Arc<[String]> {
        match self.of_keys {
            KeyGroups::Frozen => key.groups.clone().into(),
            KeyGroups::Live => {
                let tokens = view.tokens_of(&key.username).filter(|token| token.is_valid(now));
                self.of_user(&key.username, tokens.flat_map(|token| &token.groups))
            }
        }
    }

    /// The groups of a token: its user's now, and its own.
    pub(super) fn of_token(&self, token: &Token) -> Arc<[String]> {
        self.of_user(&token.username, &token.groups)
    }

    fn of_user<'a>(&self, user: &str, brought: impl IntoIterator<Item = &'a String>) -> Arc<[String]> {
        let known = match self.named.get(user) {
            Some(groups) => groups.clone(),
            None if service_account_groups(user).is_empty() => self.everybody.clone(),
            None => with_own(user, Vec::new()),
        };
        let mut more: Vec<String> = Vec::new();
        for group in brought {
            if !known.contains(group) && !more.contains(group) {
                more.push(group.clone());
            }
        }
        if more.is_empty() {
            return known;
        }
        more.extend(known.iter().cloned());
        more.into()
    }
}

/// What Group objects give a user, and what every user of that name has: each once.
fn with_own(user: &str, mut groups: Vec<String>) -> Arc<[String]> {
    for own in service_account_groups(user).into_iter().chain([AUTHENTICATED.to_owned()]) {
        if !groups.contains(&own) {
            groups.push(own);
        }
    }
    groups.into()
}
