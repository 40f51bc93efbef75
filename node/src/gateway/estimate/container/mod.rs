//! How long a medium is, by the header of its file, which is believed.

mod flac;
mod matroska;
mod mp3;
mod mp4;
mod ogg;
pub(super) mod pdf;
mod wav;

use super::encoded::Encoded;

/// A reader of one format. `None`: the file has another format, or does not say its duration.
type Reader = fn(&Encoded<'_>) -> Option<f64>;

/// Seconds of an audio file, rounded up. `None`: it has no header that is understood, or none that says it.
pub(super) fn audio_seconds(file: &Encoded<'_>) -> Option<u64> {
    const READERS: [Reader; 6] =
        [wav::seconds, flac::seconds, ogg::seconds, mp4::seconds, matroska::seconds, mp3::seconds];
    seconds(file, &READERS)
}

/// Seconds of a video file, likewise.
pub(super) fn video_seconds(file: &Encoded<'_>) -> Option<u64> {
    const READERS: [Reader; 3] = [mp4::seconds, matroska::seconds, ogg::seconds];
    seconds(file, &READERS)
}

fn seconds(file: &Encoded<'_>, readers: &[Reader]) -> Option<u64> {
    let seconds = readers.iter().find_map(|read| read(file))?;
    (seconds.is_finite() && seconds >= 0.0).then_some(seconds.ceil() as u64)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_be_bytes)
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_be_bytes)
}

fn be64(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_be_bytes)
}

fn le16(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_le_bytes)
}

fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

/// Where a file begins behind an ID3v2 tag, if it has one.
fn behind_id3(file: &Encoded<'_>) -> usize {
    match file.read(0, 10)[..] {
        // The size is in seven bits of each byte (ID3v2.4, section 3.1).
        [b'I', b'D', b'3', _, _, _, a, b, c, d] => {
            [a, b, c, d].iter().fold(0, |size, byte| size << 7 | usize::from(byte & 0x7f)) + 10
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, Engine};

    use super::*;

    /// What a reader says of a file.
    pub(super) fn read(reader: Reader, file: &[u8]) -> Option<f64> {
        reader(&Encoded::new(&BASE64_STANDARD.encode(file)))
    }

    #[test]
    fn a_file_of_no_known_format_has_no_duration() {
        let text = BASE64_STANDARD.encode([7; 30_000]);
        assert_eq!((audio_seconds(&Encoded::new(&text)), video_seconds(&Encoded::new(&text))), (None, None));
    }

    proptest::proptest! {
        /// Headers that are cut, changed, or in front of something else.
        #[test]
        fn no_file_makes_a_reader_fail(
            magic in proptest::sample::select(vec![
                &b"RIFF\0\0\0\0WAVEfmt "[..], b"RF64", b"fLaC", b"OggS", b"\0\0\0\x18ftypisom", b"\0\0\0\x01moov",
                b"\x1a\x45\xdf\xa3", b"\x1a\x45\xdf\xa3\x15\x49\xa9\x66", b"ID3\x04\0\0\x7f\x7f\x7f\x7f", b"\xff\xfb\x90\0", b"%PDF-1.7 /Count ",
            ]),
            rest in proptest::collection::vec(proptest::num::u8::ANY, 0..300),
        ) {
            let text = BASE64_STANDARD.encode([magic, &rest].concat());
            let file = Encoded::new(&text);
            let _ = (audio_seconds(&file), video_seconds(&file), pdf::pages(&file));
        }
    }
}
