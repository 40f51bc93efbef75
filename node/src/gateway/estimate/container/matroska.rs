//! Matroska and WebM: the duration in the segment's information (RFC 9559, section 5.1.2).

use memchr::memmem;

use super::{Encoded, be32, be64};

/// The information is near the beginning of a file.
const HEAD: usize = 64 * 1024;
const MAGIC: &[u8] = b"\x1a\x45\xdf\xa3";
const INFO: &[u8] = b"\x15\x49\xa9\x66";
const SCALE: u64 = 0x2a_d7b1;
const DURATION: u64 = 0x4489;

pub(super) fn seconds(file: &Encoded<'_>) -> Option<f64> {
    if file.read(0, 4) != MAGIC {
        return None;
    }
    let head = file.read(0, HEAD);
    let mut at = memmem::find(&head, INFO)? + INFO.len();
    let (size, length) = number(&head, at, true)?;
    at += length;
    let end = at.saturating_add(usize::try_from(size).ok()?).min(head.len());
    // Nanoseconds of a unit of the duration, by default.
    let (mut scale, mut duration) = (1_000_000, None);
    while at < end {
        let (id, length) = number(&head, at, false)?;
        at += length;
        let (size, length) = number(&head, at, true)?;
        at += length;
        let content = head.get(at..at.checked_add(usize::try_from(size).ok()?)?)?;
        match (id, content.len()) {
            (SCALE, 1..=8) => scale = content.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)),
            (DURATION, 4) => duration = be32(content, 0).map(|bits| f64::from(f32::from_bits(bits))),
            (DURATION, 8) => duration = be64(content, 0).map(f64::from_bits),
            _ => {}
        }
        at += content.len();
    }
    duration.map(|duration| duration * scale as f64 / 1e9)
}

/// A number whose length is in its first byte, and that length; sizes are without the bit that marks it (RFC 8794, section 4).
fn number(bytes: &[u8], at: usize, is_size: bool) -> Option<(u64, usize)> {
    let first = *bytes.get(at)?;
    let length = first.leading_zeros() as usize + 1;
    let whole = bytes.get(at..at.checked_add(length)?).filter(|_| length <= 8)?;
    let value = whole.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
    Some((if is_size { value & !(1 << (7 * length)) } else { value }, length))
}

#[cfg(test)]
mod tests {
    use super::super::tests::read;
    use super::*;

    fn webm(info: &[u8]) -> Vec<u8> {
        let size = 0x80 | u8::try_from(info.len()).unwrap();
        [MAGIC, b"\x80\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff", INFO, &[size], info, &[0; 50]].concat()
    }

    #[test]
    fn durations_are_those_of_the_information() {
        let short = [&b"\x44\x89\x84"[..], &30_000_f32.to_be_bytes()].concat();
        let long = [&b"\x44\x89\x88"[..], &30_000_f64.to_be_bytes()].concat();
        let scaled = [&b"\x2a\xd7\xb1\x83\x0f\x42\x40\x4d\x80\x82me"[..], &long].concat();
        let table = [
            ("a short float", webm(&short), Some(30.0)),
            ("a long float", webm(&long), Some(30.0)),
            ("with a scale and other fields", webm(&scaled), Some(30.0)),
            ("recorded live", webm(b"\x4d\x80\x82me"), None),
            ("cut", webm(&long)[..24].to_vec(), None),
            ("no information", [MAGIC, &[0; 50]].concat(), None),
        ];
        for (what, file, expected) in table {
            assert_eq!(read(seconds, &file), expected, "{what}");
        }
    }
}
