//! JSON from people: a name that appears twice in one object is a mistake, not a riddle.
//!
//! The nesting is bounded by the parser (128 levels).

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// The value that `bytes` hold. Errors: one line that says what is wrong and where.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, String> {
    serde_json::from_slice::<Unambiguous>(bytes).map(|value| value.0).map_err(|error| error.to_string())
}

struct Unambiguous(Value);

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Unambiguous, D::Error> {
        deserializer.deserialize_any(Builder).map(Unambiguous)
    }
}

struct Builder;

impl<'de> Visitor<'de> for Builder {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Unambiguous(item)) = access.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((name, Unambiguous(value))) = access.next_entry::<String, Unambiguous>()? {
            if map.contains_key(&name) {
                return Err(A::Error::custom(format!("duplicate field {name:?}")));
            }
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_json_value_comes_through_and_a_name_twice_does_not() {
        let text = r#"{"a":[null,true,-1,18446744073709551615,1.5,"x"],"b":{}}"#;
        assert_eq!(parse(text.as_bytes()), Ok(json!({"a": [null, true, -1, u64::MAX, 1.5, "x"], "b": {}})));
        assert!(parse(br#"{"a":{"b":1,"b":2}}"#).unwrap_err().contains("duplicate field \"b\""));
        assert!(parse(b"").is_err());
        assert!(parse(b"{} {}").is_err());
        assert!(parse("[".repeat(200).as_bytes()).unwrap_err().contains("recursion limit"));
    }
}
