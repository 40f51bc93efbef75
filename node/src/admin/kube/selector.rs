//! Selectors: which objects of a list are meant, by their labels or by their names.

use std::collections::{BTreeMap, BTreeSet};

use raft::resources::Object;

/// Requirements of one selector.
const REQUIREMENTS_MAX: usize = 64;

/// Requirements on labels; all of them must hold.
#[derive(Debug, Default)]
pub(super) struct LabelSelector(Vec<Requirement>);

#[derive(Debug, PartialEq, Eq)]
enum Requirement {
    In(String, BTreeSet<String>),
    NotIn(String, BTreeSet<String>),
    Exists(String),
    Absent(String),
}

impl LabelSelector {
    /// Reads `a=b,c!=d,e in (f,g),h notin (i),j,!k`. Errors: what is wrong.
    pub(super) fn parse(text: &str) -> Result<LabelSelector, String> {
        not_too_many(split_outside_parentheses(text))?
            .into_iter()
            .map(requirement)
            .collect::<Result<_, _>>()
            .map(LabelSelector)
    }

    pub(super) fn matches(&self, object: &Object) -> bool {
        self.selects(&object.labels)
    }

    /// The same for what is no stored object.
    pub(super) fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|requirement| requirement.holds(labels))
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
        return Ok(Requirement::NotIn(label_key(key)?, one(value)));
    }
    if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return Ok(Requirement::In(label_key(key)?, one(value)));
    }
    match text.strip_prefix('!') {
        Some(key) => Ok(Requirement::Absent(label_key(key)?)),
        None => Ok(Requirement::Exists(label_key(text)?)),
    }
}

fn one(value: &str) -> BTreeSet<String> {
    BTreeSet::from([value.trim().to_owned()])
}

/// The parts of a selector that say something. Each object of a list is held against each of them.
fn not_too_many(mut parts: Vec<&str>) -> Result<Vec<&str>, String> {
    parts.retain(|part| !part.is_empty());
    match parts.len() {
        0..=REQUIREMENTS_MAX => Ok(parts),
        count => Err(format!("the selector has {count} requirements: use at most {REQUIREMENTS_MAX}")),
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
    /// Reads `metadata.name=a,metadata.namespace!=b`. In a value `\\`, `\,` and `\=` stand for a backslash, a comma and an equals sign,
    /// as Kubernetes' clients write them. Errors: what is wrong.
    pub(super) fn parse(text: &str) -> Result<FieldSelector, String> {
        not_too_many(split_unescaped(text))?
            .into_iter()
            .map(field_requirement)
            .collect::<Result<_, _>>()
            .map(FieldSelector)
    }

    pub(super) fn matches(&self, object: &Object) -> bool {
        self.selects(&object.key.namespace, &object.key.name)
    }

    /// The same for what is no stored object.
    pub(super) fn selects(&self, namespace: &str, name: &str) -> bool {
        self.0.iter().all(|(field, equal, value)| {
            let actual = match field {
                Field::Name => name,
                Field::Namespace => namespace,
            };
            (actual == value) == *equal
        })
    }
}

fn field_requirement(part: &str) -> Result<(Field, bool, String), String> {
    let invalid = || format!("invalid field selector {part:?}");
    // No field has an equals sign in its name, so the first one is the operator's.
    let (field, value) = part.split_once('=').ok_or_else(invalid)?;
    let (field, equal) = field.strip_suffix('!').map_or((field, true), |field| (field, false));
    let field = match field {
        "metadata.name" => Field::Name,
        "metadata.namespace" => Field::Namespace,
        other => return Err(format!("field label not supported: {other}")),
    };
    let value = if equal { value.strip_prefix('=').unwrap_or(value) } else { value };
    Ok((field, equal, unescaped(value).ok_or_else(invalid)?))
}

/// The parts between commas that no backslash escapes.
fn split_unescaped(text: &str) -> Vec<&str> {
    let mut is_escaped = false;
    text.split(move |c| {
        let divides = c == ',' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        divides
    })
    .collect()
}

/// `None` if a backslash escapes nothing.
fn unescaped(value: &str) -> Option<String> {
    let mut characters = value.chars();
    let mut text = String::new();
    while let Some(c) = characters.next() {
        match c {
            '\\' => text.push(characters.next().filter(|c| matches!(c, '\\' | ',' | '='))?),
            c => text.push(c),
        }
    }
    Some(text)
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
        let many = |count: usize| vec!["a"; count].join(",");
        assert!(LabelSelector::parse(&many(64)).is_ok());
        assert_eq!(LabelSelector::parse(&many(65)).unwrap_err(), "the selector has 65 requirements: use at most 64");
        let values = format!("a in ({})", many(10_000));
        assert!(LabelSelector::parse(&values).is_ok(), "any number of values is one requirement");
    }

    #[test]
    fn only_name_and_namespace_can_be_selected_by_field() {
        assert!(FieldSelector::parse("metadata.name=a,metadata.namespace!=b").is_ok());
        assert_eq!(FieldSelector::parse("spec.x=1").unwrap_err(), "field label not supported: spec.x");
        assert!(FieldSelector::parse("nonsense").is_err());
        let cases = [
            ("metadata.name=a", "a", true),
            ("metadata.name==a", "a", true),
            ("metadata.name!=a", "a", false),
            (r"metadata.name=CORP\\dev", r"CORP\dev", true),
            (r"metadata.name=CN\=ann\,OU\=dev,metadata.namespace=", "CN=ann,OU=dev", true),
            (r"metadata.name=a\,b", "a", false),
            (r"metadata.name!=\=a", "=a", false),
        ];
        for (text, name, expected) in cases {
            assert_eq!(FieldSelector::parse(text).unwrap().selects("", name), expected, "{text}");
        }
        for text in [r"metadata.name=a\b", r"metadata.name=a\"] {
            assert!(FieldSelector::parse(text).is_err(), "{text}");
        }
        let many = vec!["metadata.name!=a"; 65].join(",");
        assert!(FieldSelector::parse(&many).unwrap_err().contains("at most 64"));
    }
}
