//! Numbers and flags in every form that a replica takes. vLLM's request types are pydantic models that are not strict: an
//! integer may come as `8`, `8.0`, `"8"` or `true`, a flag as `true`, `1` or `"yes"` (pydantic 2.13, "Conversion Table", lax
//! mode, Python input). What is read here is what pydantic reads, except that integers of more than 64 bits are refused.

/// Why a value is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Misread {
    #[error("must be an integer")]
    NotInteger,
    #[error("is too large")]
    TooLarge,
    #[error("must be true or false")]
    NotFlag,
}

/// Two to the power of 63.
const INTEGER_END: f64 = 9_223_372_036_854_775_808.0;

/// Reads one JSON value as an integer; `None` is `null`.
pub(super) fn integer(json: &str) -> Result<Option<i64>, Misread> {
    match json.as_bytes().first() {
        Some(b'n') => Ok(None),
        Some(b't') => Ok(Some(1)),
        Some(b'f') => Ok(Some(0)),
        Some(b'"') => {
            let text: String = serde_json::from_str(json).map_err(|_| Misread::NotInteger)?;
            integer_in_text(text.trim()).map(Some)
        }
        Some(b'-' | b'0'..=b'9') if json.contains(['.', 'e', 'E']) => {
            let number: f64 = json.parse().map_err(|_| Misread::NotInteger)?;
            match number {
                number if number.abs() >= INTEGER_END => Err(Misread::TooLarge),
                number if number.fract() != 0.0 => Err(Misread::NotInteger),
                number => Ok(Some(number as i64)),
            }
        }
        Some(b'-' | b'0'..=b'9') => json.parse().map(Some).map_err(|_| Misread::TooLarge),
        _ => Err(Misread::NotInteger),
    }
}

/// A sign, digits with single underscores between them, and a fraction of zeros.
fn integer_in_text(text: &str) -> Result<i64, Misread> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = whole.strip_prefix(['+', '-']).unwrap_or(whole);
    let groups_are_digits =
        digits.split('_').all(|group| !group.is_empty() && group.bytes().all(|byte| byte.is_ascii_digit()));
    if !groups_are_digits || fraction.is_empty() || fraction.bytes().any(|byte| byte != b'0') {
        return Err(Misread::NotInteger);
    }
    whole.replace('_', "").parse().map_err(|_| Misread::TooLarge)
}

/// Reads one JSON value as a flag; `None` is `null`.
pub(super) fn flag(json: &str) -> Result<Option<bool>, Misread> {
    const ON: [&str; 6] = ["1", "on", "t", "true", "y", "yes"];
    const OFF: [&str; 6] = ["0", "off", "f", "false", "n", "no"];
    match json.as_bytes().first() {
        Some(b'n') => Ok(None),
        Some(b't') => Ok(Some(true)),
        Some(b'f') => Ok(Some(false)),
        Some(b'"') => {
            let text: String = serde_json::from_str(json).map_err(|_| Misread::NotFlag)?;
            let is_one_of = |words: [&str; 6]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
            match (is_one_of(ON), is_one_of(OFF)) {
                (true, _) => Ok(Some(true)),
                (_, true) => Ok(Some(false)),
                (false, false) => Err(Misread::NotFlag),
            }
        }
        Some(b'-' | b'0'..=b'9') => match json.parse::<f64>() {
            Ok(1.0) => Ok(Some(true)),
            Ok(0.0) => Ok(Some(false)),
            _ => Err(Misread::NotFlag),
        },
        _ => Err(Misread::NotFlag),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What pydantic 2.13.4 (the version that the recorded vLLM ran) makes of each value, as `Optional[int]`.
    #[test]
    fn integers_are_read_as_pydantic_reads_them() {
        let large = Err(Misread::TooLarge);
        let no = Err(Misread::NotInteger);
        let table = [
            ("8", Ok(Some(8))),
            ("8.0", Ok(Some(8))),
            ("-0", Ok(Some(0))),
            ("-0.0", Ok(Some(0))),
            ("1e2", Ok(Some(100))),
            ("1E+2", Ok(Some(100))),
            ("100e-2", Ok(Some(1))),
            ("1e-2", no),
            ("1.5", no),
            ("1.0000000000000000001", Ok(Some(1))),
            ("4503599627370497.5", Ok(Some(4_503_599_627_370_498))),
            ("9007199254740993.0", Ok(Some(9_007_199_254_740_992))),
            ("9223372036854774784.0", Ok(Some(9_223_372_036_854_774_784))),
            ("9223372036854775807", Ok(Some(i64::MAX))),
            ("9223372036854775808.0", large),
            ("-9223372036854775808", Ok(Some(i64::MIN))),
            ("-9223372036854775808.0", large),
            ("1e400", large),
            ("true", Ok(Some(1))),
            ("false", Ok(Some(0))),
            ("null", Ok(None)),
            ("\"8\"", Ok(Some(8))),
            ("\" 8 \"", Ok(Some(8))),
            (r#""\n8\t""#, Ok(Some(8))),
            (r#""\u000b8\u000c""#, Ok(Some(8))),
            (r#""\u00a08\u3000""#, Ok(Some(8))),
            (r#""8\u0085""#, Ok(Some(8))),
            (r#""\u0038""#, Ok(Some(8))),
            ("\"8.0\"", Ok(Some(8))),
            ("\"8.000000000000000000000000000000\"", Ok(Some(8))),
            ("\"-8.0\"", Ok(Some(-8))),
            ("\"+8\"", Ok(Some(8))),
            ("\"08\"", Ok(Some(8))),
            ("\"-08\"", Ok(Some(-8))),
            ("\"1_000\"", Ok(Some(1000))),
            ("\"1_000.0\"", Ok(Some(1000))),
            ("\"0_8\"", Ok(Some(8))),
            ("\"\"", no),
            ("\"8.\"", no),
            ("\".0\"", no),
            ("\"8.5\"", no),
            ("\"1__000\"", no),
            ("\"_1\"", no),
            ("\"1_\"", no),
            ("\"-_8\"", no),
            ("\"8_.0\"", no),
            ("\"8._0\"", no),
            ("\"1.0_0\"", no),
            ("\"+ 8\"", no),
            ("\"--8\"", no),
            ("\"0x8\"", no),
            ("\"1e2\"", no),
            ("\"8 0\"", no),
            ("\"8,0\"", no),
            (r#""\u0668""#, no),
            (r#""\uff18""#, no),
            (r#""\u001c8""#, no),
            (r#""8\u0000""#, no),
            (r#""8\u200b""#, no),
            (r#""\ufeff8""#, no),
            (r#""\ud800""#, no),
            ("\"true\"", no),
            ("\"null\"", no),
            ("[8]", no),
            ("{\"a\":8}", no),
            // pydantic takes these, and vLLM refuses them later.
            ("9223372036854775808", large),
            ("\"9223372036854775808\"", large),
        ];
        for (json, expected) in table {
            assert_eq!(integer(json), expected, "{json}");
        }
    }

    /// The same as `Optional[bool]`.
    #[test]
    fn flags_are_read_as_pydantic_reads_them() {
        let on = [
            "true",
            "1",
            "1.0",
            "1e0",
            "100e-2",
            "1.0000000000000000001",
            "\"true\"",
            "\"tRuE\"",
            "\"1\"",
            "\"on\"",
            "\"ON\"",
            "\"yes\"",
            "\"y\"",
            "\"Y\"",
            "\"t\"",
            r#""\u0074rue""#,
        ];
        let off = ["false", "0", "-0", "-0.0", "0.0", "\"false\"", "\"0\"", "\"off\"", "\"no\"", "\"n\"", "\"f\""];
        let neither = [
            "2",
            "-1",
            "0.5",
            "18446744073709551617",
            "\" true \"",
            "\"true \"",
            "\" 1\"",
            "\"1.0\"",
            "\"\"",
            "\"maybe\"",
            "\"enabled\"",
            r#""ye\u017f""#,
            r#""\uff54rue""#,
            "[]",
            "[true]",
            "{}",
        ];
        on.iter().for_each(|json| assert_eq!(flag(json), Ok(Some(true)), "{json}"));
        off.iter().for_each(|json| assert_eq!(flag(json), Ok(Some(false)), "{json}"));
        neither.iter().for_each(|json| assert_eq!(flag(json), Err(Misread::NotFlag), "{json}"));
        assert_eq!(flag("null"), Ok(None));
    }
}
