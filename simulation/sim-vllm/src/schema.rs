//! Small JSON Schemas: an instance that satisfies one, for tool arguments and structured outputs.
//!
//! Knows type, enum, const, properties, items, minItems, minimum, maximum, minLength, anyOf/oneOf/allOf and local
//! `$ref`. Patterns and formats are not looked at.

use serde_json::{Map, Value, json};

use crate::{chance::Chance, words::WORDS};

/// Deeper schemas (or endless references) give null.
const DEPTH_MAX: usize = 16;

/// What a schema says that no grammar can be made of.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("Unsupported type \"{0}\"")]
pub(crate) struct UnknownType(String);

/// A value that satisfies `schema`.
///
/// # Errors
/// A type that JSON does not have.
pub(crate) fn instance(chance: &mut Chance, schema: &Value) -> Result<Value, UnknownType> {
    Writer { root: schema, chance }.write(schema, 0)
}

struct Writer<'a> {
    root: &'a Value,
    chance: &'a mut Chance,
}

impl<'a> Writer<'a> {
    fn write(&mut self, schema: &'a Value, depth: usize) -> Result<Value, UnknownType> {
        if depth > DEPTH_MAX {
            return Ok(Value::Null);
        }
        if let Some(target) = schema["$ref"].as_str().and_then(|path| self.root.pointer(path.trim_start_matches('#'))) {
            return self.write(target, depth + 1);
        }
        if let Some(value) = schema.get("const") {
            return Ok(value.clone());
        }
        if let Some(values) = schema["enum"].as_array().filter(|values| !values.is_empty()) {
            return Ok(values[self.chance.between(0, values.len() - 1)].clone());
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(first) = schema[key].as_array().and_then(|options| options.first()) {
                return self.write(first, depth + 1);
            }
        }
        if let Some(parts) = schema["allOf"].as_array() {
            return self.write_all(parts, depth);
        }
        let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str());
        match kind {
            Some("object") => self.object(schema, depth),
            None if schema["properties"].is_object() => self.object(schema, depth),
            Some("array") => {
                let length = schema["minItems"].as_u64().unwrap_or(1).min(64);
                let item = self.write(&schema["items"], depth + 1)?;
                Ok(Value::Array(vec![item; length as usize]))
            }
            Some("integer") => Ok((self.number(schema) as i64).into()),
            Some("number") => Ok(json!(self.number(schema))),
            Some("boolean") => Ok(Value::Bool(self.chance.next() & 1 == 1)),
            Some("null") => Ok(Value::Null),
            Some("string") | None => Ok(self.string(schema)),
            Some(other) => Err(UnknownType(other.to_owned())),
        }
    }

    fn object(&mut self, schema: &'a Value, depth: usize) -> Result<Value, UnknownType> {
        let mut object = Map::new();
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            object.insert(name.clone(), self.write(property, depth + 1)?);
        }
        Ok(Value::Object(object))
    }

    fn write_all(&mut self, parts: &'a [Value], depth: usize) -> Result<Value, UnknownType> {
        let mut whole = Map::new();
        for part in parts {
            match self.write(part, depth + 1)? {
                Value::Object(object) => whole.extend(object),
                other => return Ok(other),
            }
        }
        Ok(Value::Object(whole))
    }

    fn number(&mut self, schema: &Value) -> f64 {
        let low = bound(schema, "minimum").unwrap_or(0.0).ceil();
        let high = bound(schema, "maximum").unwrap_or(low + 100.0);
        (low + self.chance.between(0, 100) as f64).min(high)
    }

    fn string(&mut self, schema: &Value) -> Value {
        let wanted = schema["minLength"].as_u64().unwrap_or(0).min(4096) as usize;
        let mut text = WORDS[self.chance.between(0, WORDS.len() - 1)].to_owned();
        while text.len() < wanted {
            text.push_str(WORDS[self.chance.between(0, WORDS.len() - 1)]);
        }
        if let Some(most) = schema["maxLength"].as_u64() {
            text.truncate(most as usize);
        }
        text.into()
    }
}

fn bound(schema: &Value, key: &str) -> Option<f64> {
    schema[key].as_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_satisfy_their_schemas() {
        let city = json!({"type": "object", "properties": {"city": {"enum": ["Paris"]}, "days": {"type": "integer",
            "minimum": 3, "maximum": 3}}, "required": ["city"]});
        let cases = [
            (city.clone(), json!({"city": "Paris", "days": 3})),
            (json!({"$ref": "#/$defs/c", "$defs": {"c": {"const": 7}}}), json!(7)),
            (json!({"type": "array", "items": {"const": 1}, "minItems": 2}), json!([1, 1])),
            (json!({"anyOf": [{"type": "null"}, {"type": "string"}]}), json!(null)),
            (
                json!({"allOf": [city, {"properties": {"z": {"const": 0}}}]}),
                json!({"city": "Paris", "days": 3, "z": 0}),
            ),
        ];
        for (schema, expected) in cases {
            assert_eq!(instance(&mut Chance::new(1), &schema).unwrap(), expected, "{schema}");
        }
        assert!(instance(&mut Chance::new(1), &json!({"type": "wat"})).is_err());
    }
}
