//! Structured outputs: `response_format`, `structured_outputs`, and `text.format` of the Responses API.
//!
//! JSON schemas and choices are honoured. A regex or grammar is only checked for balance; its answer is prose.

use serde_json::{Value, json};

use super::{errors::ApiError, fields::Fields};
use crate::{
    chance::Chance,
    schema::{self, UnknownType},
    script::Wish,
};

/// Whether `response_format` has a known type.
///
/// # Errors
/// It has none.
pub(crate) fn check_form(fields: Fields<'_>) -> Result<(), ApiError> {
    let Some(format) = fields.object("response_format")? else { return Ok(()) };
    match format.text("type")? {
        Some("text" | "json_object" | "json_schema" | "structural_tag") => Ok(()),
        _ => Err(ApiError::invalid("body.response_format.type", "Input should be text, json_object or json_schema")),
    }
}

/// What the answer must be, if anything.
///
/// # Errors
/// A schema or a regex that no grammar can be made of.
pub(crate) fn wish(fields: Fields<'_>, chance: &mut Chance) -> Result<Wish, ApiError> {
    if let Some(outputs) = fields.object("structured_outputs")? {
        if let Some(Value::String(text)) = outputs.list("choice")?.and_then(<[Value]>::first) {
            return Ok(Wish::Text(text.clone()));
        }
        if let Some(regex) = outputs.text("regex")? {
            return if regex.matches('(').count() == regex.matches(')').count() {
                Ok(Wish::Prose)
            } else {
                Err(ApiError::bad("Failed to transform regex into a grammar: The parenthesis is not closed."))
            };
        }
        if let Some(schema) = outputs.get("json") {
            return json_text(schema, chance);
        }
    }
    if let Some(format) = fields.object("text")?.map(|text| text.object("format")).transpose()?.flatten()
        && format.text("type")? == Some("json_schema")
    {
        return json_text(format.get("schema").unwrap_or(&Value::Null), chance);
    }
    let Some(format) = fields.object("response_format")? else { return Ok(Wish::Prose) };
    match format.text("type")? {
        Some("json_schema") => json_text(&format.get("json_schema").unwrap_or(&Value::Null)["schema"], chance),
        Some("json_object") => json_text(&json!({"properties": {"answer": {"type": "string"}}}), chance),
        _ => Ok(Wish::Prose),
    }
}

fn json_text(schema: &Value, chance: &mut Chance) -> Result<Wish, ApiError> {
    schema::instance(chance, schema).map(|value| Wish::Text(value.to_string())).map_err(grammar_error)
}

/// How a schema that makes no sense is refused.
pub(crate) fn grammar_error(error: UnknownType) -> ApiError {
    ApiError::bad(format!("Failed to transform json schema into a grammar: {error}"))
}
