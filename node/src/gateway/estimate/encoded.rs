//! A file in base 64, of which only the looked-at parts are decoded, or as it is.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// As lenient as Python's decoder is about the end of the text.
const DECODER: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A file.
pub(super) enum Encoded<'a> {
    /// As base 64 text.
    Text(&'a [u8]),
    /// As it is.
    Plain(&'a [u8]),
}

impl<'a> Encoded<'a> {
    pub(super) fn new(text: &'a str) -> Encoded<'a> {
        Encoded::Text(text.trim_end_matches('=').as_bytes())
    }

    /// The file's size in bytes, exact if the text is base 64 without line breaks, else more than it has.
    pub(super) fn len(&self) -> usize {
        match self {
            Encoded::Text(text) => text.len() / 4 * 3 + text.len() % 4 * 3 / 4,
            Encoded::Plain(bytes) => bytes.len(),
        }
    }

    /// So many bytes from `at` on: fewer at the end of the file, none where the text is no base 64.
    pub(super) fn read(&self, at: usize, length: usize) -> Vec<u8> {
        if at >= self.len() {
            return Vec::new();
        }
        let end = at.saturating_add(length).min(self.len());
        let text = match self {
            Encoded::Plain(bytes) => return bytes[at..end].to_vec(),
            Encoded::Text(text) => text,
        };
        let (first, last) = (at / 3 * 4, (end.div_ceil(3) * 4).min(text.len()));
        let Some(text) = text.get(first..last) else { return Vec::new() };
        let mut bytes = DECODER.decode(text).unwrap_or_default();
        bytes.truncate(end.saturating_sub(at / 3 * 3));
        bytes.drain(..(at % 3).min(bytes.len()));
        bytes
    }

    /// The last bytes, at most so many.
    pub(super) fn tail(&self, length: usize) -> Vec<u8> {
        self.read(self.len().saturating_sub(length), length)
    }
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};

    use super::*;

    #[test]
    fn every_part_of_a_file_is_read_as_it_is() {
        for length in 0..40_u8 {
            let file: Vec<u8> = (0..length).map(|byte| byte.wrapping_mul(37)).collect();
            let texts = [BASE64_STANDARD.encode(&file), BASE64_STANDARD_NO_PAD.encode(&file)];
            for encoded in [Encoded::new(&texts[0]), Encoded::new(&texts[1]), Encoded::Plain(&file)] {
                assert_eq!(encoded.len(), file.len());
                for at in 0..file.len() + 3 {
                    for size in 0..file.len() + 3 {
                        let expected = &file[at.min(file.len())..(at + size).min(file.len())];
                        assert_eq!(encoded.read(at, size), expected, "{size} from {at} of {length}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_no_base_64_has_no_bytes_and_still_a_size() {
        let encoded = Encoded::new("hello, world! this is no file");
        assert_eq!((encoded.read(0, 10), encoded.len() > 15), (Vec::new(), true));
        assert_eq!(Encoded::new("").read(usize::MAX, usize::MAX), Vec::<u8>::new());
    }
}
