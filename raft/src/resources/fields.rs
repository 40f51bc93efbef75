//! Reads an object's JSON body field by field: notes every mistake with its path, and every field nobody knows.
//!
//! A mistake never stops the reading, so the author of a manifest sees all of them at once. `null` is the same as
//! absent, as in Kubernetes.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::{FieldError, money};

/// What was found wrong or unknown while reading one body.
#[derive(Default)]
pub(super) struct Report {
    errors: RefCell<Vec<FieldError>>,
    unknown: RefCell<Vec<String>>,
}

impl Report {
    /// Notes a mistake.
    pub(super) fn error(&self, path: impl Into<String>, message: impl Into<String>) {
        self.errors.borrow_mut().push(FieldError { path: path.into(), message: message.into() });
    }

    /// Every mistake, in reading order.
    pub(super) fn into_errors(self) -> Vec<FieldError> {
        self.errors.into_inner()
    }

    /// The paths of all fields that nobody knows.
    pub(super) fn into_unknown(self) -> Vec<String> {
        self.unknown.into_inner()
    }
}

/// One JSON object within a body.
pub(super) struct Fields<'a> {
    report: &'a Report,
    path: String,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// The object at `path` (empty: the body itself); all its fields that are not in `known` are noted as unknown.
    /// `None` if it is no object, which is noted.
    pub(super) fn of(report: &'a Report, path: &str, value: &'a Value, known: &[&str]) -> Option<Fields<'a>> {
        let Value::Object(map) = value else {
            report.error(path, format!("must be an object, not {}", shown(value)));
            return None;
        };
        let fields = Fields { report, path: path.to_owned(), map };
        for name in map.keys().filter(|name| !known.contains(&name.as_str())) {
            report.unknown.borrow_mut().push(fields.path(name));
        }
        Some(fields)
    }

    /// The path of field `name`.
    pub(super) fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Notes a mistake in field `name`.
    pub(super) fn error(&self, name: &str, message: impl Into<String>) {
        self.report.error(self.path(name), message);
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// Whether the field is present.
    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Whether the field is anything but absent or an empty list.
    pub(super) fn has_entries(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value.as_array().is_none_or(|items| !items.is_empty()))
    }

    fn wrong(&self, name: &str, wanted: &str, value: &Value) {
        self.error(name, format!("must be {wanted}, not {}", shown(value)));
    }

    /// An object.
    pub(super) fn object(&self, name: &str, known: &[&str]) -> Option<Fields<'a>> {
        Fields::of(self.report, &self.path(name), self.get(name)?, known)
    }

    /// An object whose absence is a mistake.
    pub(super) fn required_object(&self, name: &str, known: &[&str]) -> Option<Fields<'a>> {
        if !self.has(name) {
            self.error(name, "is required");
        }
        self.object(name, known)
    }

    /// A string.
    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        let value = self.get(name)?;
        if !value.is_string() {
            self.wrong(name, "a string", value);
        }
        value.as_str()
    }

    /// A string of so many characters, whose absence is a mistake.
    pub(super) fn required_text(&self, name: &str, length: RangeInclusive<usize>) -> Option<&'a str> {
        if !self.has(name) {
            self.error(name, "is required");
        }
        self.text_of_length(name, length)
    }

    /// A string of so many characters.
    pub(super) fn text_of_length(&self, name: &str, length: RangeInclusive<usize>) -> Option<&'a str> {
        let text = self.text(name)?;
        let count = text.chars().count();
        if length.contains(&count) {
            return Some(text);
        }
        self.error(name, format!("has {count} characters: use {} to {}", length.start(), length.end()));
        None
    }

    /// One of these words, and what it stands for.
    pub(super) fn one_of<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(name)?;
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.error(name, format!("is \"{text}\": use {}", words.join(", ")));
        }
        found.map(|(_, meaning)| *meaning)
    }

    /// An integer within bounds.
    pub(super) fn integer(&self, name: &str, bounds: RangeInclusive<i64>) -> Option<i64> {
        let value = self.get(name)?;
        let Some(number) = value.as_i64() else {
            self.wrong(name, "an integer", value);
            return None;
        };
        if bounds.contains(&number) {
            return Some(number);
        }
        self.error(name, format!("is {number}: use {} to {}", bounds.start(), bounds.end()));
        None
    }

    /// An amount of money above zero, at most `max`: digits with or without a point, as a string or a number.
    pub(super) fn money(&self, name: &str, max: u64) -> Option<u64> {
        let value = self.get(name)?;
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let amount = money::parse(&text).filter(|amount| (1..=max).contains(amount));
        if amount.is_none() {
            let most = money::written(max);
            self.wrong(name, &format!("an amount like \"12.50\", above zero and at most {most}"), value);
        }
        amount
    }

    /// A boolean.
    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        let value = self.get(name)?;
        if !value.is_boolean() {
            self.wrong(name, "true or false", value);
        }
        value.as_bool()
    }

    /// A list's entries, each with its path; empty if absent.
    pub(super) fn list(&self, name: &str) -> Vec<(String, &'a Value)> {
        let Some(value) = self.get(name) else { return Vec::new() };
        let Value::Array(items) = value else {
            self.wrong(name, "a list", value);
            return Vec::new();
        };
        items.iter().enumerate().map(|(at, item)| (format!("{}[{at}]", self.path(name)), item)).collect()
    }

    /// A list of objects with `known` fields.
    pub(super) fn objects(&self, name: &str, known: &[&str]) -> Vec<Fields<'a>> {
        self.list(name).into_iter().filter_map(|(path, item)| Fields::of(self.report, &path, item, known)).collect()
    }

    /// A list of objects that must not be empty.
    pub(super) fn some_objects(&self, name: &str, known: &[&str]) -> Vec<Fields<'a>> {
        if !self.has_entries(name) {
            self.error(name, "must have at least one entry");
        }
        self.objects(name, known)
    }

    /// A list of strings that are not empty.
    pub(super) fn texts(&self, name: &str) -> Vec<&'a str> {
        let mut texts = Vec::new();
        for (path, item) in self.list(name) {
            match item.as_str() {
                Some("") => self.report.error(path, "must not be empty"),
                Some(text) => texts.push(text),
                None => self.report.error(path, format!("must be a string, not {}", shown(item))),
            }
        }
        texts
    }

    /// A list of percentages, 1 to 100, in ascending order.
    pub(super) fn percents(&self, name: &str) -> Vec<u8> {
        let mut percents = BTreeSet::new();
        for (path, item) in self.list(name) {
            match item.as_u64().and_then(|number| u8::try_from(number).ok()).filter(|part| (1..=100).contains(part)) {
                Some(part) => drop(percents.insert(part)),
                None => self.report.error(path, format!("must be a percentage, 1 to 100, not {}", shown(item))),
            }
        }
        percents.into_iter().collect()
    }

    /// A map of strings; empty if absent.
    pub(super) fn text_map(&self, name: &str) -> BTreeMap<String, String> {
        let Some(value) = self.get(name) else { return BTreeMap::new() };
        let Value::Object(map) = value else {
            self.wrong(name, "a map of strings", value);
            return BTreeMap::new();
        };
        let mut texts = BTreeMap::new();
        for (key, value) in map {
            match value.as_str() {
                Some(text) => {
                    texts.insert(key.clone(), text.to_owned());
                }
                None => self.error(&format!("{name}.{key}"), format!("must be a string, not {}", shown(value))),
            }
        }
        texts
    }
}

/// A value as an error message shows it: scalars as written, the rest by its type. Long strings are cut.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if text.chars().count() > 60 => {
            format!("\"{}…\"", text.chars().take(60).collect::<String>())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}
