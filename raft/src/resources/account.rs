//! ServiceAccounts as users: what Kubernetes calls them, and the groups that come with the name.

use super::{Kind, ObjectKey};

const PREFIX: &str = "system:serviceaccount:";

/// The user name of a ServiceAccount.
pub fn service_account_user(namespace: &str, name: &str) -> String {
    format!("{PREFIX}{namespace}:{name}")
}

/// The ServiceAccount that a user name stands for; `None` if it is another kind of user's.
pub fn service_account_of(user: &str) -> Option<ObjectKey> {
    let (namespace, name) = user.strip_prefix(PREFIX)?.split_once(':')?;
    Some(ObjectKey::new(Kind::ServiceAccount, namespace, name))
}

/// The groups that a ServiceAccount is in by its name; none for another kind of user.
pub fn service_account_groups(user: &str) -> Vec<String> {
    service_account_of(user).map_or_else(Vec::new, |account| {
        vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{}", account.namespace)]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_names_of_accounts_are_those_of_kubernetes() {
        let user = service_account_user("llm", "bot");
        assert_eq!(user, "system:serviceaccount:llm:bot");
        assert_eq!(service_account_of(&user), Some(ObjectKey::new(Kind::ServiceAccount, "llm", "bot")));
        assert_eq!(service_account_groups(&user), ["system:serviceaccounts", "system:serviceaccounts:llm"]);
        for user in ["ann", "system:serviceaccount:llm", "system:serviceaccounts:llm:bot", ""] {
            assert_eq!(service_account_of(user), None, "{user}");
            assert!(service_account_groups(user).is_empty(), "{user}");
        }
    }
}
