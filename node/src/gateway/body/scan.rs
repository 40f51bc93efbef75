//! Scans a JSON object once, in steps, and builds nothing: it checks that the text is JSON, bounds it, and says where the
//! members of the object are.
//!
//! It is our own because no library scans in steps. A step takes some tens of microseconds however large the body is, so a
//! body of 32 MiB keeps no other call waiting, and the simulation runs the same code. What it accepts is what serde_json
//! accepts, within the bounds; a test holds the two against each other.

use super::Span;

/// Objects and lists inside one another. Schemas of tools have ten levels or twenty. serde_json reads 127, so whatever is
/// parsed after the scan can be parsed.
const DEPTH_MAX: u32 = 100;

/// Objects, lists, strings and members of objects. A conversation has some thousands, and a `logit_bias` for every token of a
/// vocabulary 200,000. Numbers in lists (token ids) do not count: they cost their bytes.
const NODES_MAX: u32 = 500_000;

/// A member of the scanned object.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// Its name as written, with the quotation marks.
    pub(super) name: Span,
    /// Its value.
    pub(super) value: Span,
    /// If the value is a list: how many elements it has.
    pub(super) items: u64,
    /// If the value is a list: the first byte of its first element.
    pub(super) first: Option<u8>,
}

/// Why a text is refused, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("is not valid JSON: {what} at byte {at}")]
    Invalid { what: &'static str, at: usize },
    #[error("is nested deeper than {DEPTH_MAX} levels at byte {at}")]
    TooDeep { at: usize },
    #[error("has more than {NODES_MAX} objects, lists, strings and fields at byte {at}")]
    TooMany { at: usize },
}

/// How far a scan is.
#[derive(Debug)]
pub(super) struct Scanner {
    at: usize,
    /// Up to here the text is UTF-8.
    utf8: usize,
    state: State,
    depth: u32,
    /// A bit for each level: whether it is an object.
    objects: u128,
    nodes: u32,
    /// Where the text that is being read begins, and whether it is a member's name.
    text: usize,
    is_name: bool,
    /// The member of the outermost object that is being read.
    member: Member,
}

/// What comes next.
#[derive(Clone, Copy, Debug)]
enum State {
    /// A value, or, right after its beginning, the end of a list.
    Value {
        or_end: bool,
    },
    /// A member's name, or, right after its beginning, the end of an object.
    Name {
        or_end: bool,
    },
    Colon,
    /// A comma, or the end of the object or list.
    After,
    Text,
    Escape,
    /// So many hexadecimal digits.
    Hex(u8),
    Number(Number),
    /// The rest of `true`, `false` or `null`.
    Word(&'static [u8]),
    /// Nothing more.
    End,
}

/// The part of a number that was read last.
#[derive(Clone, Copy, Debug)]
enum Number {
    Minus,
    Zero,
    Integer,
    Point,
    Fraction,
    E,
    Sign,
    Exponent,
}

impl Number {
    /// The state after one more byte. `None`: the byte is no part of the number.
    fn next(self, byte: u8) -> Option<Number> {
        match (self, byte) {
            (Number::Minus, b'0') => Some(Number::Zero),
            (Number::Minus, b'1'..=b'9') | (Number::Integer, b'0'..=b'9') => Some(Number::Integer),
            (Number::Zero | Number::Integer, b'.') => Some(Number::Point),
            (Number::Point | Number::Fraction, b'0'..=b'9') => Some(Number::Fraction),
            (Number::Zero | Number::Integer | Number::Fraction, b'e' | b'E') => Some(Number::E),
            (Number::E, b'+' | b'-') => Some(Number::Sign),
            (Number::E | Number::Sign | Number::Exponent, b'0'..=b'9') => Some(Number::Exponent),
            _ => None,
        }
    }

    fn may_end(self) -> bool {
        matches!(self, Number::Zero | Number::Integer | Number::Fraction | Number::Exponent)
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

impl Scanner {
    /// Of an object whose brace is at `brace`.
    pub(super) fn from(brace: usize) -> Scanner {
        let member = Member { name: 0..0, value: 0..0, items: 0, first: None };
        let state = State::Value { or_end: false };
        Scanner { at: brace, utf8: brace, state, depth: 0, objects: 0, nodes: 0, text: 0, is_name: false, member }
    }

    /// The name, as written, of the member in which the scan is.
    pub(super) fn member_name(&self) -> Span {
        self.member.name.clone()
    }

    /// Scans up to the byte `until` and hands over the members that end before it.
    pub(super) fn advance(&mut self, body: &[u8], until: usize, found: &mut impl FnMut(&Member)) -> Result<(), Fault> {
        self.check_utf8(body, until)?;
        let body = &body[..until];
        while let Some(&byte) = body.get(self.at) {
            match self.state {
                State::Text => self.text(body, found)?,
                State::Number(number) => match number.next(byte) {
                    Some(next) => (self.state, self.at) = (State::Number(next), self.at + 1),
                    None if number.may_end() => self.value_ended(self.at, found),
                    None => return Err(self.invalid("a number is malformed")),
                },
                _ => {
                    self.byte(byte, found)?;
                    self.at += 1;
                }
            }
        }
        Ok(())
    }

    /// Checks that the object is complete.
    pub(super) fn finish(&self) -> Result<(), Fault> {
        match self.state {
            State::End => Ok(()),
            _ => Err(self.invalid("it ends too early")),
        }
    }

    fn invalid(&self, what: &'static str) -> Fault {
        Fault::Invalid { what, at: self.at }
    }

    /// A character may be cut by the end of a step, not by the end of the body.
    fn check_utf8(&mut self, body: &[u8], until: usize) -> Result<(), Fault> {
        match std::str::from_utf8(&body[self.utf8..until]) {
            Ok(_) => self.utf8 = until,
            Err(error) => {
                self.utf8 += error.valid_up_to();
                if error.error_len().is_some() || until == body.len() {
                    return Err(Fault::Invalid { what: "it is not UTF-8", at: self.utf8 });
                }
            }
        }
        Ok(())
    }

    /// The rest of a text, as far as it is here.
    fn text(&mut self, body: &[u8], found: &mut impl FnMut(&Member)) -> Result<(), Fault> {
        let rest = &body[self.at..];
        let length = memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
        // Without an early end, so that it is done many bytes at a time.
        let has_control = rest[..length].iter().fold(false, |found, byte| found | (*byte < b' '));
        if has_control {
            self.at += rest.iter().position(|byte| *byte < b' ').unwrap_or(0);
            return Err(self.invalid("a string has a control character"));
        }
        self.at += length;
        match rest.get(length) {
            None => return Ok(()),
            Some(b'\\') => self.state = State::Escape,
            Some(_) if self.is_name => {
                self.state = State::Colon;
                if self.depth == 1 {
                    self.member.name = self.text..self.at + 1;
                }
            }
            Some(_) => self.value_ended(self.at + 1, found),
        }
        self.at += 1;
        Ok(())
    }

    /// One byte outside of texts and numbers.
    fn byte(&mut self, byte: u8, found: &mut impl FnMut(&Member)) -> Result<(), Fault> {
        match self.state {
            State::Escape => {
                self.state = match byte {
                    b'u' => State::Hex(4),
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => State::Text,
                    _ => return Err(self.invalid("a string has an unknown escape")),
                };
            }
            State::Hex(left) if byte.is_ascii_hexdigit() => {
                self.state = if left == 1 { State::Text } else { State::Hex(left - 1) };
            }
            State::Hex(_) => return Err(self.invalid("a string has an unknown escape")),
            State::Word([next, rest @ ..]) if *next == byte => match rest {
                [] => self.value_ended(self.at + 1, found),
                rest => self.state = State::Word(rest),
            },
            State::Word(_) => return Err(self.invalid("it has an unknown word")),
            _ if is_space(byte) => {}
            State::Value { or_end: true } if byte == b']' => self.close(found),
            State::Value { .. } => self.begin_value(byte)?,
            State::Name { or_end: true } if byte == b'}' => self.close(found),
            State::Name { .. } if byte == b'"' => self.begin_text(true)?,
            State::Name { .. } => return Err(self.invalid("a field's name is missing")),
            State::Colon if byte == b':' => self.state = State::Value { or_end: false },
            State::Colon => return Err(self.invalid("a colon is missing")),
            State::After if byte == b',' => {
                self.state =
                    if self.in_object() { State::Name { or_end: false } } else { State::Value { or_end: false } };
            }
            State::After if byte == if self.in_object() { b'}' } else { b']' } => self.close(found),
            State::After => return Err(self.invalid("a comma or an end is missing")),
            State::End => return Err(self.invalid("something follows the object")),
            State::Text | State::Number(_) => unreachable!("both are scanned by `advance`"),
        }
        Ok(())
    }

    fn in_object(&self) -> bool {
        self.depth > 0 && self.objects >> (self.depth - 1) & 1 == 1
    }

    fn begin_value(&mut self, byte: u8) -> Result<(), Fault> {
        if self.depth == 1 {
            (self.member.value, self.member.items, self.member.first) = (self.at..self.at, 0, None);
        } else if self.depth == 2 && !self.in_object() {
            self.member.items += 1;
            self.member.first.get_or_insert(byte);
        }
        match byte {
            b'{' | b'[' => self.open(byte == b'{')?,
            b'"' => self.begin_text(false)?,
            b'-' => self.state = State::Number(Number::Minus),
            b'0' => self.state = State::Number(Number::Zero),
            b'1'..=b'9' => self.state = State::Number(Number::Integer),
            b't' => self.state = State::Word(b"rue"),
            b'f' => self.state = State::Word(b"alse"),
            b'n' => self.state = State::Word(b"ull"),
            _ => return Err(self.invalid("a value is missing")),
        }
        Ok(())
    }

    fn begin_text(&mut self, is_name: bool) -> Result<(), Fault> {
        (self.state, self.text, self.is_name) = (State::Text, self.at, is_name);
        self.count()
    }

    fn open(&mut self, is_object: bool) -> Result<(), Fault> {
        if self.depth == DEPTH_MAX {
            return Err(Fault::TooDeep { at: self.at });
        }
        self.objects = self.objects & !(1 << self.depth) | u128::from(is_object) << self.depth;
        self.depth += 1;
        self.state = if is_object { State::Name { or_end: true } } else { State::Value { or_end: true } };
        self.count()
    }

    fn count(&mut self) -> Result<(), Fault> {
        self.nodes += 1;
        if self.nodes > NODES_MAX { Err(Fault::TooMany { at: self.at }) } else { Ok(()) }
    }

    fn close(&mut self, found: &mut impl FnMut(&Member)) {
        self.depth -= 1;
        self.value_ended(self.at + 1, found);
    }

    fn value_ended(&mut self, end: usize, found: &mut impl FnMut(&Member)) {
        self.state = if self.depth == 0 { State::End } else { State::After };
        if self.depth == 1 {
            self.member.value.end = end;
            found(&self.member);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// The members of `text`, read in steps of `step` bytes.
    fn scan(text: &str, step: usize) -> Result<Vec<(String, String, u64)>, Fault> {
        let mut scanner = Scanner::from(0);
        let mut members = Vec::new();
        let mut until = 0;
        while until < text.len() {
            until = (until + step).min(text.len());
            scanner.advance(text.as_bytes(), until, &mut |member: &Member| {
                let slice = |span: &Span| text[span.clone()].to_owned();
                members.push((slice(&member.name), slice(&member.value), member.items));
            })?;
        }
        scanner.finish().map(|()| members)
    }

    #[test]
    fn members_are_found_and_lists_are_counted() {
        let text = r#" {"a" :1 ,"b\"":[1,[2,3],{"x":4}], "c":{"d":[5]},"e":-1.5e+3,"f":"}\\" , "g":[]} "#.trim_start();
        let expected = [
            (r#""a""#, "1", 0),
            (r#""b\"""#, r#"[1,[2,3],{"x":4}]"#, 3),
            (r#""c""#, r#"{"d":[5]}"#, 0),
            (r#""e""#, "-1.5e+3", 0),
            (r#""f""#, r#""}\\""#, 0),
            (r#""g""#, "[]", 0),
        ];
        let expected: Vec<_> = expected.map(|(name, value, items)| (name.to_owned(), value.to_owned(), items)).into();
        for step in 1..=text.len() {
            assert_eq!(scan(text, step).unwrap(), expected, "in steps of {step}");
        }
    }

    #[test]
    fn a_scan_is_bounded_in_depth_and_nodes() {
        let deep = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
        assert!(scan(&deep(100), 64).is_ok());
        assert_eq!(scan(&deep(101), 64), Err(Fault::TooDeep { at: 104 }));
        let many = |nodes: usize| format!("{{\"a\":[{}]}}", vec!["{}"; nodes - 3].join(","));
        assert!(scan(&many(500_000), 4096).is_ok());
        assert!(matches!(scan(&many(500_001), 4096), Err(Fault::TooMany { .. })));
        let ids = format!("{{\"a\":[{}]}}", vec!["1"; 1_000_000].join(","));
        assert!(scan(&ids, 4096).is_ok(), "token ids are not nodes");
    }

    /// Texts that are nearly JSON: a JSON object with some bytes put in, taken out or changed.
    fn nearly() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        let value = leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((any::<String>(), inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        });
        let pieces = prop::sample::select(vec![
            "\"", "\\", "\\u", "\\ud800", "{", "}", "[", "]", ",", ":", "0", "1", "-", "+", ".", "e", " ", "\n", "\t",
            "true", "false", "null", "nul", "NaN", "\u{1}", "\u{7f}", "é", "//", "'",
        ]);
        let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<bool>(), pieces), 0..3);
        (prop::collection::vec((any::<String>(), value), 0..4), edits).prop_map(|(members, edits)| {
            let mut text = Value::Object(members.into_iter().collect()).to_string();
            for (at, removes, piece) in edits {
                let at = at.index(text.len().max(1)).max(1).min(text.len());
                let at = (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
                let end = if removes { (at + 1..=text.len()).find(|end| text.is_char_boundary(*end)) } else { None };
                text.replace_range(at..end.unwrap_or(at), piece);
            }
            text
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn what_is_accepted_is_json_and_all_json_is_accepted(text in nearly(), step in 1_usize..40) {
            prop_assume!(text.starts_with('{'));
            let json = serde_json::from_str::<&serde_json::value::RawValue>(&text);
            prop_assert_eq!(scan(&text, step).is_ok(), json.is_ok(), "{}", text);
        }
    }
}
