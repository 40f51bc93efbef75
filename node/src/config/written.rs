//! What was written: the file's sections as TOML, and the environment over them. Nothing is understood yet.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::mistake::Mistake;

/// Sections by name, and the `TOLLGATE_*` variables.
pub(super) struct Written {
    sections: BTreeMap<String, Table>,
    variables: BTreeMap<String, String>,
}

/// One value and where it stands.
pub(super) enum Found<'a> {
    /// In the file.
    File(&'a Value),
    /// In a variable: always text.
    Variable(&'a str),
}

impl Written {
    /// Errors: the text is no TOML, or something outside a section.
    pub(super) fn parse(text: &str, environment: &BTreeMap<String, String>) -> Result<Written, Vec<Mistake>> {
        let table: Table = text.parse().map_err(|error: toml::de::Error| vec![not_toml(text, &error)])?;
        let mut sections = BTreeMap::new();
        let mut mistakes = Vec::new();
        for (name, value) in table {
            match value {
                Value::Table(section) => {
                    sections.insert(name, section);
                }
                _ => {
                    mistakes.push(Mistake::new(name, "stands outside a section: write it below one, such as [gateway]"))
                }
            }
        }
        let variables = environment.iter().filter(|(name, _)| name.starts_with("TOLLGATE_"));
        let variables = variables.map(|(name, value)| (name.clone(), value.clone())).collect();
        if mistakes.is_empty() { Ok(Written { sections, variables }) } else { Err(mistakes) }
    }

    /// The value of `section.key`: the variable's if there is one, else the file's.
    pub(super) fn find(&self, section: &str, key: &str) -> Option<Found<'_>> {
        if let Some(text) = self.variables.get(&variable(section, key)) {
            return Some(Found::Variable(text));
        }
        self.sections.get(section)?.get(key).map(Found::File)
    }

    /// Every section in the file with its keys.
    pub(super) fn sections(&self) -> impl Iterator<Item = (&String, Vec<&String>)> {
        self.sections.iter().map(|(name, table)| (name, table.keys().collect()))
    }

    /// Every `TOLLGATE_*` variable.
    pub(super) fn variables(&self) -> impl Iterator<Item = &String> {
        self.variables.keys()
    }
}

/// `TOLLGATE_GATEWAY_LISTEN` for `gateway.listen`.
pub(super) fn variable(section: &str, key: &str) -> String {
    format!("TOLLGATE_{}_{}", section.to_uppercase(), key.to_uppercase())
}

fn not_toml(text: &str, error: &toml::de::Error) -> Mistake {
    let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    let place = line.map_or(String::new(), |line| format!("line {line}"));
    Mistake::new(place, format!("is not TOML: {}", error.message().replace('\n', ", ")))
}
