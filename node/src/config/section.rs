//! Reads sections key by key: notes every mistake, remembers which keys were asked for, and so knows which nobody knows.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Value;

use super::mistake::Mistake;
use super::units;
use super::written::{Found, Written, variable};

/// Reads one configuration.
pub(super) struct Reader<'a> {
    written: &'a Written,
    base: &'a Path,
    mistakes: RefCell<Vec<Mistake>>,
    asked: RefCell<BTreeMap<&'static str, BTreeSet<&'static str>>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(written: &'a Written, base: &'a Path) -> Reader<'a> {
        Reader { written, base, mistakes: RefCell::default(), asked: RefCell::default() }
    }

    /// The section `name`; one that was not written has only defaults.
    pub(super) fn section(&self, name: &'static str) -> Section<'_> {
        self.asked.borrow_mut().entry(name).or_default();
        Section { reader: self, name }
    }

    /// `config` if nothing was wrong with it and every key is known.
    pub(super) fn finish<T>(self, config: T) -> Result<T, Vec<Mistake>> {
        self.note_unknown_keys();
        self.note_unknown_variables();
        let mistakes = self.mistakes.into_inner();
        if mistakes.is_empty() { Ok(config) } else { Err(mistakes) }
    }

    fn note(&self, mistake: Mistake) {
        self.mistakes.borrow_mut().push(mistake);
    }

    fn note_unknown_keys(&self) {
        let asked = self.asked.borrow();
        for (section, keys) in self.written.sections() {
            let Some(known) = asked.get(section.as_str()) else {
                let hint = hint(section, asked.keys().copied());
                self.note(Mistake::new(format!("[{section}]"), format!("is not a section{hint}")));
                continue;
            };
            for key in keys.into_iter().filter(|key| !known.contains(key.as_str())) {
                let hint = hint(key, known.iter().copied());
                self.note(Mistake::new(format!("{section}.{key}"), format!("is not a key of [{section}]{hint}")));
            }
        }
    }

    /// Only variables of our sections: an orchestrator may set others that begin alike, such as `TOLLGATE_SERVICE_HOST`.
    fn note_unknown_variables(&self) {
        let asked = self.asked.borrow();
        for name in self.written.variables() {
            let Some(known) = asked.iter().find(|(section, _)| name.starts_with(&variable(section, ""))) else {
                continue;
            };
            let names: Vec<String> = known.1.iter().map(|key| variable(known.0, key)).collect();
            if !names.contains(name) {
                self.note(Mistake::new(
                    name,
                    format!("is not a setting{}", hint(name, names.iter().map(String::as_str))),
                ));
            }
        }
    }
}

/// One section.
#[derive(Clone, Copy)]
pub(super) struct Section<'a> {
    reader: &'a Reader<'a>,
    name: &'static str,
}

impl<'a> Section<'a> {
    fn find(&self, key: &'static str) -> Option<Found<'a>> {
        self.reader.asked.borrow_mut().entry(self.name).or_default().insert(key);
        self.reader.written.find(self.name, key)
    }

    /// Notes a mistake in `key`, under the name it was written by.
    pub(super) fn mistake(&self, key: &'static str, message: impl Into<String>) {
        let place = match self.reader.written.find(self.name, key) {
            Some(Found::Variable(_)) => variable(self.name, key),
            Some(Found::File(_)) | None => format!("{}.{key}", self.name),
        };
        self.reader.note(Mistake::new(place, message));
    }

    /// Whether it was written at all.
    pub(super) fn has(&self, key: &'static str) -> bool {
        self.find(key).is_some()
    }

    /// Text that is not empty.
    pub(super) fn text(&self, key: &'static str) -> Option<String> {
        let text = match self.find(key)? {
            Found::Variable(text) => text.to_owned(),
            Found::File(Value::String(text)) => text.clone(),
            Found::File(other) => {
                self.mistake(key, format!("is {}: write text in quotes", shown(other)));
                return None;
            }
        };
        if text.is_empty() {
            self.mistake(key, "is empty: leave the key out to get its default");
            return None;
        }
        Some(text)
    }

    /// A duration of at least a millisecond.
    pub(super) fn duration(&self, key: &'static str, default: Duration) -> Duration {
        self.unit(key, default, units::DURATION, units::duration, |duration| !duration.is_zero())
    }

    /// A duration within bounds, if one was written.
    pub(super) fn duration_within(&self, key: &'static str, bounds: RangeInclusive<Duration>) -> Option<Duration> {
        if !self.has(key) {
            return None;
        }
        let duration = self.duration(key, *bounds.start());
        if !bounds.contains(&duration) {
            let (least, most) = (bounds.start().as_secs(), bounds.end().as_secs());
            self.mistake(key, format!("{duration:?} is not within {least}s and {most}s"));
        }
        Some(duration)
    }

    /// A size in bytes, at least one.
    pub(super) fn size(&self, key: &'static str, default: usize) -> usize {
        self.unit(key, default, units::SIZE, units::size, |size| *size > 0)
    }

    fn unit<T>(
        &self,
        key: &'static str,
        default: T,
        wanted: &str,
        parse: fn(&str) -> Option<T>,
        fits: impl Fn(&T) -> bool,
    ) -> T {
        let text = match self.find(key) {
            None => return default,
            Some(Found::Variable(text)) => text.to_owned(),
            Some(Found::File(Value::String(text))) => text.clone(),
            Some(Found::File(other)) => {
                self.mistake(key, format!("{} is not {wanted}", shown(other)));
                return default;
            }
        };
        match parse(&text) {
            Some(value) if fits(&value) => value,
            Some(_) => {
                self.mistake(key, format!("\"{text}\" is too small: it must be above zero"));
                default
            }
            None => {
                self.mistake(key, format!("\"{text}\" is not {wanted}"));
                default
            }
        }
    }

    /// A whole number within bounds.
    pub(super) fn integer(&self, key: &'static str, default: u64, bounds: RangeInclusive<u64>) -> u64 {
        let (number, written) = match self.find(key) {
            None => return default,
            Some(Found::Variable(text)) => (text.trim().parse().ok(), format!("\"{text}\"")),
            Some(Found::File(Value::Integer(number))) => (u64::try_from(*number).ok(), number.to_string()),
            Some(Found::File(other)) => (None, shown(other)),
        };
        match number.filter(|number| bounds.contains(number)) {
            Some(number) => number,
            None => {
                self.mistake(
                    key,
                    format!("{written} is not a whole number from {} to {}", bounds.start(), bounds.end()),
                );
                default
            }
        }
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, key: &'static str, default: bool) -> bool {
        let (flag, written) = match self.find(key) {
            None => return default,
            Some(Found::Variable(text)) => (text.trim().parse().ok(), format!("\"{text}\"")),
            Some(Found::File(Value::Boolean(flag))) => (Some(*flag), String::new()),
            Some(Found::File(other)) => (None, shown(other)),
        };
        flag.unwrap_or_else(|| {
            self.mistake(key, format!("{written} is not true or false"));
            default
        })
    }

    /// `host:port` to listen on.
    pub(super) fn address(&self, key: &'static str, default: &str) -> String {
        let Some(text) = self.text(key) else { return default.to_owned() };
        match check_address(&text) {
            Ok(()) => text,
            Err(message) => {
                self.mistake(key, message);
                default.to_owned()
            }
        }
    }

    /// A path; a relative one starts from the file's directory.
    pub(super) fn path(&self, key: &'static str) -> Option<PathBuf> {
        self.text(key).map(|text| self.reader.base.join(text))
    }

    /// The default of a path.
    pub(super) fn base(&self, relative: &str) -> PathBuf {
        self.reader.base.join(relative)
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, key: &'static str, default: T, words: &[(&str, T)]) -> T {
        let Some(text) = self.text(key) else { return default };
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return *value;
        }
        let words: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        self.mistake(key, format!("\"{text}\" is not one of {}", words.join(", ")));
        default
    }

    /// A list of text, as a TOML list or, in a variable, as `text,text`.
    pub(super) fn list(&self, key: &'static str, example: &str) -> Vec<String> {
        match self.find(key) {
            None => Vec::new(),
            Some(Found::Variable(text)) => {
                text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
            }
            Some(Found::File(Value::Array(entries))) if entries.iter().all(Value::is_str) => {
                entries.iter().filter_map(Value::as_str).map(str::to_owned).collect()
            }
            Some(Found::File(other)) => {
                let example: Vec<String> = example.split(',').map(|entry| format!("\"{entry}\"")).collect();
                self.mistake(
                    key,
                    format!("is {}: write a list of text, such as [{}]", shown(other), example.join(", ")),
                );
                Vec::new()
            }
        }
    }

    /// A map of text, as a TOML table or, in a variable, as `name=text,name=text`.
    pub(super) fn map(&self, key: &'static str, example: &str) -> BTreeMap<String, String> {
        let mut map = BTreeMap::new();
        match self.find(key) {
            None => {}
            Some(Found::Variable(text)) => {
                for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
                    match entry.split_once('=') {
                        Some((name, value)) => {
                            map.insert(name.trim().to_owned(), value.trim().to_owned());
                        }
                        None => self.mistake(key, format!("\"{entry}\" has no `=`: write {example}")),
                    }
                }
            }
            Some(Found::File(Value::Table(table))) => {
                for (name, value) in table {
                    match value.as_str() {
                        Some(text) => {
                            map.insert(name.clone(), text.to_owned());
                        }
                        None => self.mistake(key, format!("{name} is {}: write text in quotes", shown(value))),
                    }
                }
            }
            Some(Found::File(other)) => self.mistake(key, format!("is {}: write a table", shown(other))),
        }
        map
    }
}

/// Whether `text` is `host:port`; if not, what is wrong.
pub(super) fn check_address(text: &str) -> Result<(), String> {
    let wrong =
        || format!("\"{text}\" is not an address: write host:port, such as \"127.0.0.1:8080\" or \"[::1]:8080\"");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    if host.is_empty() || host.contains('/') || (host.contains(':') && !host.starts_with('[')) {
        return Err(wrong());
    }
    port.parse::<u16>().map(|_| ()).map_err(|_| wrong())
}

/// Whether everything that connects to `address` is on this machine.
pub(super) fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A value as an error message shows it.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("\"{text}\""),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(flag) => flag.to_string(),
        Value::Datetime(time) => time.to_string(),
        Value::Array(_) => "a list".to_owned(),
        Value::Table(_) => "a table".to_owned(),
    }
}

/// `: did you mean …?` if a known word is near, else the known words.
fn hint<'w>(word: &str, known: impl Iterator<Item = &'w str>) -> String {
    let known: Vec<&str> = known.collect();
    let near = known.iter().map(|candidate| (distance(word, candidate), *candidate)).min();
    match near {
        Some((distance, candidate)) if distance <= 1 + word.len() / 4 => format!(": did you mean `{candidate}`?"),
        _ => format!(": there are {}", known.join(", ")),
    }
}

/// How many letters must be inserted, removed or replaced to make one word of the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, letter) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}
