//! The tokenizer and the writer of answers.
//!
//! Tokens are reversible without any table of state: a word of the canned vocabulary with the space before it is one
//! token; everything else is cut into pieces of at most four bytes (never inside a character, and a piece ends before
//! a space), whose bytes *are* the id. English comes out near four bytes a token, no text has more tokens than bytes,
//! and a generated answer that comes back as history gives the tokens that were generated.
//!
//! Ids below [`VOCABULARY`] stand for words (callers send such ids as prompts); ids from `0x0100_0000` are pieces.

use crate::{
    chance::Chance,
    words::{OPENINGS, WORDS},
};

/// Ids below this are words.
pub(crate) const VOCABULARY: u32 = 201_088;

/// The id of the first canned word.
const FIRST_WORD: u32 = 1_000;

/// Ids that the chat template puts around messages; they print as nothing.
pub(crate) const SPECIAL: u32 = 200_000;

/// Lead bytes that no UTF-8 text has, marking pieces of 1, 2 and 3 bytes.
const SHORT: [u32; 3] = [0xfd, 0xfe, 0xff];

/// Whether an id means anything.
pub(crate) fn is_token(id: u64) -> bool {
    id < u64::from(VOCABULARY) || (0x0100_0000..=u64::from(u32::MAX)).contains(&id)
}

/// Cuts text into tokens.
pub(crate) fn encode(text: &str) -> Vec<u32> {
    let mut tokens = Vec::with_capacity(text.len() / 3 + 1);
    let mut rest = text;
    while !rest.is_empty() {
        let length = if let Some((id, length)) = leading_word(rest) {
            tokens.push(id);
            length
        } else {
            let piece = leading_piece(rest);
            tokens.push(piece_id(piece));
            piece.len()
        };
        rest = &rest[length..];
    }
    tokens
}

/// The text of tokens.
pub(crate) fn decode(tokens: &[u32]) -> String {
    let mut bytes = Vec::with_capacity(tokens.len() * 4);
    for token in tokens {
        push_bytes(*token, &mut bytes);
    }
    match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    }
}

/// A canned word, with its space, at the start of `text`: its id and its length in bytes.
fn leading_word(text: &str) -> Option<(u32, usize)> {
    let bytes = text.as_bytes();
    if bytes.first() != Some(&b' ') {
        return None;
    }
    let letters = bytes[1..].iter().take_while(|byte| byte.is_ascii_lowercase()).count();
    if letters == 0 || bytes.get(letters + 1).is_some_and(u8::is_ascii_alphabetic) {
        return None;
    }
    let at = WORDS.binary_search(&&text[1..=letters]).ok()?;
    Some((FIRST_WORD + at as u32, letters + 1))
}

/// At most four bytes from the start of `text`, ending before a space.
fn leading_piece(text: &str) -> &str {
    let mut end = 0;
    for (at, character) in text.char_indices() {
        let ends_here = at > 0 && (character == ' ' || character == '\0' || text.starts_with('\0'));
        if ends_here || at + character.len_utf8() > 4 {
            break;
        }
        end = at + character.len_utf8();
    }
    &text[..end]
}

fn piece_id(piece: &str) -> u32 {
    let value = piece.bytes().fold(0, |value, byte| value << 8 | u32::from(byte));
    if piece.len() == 4 { value } else { SHORT[piece.len() - 1] << 24 | value }
}

fn push_bytes(token: u32, bytes: &mut Vec<u8>) {
    if token < VOCABULARY {
        if token < SPECIAL {
            bytes.push(b' ');
            bytes.extend_from_slice(WORDS[token.wrapping_sub(FIRST_WORD) as usize % WORDS.len()].as_bytes());
        }
        return;
    }
    let all = token.to_be_bytes();
    let length = SHORT.iter().position(|mark| *mark == u32::from(all[0])).map_or(4, |at| at + 1);
    bytes.extend_from_slice(&all[4 - length..]);
}

/// Writes prose of exactly `length` tokens; `complete` prose ends with a full stop.
pub(crate) fn prose(chance: &mut Chance, length: usize, complete: bool) -> Vec<u32> {
    let mut tokens = Vec::with_capacity(length);
    let mut until_stop = chance.between(5, 12);
    for at in 0..length {
        let last = complete && at + 1 == length && at > 0;
        let before_last = complete && at + 2 == length;
        if at == 0 {
            tokens.push(piece_id(OPENINGS[chance.between(0, OPENINGS.len() - 1)]));
        } else if last || (until_stop == 0 && !before_last) {
            tokens.push(piece_id("."));
            until_stop = chance.between(5, 12);
        } else {
            tokens.push(FIRST_WORD + chance.between(0, WORDS.len() - 1) as u32);
            until_stop = until_stop.saturating_sub(1);
        }
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_sorted_and_fit_the_vocabulary() {
        assert!(WORDS.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(WORDS.iter().all(|word| word.bytes().all(|byte| byte.is_ascii_lowercase())));
        assert!(FIRST_WORD + (WORDS.len() as u32) < SPECIAL);
        assert!(OPENINGS.iter().all(|opening| opening.len() <= 4));
    }

    #[test]
    fn encoding_is_reversible_and_never_has_more_tokens_than_bytes() {
        let texts = [
            "Hello, how are you?",
            "  two  spaces\n\tand a tab",
            "Ünïcödé – 漢字 🎉🎉 e\u{301}",
            "nul \0\0 inside\0",
            "{\"city\": \"Paris\", \"n\": -1.5e3}",
            " the model then the models",
        ];
        for text in texts {
            let tokens = encode(text);
            assert_eq!(decode(&tokens), text);
            assert!(tokens.len() <= text.len(), "{text:?} has {} tokens", tokens.len());
            assert!(tokens.iter().all(|token| is_token(u64::from(*token))));
        }
    }

    #[test]
    fn english_has_three_to_five_bytes_a_token() {
        let text = "A gateway in front of model servers counts the tokens of every request, \
                    and routes each of them to the replica that will answer it first.";
        let ratio = text.len() as f64 / encode(text).len() as f64;
        assert!((3.0..5.0).contains(&ratio), "{ratio} bytes a token");
    }

    #[test]
    fn prose_has_the_length_asked_for_and_comes_back_as_the_same_tokens() {
        for length in [0, 1, 2, 3, 40, 300] {
            let tokens = prose(&mut Chance::new(length as u64), length, true);
            assert_eq!(tokens.len(), length);
            assert_eq!(encode(&decode(&tokens)), tokens);
        }
    }

    #[test]
    fn ids_between_words_and_pieces_mean_nothing() {
        for (id, valid) in [(0, true), (32_767, true), (201_088, false), (999_999, false), (0x4865_6c6c, true)] {
            assert_eq!(is_token(id), valid, "{id}");
        }
    }
}
