//! Selectors: which objects of a list are meant, by their labels or by their names.

use std::collections::BTreeMap;

use raft::resources::Object;

/// Requirements on labels; all of them must hold.
#[derive(Debug, Default)]
pub(super) struct LabelSelector(Vec<Requirement>);

#[derive(Debug, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

impl LabelSelector {
    /// Reads `a=b,c!=d,e in (f,g),h notin (i),j,!k`. Errors: what is wrong.
    pub(super) fn parse(text: &str) -> Result<LabelSelector, String> {
        split_outside_parentheses(text)
            .into_iter()
            .filter(|part| !part.is_empty())
            .map(requirement)
            .collect::<Result<_, _>>()
            .map(LabelSelector)
    }

    pub(super) fn matches(&self, object: &Object) -> bool {
        self.0.iter().all(|requirement| requirement.holds(&object.labels))
    }
}

impl Requirement {
    /// A label that is absent satisfies every negative requirement.
    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Requirement::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Requirement::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Requirement::Exists(key) => labels.contains_key(key),
            Requirement::Absent(key) => !labels.contains_key(key),
        }
    }
}

fn requirement(text: &str) -> Result<Requirement, String> {
    if let Some((key, values)) = text.strip_suffix(')').and_then(|text| text.split_once('(')) {
        let values = values.split(',').map(|value| value.trim().to_owned()).collect();
        let (key, operator) = key.trim().rsplit_once(char::is_whitespace).unwrap_or((key, ""));
        return match operator {
            "in" => Ok(Requirement::In(label_key(key)?, values)),
            "notin" => Ok(Requirement::NotIn(label_key(key)?, values)),
            _ => Err(format!("unable to parse requirement {text:?}: use `in` or `notin` before the parentheses")),
        };
    }
    if let Some((key, value)) = text.split_once("!=") {
        return Ok(Requirement::NotIn(label_key(key)?, vec![value.trim().to_owned()]));
    }
    if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return Ok(Requirement::In(label_key(key)?, vec![value.trim().to_owned()]));
    }
    match text.strip_prefix('!') {
        Some(key) => Ok(Requirement::Absent(label_key(key)?)),
        None => Ok(Requirement::Exists(label_key(text)?)),
    }
}

fn label_key(text: &str) -> Result<String, String> {
    let key = text.trim();
    let is_key =
        !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/'));
    if is_key { Ok(key.to_owned()) } else { Err(format!("unable to parse requirement: {key:?} is not a label key")) }
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut depth) = (0, 0_i32);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts
}

/// Requirements on `metadata.name` and `metadata.namespace`; all of them must hold.
#[derive(Debug, Default)]
pub(super) struct FieldSelector(Vec<(Field, bool, String)>);

#[derive(Debug, Clone, Copy)]
enum Field {
    Name,
    Namespace,
}

impl FieldSelector {
    /// Reads `metadata.name=a,metadata.namespace!=b`. Errors: what is wrong.
    pub(super) fn parse(text: &str) -> Result<FieldSelector, String> {
        let mut requirements = Vec::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let negative = part.split_once("!=").map(|(field, value)| (field, false, value));
            let positive =
                || part.split_once("==").or_else(|| part.split_once('=')).map(|(field, value)| (field, true, value));
            let (field, equal, value) =
                negative.or_else(positive).ok_or_else(|| format!("invalid field selector {part:?}"))?;
            let field = match field {
                "metadata.name" => Field::Name,
                "metadata.namespace" => Field::Namespace,
                other => return Err(format!("field label not supported: {other}")),
            };
            requirements.push((field, equal, value.to_owned()));
        }
        Ok(FieldSelector(requirements))
    }

    pub(super) fn matches(&self, object: &Object) -> bool {
        self.0.iter().all(|(field, equal, value)| {
            let actual = match field {
                Field::Name => &object.key.name,
                Field::Namespace => &object.key.namespace,
            };
            (actual == value) == *equal
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_selectors_select_as_in_kubernetes() {
        let labels = BTreeMap::from([("app".to_owned(), "web".to_owned()), ("tier".to_owned(), "x".to_owned())]);
        let cases = [
            ("", true),
            ("app=web", true),
            ("app==web,tier=x", true),
            ("app=db", false),
            ("app!=db", true),
            ("absent!=x", true),
            ("app in (web, db)", true),
            ("app in (db)", false),
            ("app notin (db),tier", true),
            ("app notin (web)", false),
            ("absent notin (x)", true),
            ("absent", false),
            ("!absent", true),
            ("!app", false),
            ("absent=", false),
        ];
        for (text, expected) in cases {
            let selector = LabelSelector::parse(text).unwrap();
            assert_eq!(selector.0.iter().all(|requirement| requirement.holds(&labels)), expected, "{text}");
        }
        for text in ["=x", "a b=c", "a near (b)", "a in (b", "!"] {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_name_and_namespace_can_be_selected_by_field() {
        assert!(FieldSelector::parse("metadata.name=a,metadata.namespace!=b").is_ok());
        assert_eq!(FieldSelector::parse("spec.x=1").unwrap_err(), "field label not supported: spec.x");
        assert!(FieldSelector::parse("nonsense").is_err());
    }
}
