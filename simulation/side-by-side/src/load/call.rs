//! What is sent: a chat of a given size, every one different, with one of the keys.

/// The calls of a run.
pub(super) struct Calls {
    /// The head up to where a key may follow.
    head: String,
    keys: Vec<String>,
    /// The body up to the number that makes it unique.
    before: String,
    /// The body after that number.
    after: String,
}

/// Digits of the number that makes a body unique.
const NUMBER_DIGITS: usize = 16;
const WORDS: &str = "please explain how a gateway spreads calls over replicas and what a caller notices of it, ";

impl Calls {
    /// Calls to `path` of a gateway, with bodies of `body_bytes` bytes or the few that are needed.
    pub(super) fn new(
        path: &str,
        port: u16,
        model: &str,
        is_stream: bool,
        body_bytes: usize,
        keys: Vec<String>,
    ) -> Calls {
        let before = format!(
            r#"{{"model":"{model}","messages":[{{"role":"system","content":"Answer in a few words."}},{{"role":"user","content":""#
        );
        let end = match is_stream {
            true => r#""}],"max_tokens":400,"stream":true,"stream_options":{"include_usage":true}}"#,
            false => r#""}],"max_tokens":400}"#,
        };
        let text_bytes = body_bytes.saturating_sub(before.len() + NUMBER_DIGITS + 1 + end.len());
        let text: String = WORDS.chars().cycle().take(text_bytes).collect();
        let after = format!(" {text}{end}");
        let length = before.len() + NUMBER_DIGITS + after.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\naccept: */*\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n"
        );
        Calls { head, keys, before, after }
    }

    /// Writes the next call over what is in `out`.
    pub(super) fn write(&self, chance: &mut Chance, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(self.head.as_bytes());
        if !self.keys.is_empty() {
            let key = &self.keys[chance.below(self.keys.len())];
            for piece in ["authorization: Bearer ", key, "\r\n"] {
                out.extend_from_slice(piece.as_bytes());
            }
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(self.before.as_bytes());
        out.extend_from_slice(format!("{:0NUMBER_DIGITS$x}", chance.next()).as_bytes());
        out.extend_from_slice(self.after.as_bytes());
    }
}

/// Numbers that look random and are the same for the same seed.
pub(super) struct Chance(u64);

impl Chance {
    /// The numbers of the `index`th of several that share a seed.
    pub(super) fn new(seed: u64, index: u32) -> Chance {
        Chance(seed.rotate_left(32) ^ u64::from(index))
    }

    /// A counter with an odd step, its bits mixed (SplitMix64).
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// An index into a list of so many.
    fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.next() % count as u64).expect("less than a usize")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_one_complete_request_with_a_body_of_the_size_asked_for() {
        for (is_stream, keys) in [(false, vec![]), (true, vec!["k-1".to_owned()])] {
            let calls = Calls::new("/v1/chat/completions", 8101, "mock", is_stream, 1024, keys.clone());
            let (mut chance, mut first, mut second) = (Chance::new(1, 0), Vec::new(), Vec::new());
            calls.write(&mut chance, &mut first);
            calls.write(&mut chance, &mut second);
            assert_ne!(first, second, "every prompt is different");

            let text = String::from_utf8(first).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert_eq!(body.len(), 1024);
            assert!(head.contains("content-length: 1024"));
            assert_eq!(head.contains("authorization: Bearer k-1"), !keys.is_empty());
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(body["stream"] == true, is_stream);
        }
    }
}
