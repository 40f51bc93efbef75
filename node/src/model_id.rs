//! `…/v1/models/<id>`: where the id begins, and what it says.
//!
//! Ids may hold slashes (`org/model`), encoded or not: clients write them either way. So all that follows is one id, decoded once. It
//! is only compared with names, and never becomes a path of anything.

use percent_encoding::percent_decode_str;

/// What the id is appended to.
const LIST: &str = "/v1/models";

/// An id that no model has, because it would leave its place in a path or has characters of control.
#[derive(PartialEq, Eq, Debug, thiserror::Error)]
#[error("the model id in the path is not UTF-8, has a control character, a backslash, or a segment `.` or `..`")]
pub(crate) struct BadId;

/// Splits a path into that of the list and the id behind it; the id is `None` where there is none. The list is at the beginning, or behind
/// `/maas-api` or two segments that name a model.
pub(crate) fn split(path: &str) -> Result<(&str, Option<String>), BadId> {
    let third_slash = path.match_indices('/').nth(2).map(|(at, _)| at);
    let below_maas_api = path.starts_with("/maas-api/").then_some("/maas-api".len());
    let begins =
        |at: &usize| path[*at..].strip_prefix(LIST).is_some_and(|rest| rest.len() > 1 && rest.starts_with('/'));
    let Some(at) = [Some(0), below_maas_api, third_slash].into_iter().flatten().find(begins) else {
        return Ok((path, None));
    };
    let (list, id) = path.split_at(at + LIST.len());
    let id = percent_decode_str(&id[1..]).decode_utf8().map_err(|_| BadId)?;
    let is_bad = |character: char| character.is_control() || character == '\\';
    if id.contains(is_bad) || id.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(BadId);
    }
    Ok((list, Some(id.into_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_all_that_follows_the_list() {
        let table = [
            ("/v1/models", Some(("/v1/models", ""))),
            ("/v1/models/", Some(("/v1/models/", ""))),
            ("/v1/models/qwen", Some(("/v1/models", "qwen"))),
            ("/v1/models/org/model", Some(("/v1/models", "org/model"))),
            ("/v1/models/org%2Fmodel", Some(("/v1/models", "org/model"))),
            ("/v1/models/org%252fmodel", Some(("/v1/models", "org%2fmodel"))),
            ("/v1/models/a%20b%3A1", Some(("/v1/models", "a b:1"))),
            ("/v1/models/v1/models/x", Some(("/v1/models", "v1/models/x"))),
            ("/maas-api/v1/models/org/model", Some(("/maas-api/v1/models", "org/model"))),
            ("/ns/m/v1/models/org/model", Some(("/ns/m/v1/models", "org/model"))),
            ("/ns/m/v1/modelsx/org", Some(("/ns/m/v1/modelsx/org", ""))),
            ("/ns/v1/models/x", Some(("/ns/v1/models/x", ""))),
            ("/v1/models/../x", None),
            ("/v1/models/..%2fx", None),
            ("/v1/models/a/%2e%2e/b", None),
            ("/v1/models/a%5cb", None),
            ("/v1/models/a%00", None),
            ("/v1/models/%ff", None),
        ];
        for (path, expected) in table {
            let found = split(path);
            let found = found.as_ref().ok().map(|(list, id)| (*list, id.as_deref().unwrap_or_default()));
            assert_eq!(found, expected, "{path}");
        }
    }
}
