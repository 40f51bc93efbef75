//! Tools: which are offered, whether one is to be called, and with what arguments.
//!
//! `required` and a named choice always call. `auto` calls when the last message is the user's and mentions the tool:
//! its name, or a word of its name of at least four letters ("what is the weather" calls `get_weather`).

use serde_json::{Value, json};

use super::{call::Call, errors::ApiError, fields::Fields, structured, template::Message};
use crate::{chance, chance::Chance, schema, script::Wish};

/// The tools of a request.
pub(crate) struct Tools {
    /// Name and parameter schema.
    pub(crate) offered: Vec<(String, Value)>,
    pub(crate) choice: Choice,
    raw: Option<Value>,
}

/// What the caller wants done with its tools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    None,
    Auto,
    Required,
    Named(String),
}

impl Tools {
    /// Reads `tools` and `tool_choice` of a chat request.
    ///
    /// # Errors
    /// Tools and choice do not fit together.
    pub(crate) fn read(fields: Fields<'_>) -> Result<Self, ApiError> {
        let list = fields.list("tools")?;
        let choice = fields.get("tool_choice");
        if list.is_some_and(<[Value]>::is_empty) {
            return Err(ApiError::invalid("body", "Value error, `tools` must not be an empty array."));
        }
        let offered: Vec<(String, Value)> = list
            .unwrap_or_default()
            .iter()
            .filter_map(|tool| {
                let function = tool.get("function").unwrap_or(tool);
                let schema = function.get("parameters").or_else(|| function.get("input_schema"));
                Some((
                    function["name"].as_str().filter(|name| !name.is_empty())?.to_owned(),
                    schema.cloned().unwrap_or_else(|| json!({"type": "object"})),
                ))
            })
            .collect();
        let choice = match choice {
            None if offered.is_empty() => Choice::None,
            None => Choice::Auto,
            Some(choice) => read_choice(choice)?,
        };
        if choice != Choice::None && offered.is_empty() {
            return Err(ApiError::invalid(
                "tool_choice",
                "Value error, When using `tool_choice`, `tools` must be set.",
            ));
        }
        if let Choice::Named(name) = &choice
            && !offered.iter().any(|(offered, _)| offered == name)
        {
            return Err(ApiError::invalid(
                "tool_choice",
                "Value error, The tool specified in `tool_choice` does not match any of the specified `tools`",
            ));
        }
        Ok(Self { offered, choice, raw: list.map(|list| Value::Array(list.to_vec())) })
    }

    /// Without a tool parser only `none` is served.
    pub(crate) fn check_parser(&self, parser: bool) -> Result<(), ApiError> {
        match &self.choice {
            _ if parser => Ok(()),
            Choice::None => Ok(()),
            Choice::Auto => Err(ApiError::bad(
                "\"auto\" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set",
            )),
            Choice::Required => Err(ApiError::bad("tool_choice=\"required\" requires --tool-call-parser to be set")),
            Choice::Named(name) => {
                Err(ApiError::bad(format!("tool_choice=function \"{name}\" requires --tool-call-parser to be set")))
            }
        }
    }

    /// What the prompt says of them.
    pub(crate) fn shown(&self) -> Option<&Value> {
        self.raw.as_ref().filter(|_| self.choice != Choice::None)
    }

    /// The same tools, never called.
    pub(crate) fn silenced(self) -> Self {
        Self { choice: Choice::None, ..self }
    }

    fn chosen(&self, messages: &[Message]) -> Option<&(String, Value)> {
        match &self.choice {
            Choice::None => None,
            Choice::Required => self.mentioned(messages).or_else(|| self.offered.first()),
            Choice::Named(name) => self.offered.iter().find(|(offered, _)| offered == name),
            Choice::Auto => self.mentioned(messages),
        }
    }

    fn mentioned(&self, messages: &[Message]) -> Option<&(String, Value)> {
        let last = messages.last().filter(|message| message.role == "user")?;
        let text = last.text.to_lowercase();
        self.offered.iter().find(|(name, _)| {
            let name = name.to_lowercase();
            text.contains(&name) || name.split(['_', '-', '.']).any(|word| word.len() >= 4 && text.contains(word))
        })
    }
}

fn read_choice(choice: &Value) -> Result<Choice, ApiError> {
    match (choice.as_str(), choice["function"]["name"].as_str().or_else(|| choice["name"].as_str())) {
        (Some("none"), _) => Ok(Choice::None),
        (Some("auto"), _) => Ok(Choice::Auto),
        (Some("required" | "any"), _) => Ok(Choice::Required),
        (None, Some(name)) => Ok(Choice::Named(name.to_owned())),
        _ => match choice["type"].as_str() {
            Some("auto") => Ok(Choice::Auto),
            Some("any") => Ok(Choice::Required),
            Some("none") => Ok(Choice::None),
            _ => Err(ApiError::invalid("tool_choice", "Value error, Invalid value for `tool_choice`")),
        },
    }
}

/// What the answer is to be: a tool call, a structured output, or prose.
///
/// # Errors
/// A schema that no grammar can be made of.
pub(crate) fn wish(call: &Call, tools: &Tools, messages: &[Message]) -> Result<Wish, ApiError> {
    let seed = messages.last().map_or(0, |message| chance::hash(message.text.as_bytes(), call.shared.config.seed));
    let mut chance = Chance::new(seed);
    if let Some((name, parameters)) = tools.chosen(messages) {
        let arguments = schema::instance(&mut chance, parameters).map_err(structured::grammar_error)?;
        return Ok(Wish::Calls(vec![(name.clone(), arguments.to_string())]));
    }
    structured::wish(call.fields(), &mut chance)
}
