//! Reading a JSON body as pydantic does: numbers may be strings, null is absent, unknown fields are ignored.

use serde_json::{Map, Value};

use super::errors::ApiError;

/// The fields of a request body.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a>(pub(crate) &'a Map<String, Value>);

type Read<T> = Result<Option<T>, ApiError>;

impl<'a> Fields<'a> {
    /// A field that is there and not null.
    pub(crate) fn get(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn int(&self, name: &str) -> Read<i64> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = match value {
            Value::Number(number) => number
                .as_i64()
                .or_else(|| number.as_f64().filter(|n| n.fract() == 0.0 && n.abs() < 9e15).map(|n| n as i64)),
            Value::String(text) => text.trim().parse().ok(),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        };
        number.map(Some).ok_or_else(|| ApiError::invalid(format!("body.{name}"), "Input should be a valid integer"))
    }

    pub(crate) fn float(&self, name: &str) -> Read<f64> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = match value {
            Value::String(text) => text.trim().parse().ok(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.as_f64(),
        };
        number.map(Some).ok_or_else(|| ApiError::invalid(format!("body.{name}"), "Input should be a valid number"))
    }

    pub(crate) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        let Some(value) = self.get(name) else { return Ok(false) };
        let flag = match value {
            Value::Bool(flag) => Some(*flag),
            Value::Number(number) => number.as_i64().filter(|n| (0..2).contains(n)).map(|n| n == 1),
            Value::String(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" | "y" | "t" => Some(true),
                "false" | "0" | "no" | "off" | "n" | "f" => Some(false),
                _ => None,
            },
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        };
        flag.ok_or_else(|| ApiError::invalid(format!("body.{name}"), "Input should be a valid boolean"))
    }

    pub(crate) fn text(&self, name: &str) -> Read<&'a str> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(ApiError::invalid(format!("body.{name}"), "Input should be a valid string")),
        }
    }

    pub(crate) fn list(&self, name: &str) -> Read<&'a [Value]> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Array(values)) => Ok(Some(values)),
            Some(_) => Err(ApiError::invalid(format!("body.{name}"), "Input should be a valid list")),
        }
    }

    pub(crate) fn object(&self, name: &str) -> Read<Fields<'a>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(Fields(object))),
            Some(_) => Err(ApiError::invalid(format!("body.{name}"), "Input should be a valid dictionary")),
        }
    }

    /// A list of strings, or one string.
    pub(crate) fn texts(&self, name: &str) -> Result<Vec<String>, ApiError> {
        let wrong = || ApiError::invalid(format!("body.{name}"), "Input should be a valid string");
        match self.get(name) {
            None => Ok(Vec::new()),
            Some(Value::String(text)) => Ok(vec![text.clone()]),
            Some(Value::Array(values)) => {
                values.iter().map(|value| value.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
            }
            Some(_) => Err(wrong()),
        }
    }
}

/// Parses a body.
///
/// # Errors
/// As FastAPI answers what is not UTF-8 (`None`: a bare detail), not JSON, or not an object.
pub(crate) fn parse(bytes: &[u8]) -> Result<Map<String, Value>, Option<ApiError>> {
    let text = std::str::from_utf8(bytes).map_err(|_| None)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim().is_empty() {
        return Err(Some(ApiError::invalid("body", "Field required")));
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(Value::Null) => Err(Some(ApiError::invalid("body", "Field required"))),
        Ok(other) => Err(Some(ApiError::crash(&format!("'{}' object has no attribute 'get'", python_type(&other))))),
        // Python's JSON lets lone surrogates pass, and its tokenizer refuses them.
        Err(error) if ["surrogate", "end of hex escape"].iter().any(|part| error.to_string().contains(part)) => {
            Err(Some(ApiError::bad(
                "TextEncodeInput must be Union[TextInputSequence, Tuple[InputSequence, InputSequence]]",
            )))
        }
        Err(error) => {
            let column = if error.is_eof() { error.column() } else { error.column().saturating_sub(1) };
            Err(Some(ApiError::invalid(format!("body.{column}"), &format!("JSON decode error: {error}"))))
        }
    }
}

fn python_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "NoneType",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float",
        Value::Number(_) => "int",
        Value::String(_) => "str",
        Value::Array(_) => "list",
        Value::Object(_) => "dict",
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn bodies_that_are_no_json_objects_are_told_apart() {
        for (body, kind, param) in [
            ("", "Bad Request", Some("body")),
            ("null", "Bad Request", Some("body")),
            ("[1]", "InternalServerError", None),
            ("{", "Bad Request", Some("body.1")),
            ("{}x", "Bad Request", Some("body.2")),
            (r#"{"a":"\ud800"}"#, "BadRequestError", None),
        ] {
            let error = parse(body.as_bytes()).unwrap_err().unwrap();
            assert_eq!((error.kind, error.param.as_deref()), (kind, param), "{body}: {}", error.message);
        }
        assert_eq!(parse(b"\xff").unwrap_err(), None);
        assert_eq!(parse("\u{feff}{\"a\":1,\"a\":2}".as_bytes()).unwrap()["a"], 2);
    }
}
