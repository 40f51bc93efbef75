//! WAV: the format of its samples, and all bytes behind that (RIFF, Multimedia Programming Interface 1.0; RFC 2361).

use super::{Encoded, le16, le32};

/// A file has a handful of chunks in front of its samples.
const CHUNKS_MAX: usize = 32;

/// Formats whose samples have one size: integers, floats, A-law, mu-law.
const PLAIN: [u16; 4] = [1, 3, 6, 7];
const EXTENSIBLE: u16 = 0xfffe;

pub(super) fn seconds(file: &Encoded<'_>) -> Option<f64> {
    let head = file.read(0, 12);
    if !(head.starts_with(b"RIFF") || head.starts_with(b"RF64")) || !head.ends_with(b"WAVE") {
        return None;
    }
    let mut at = 12;
    for _ in 0..CHUNKS_MAX {
        let chunk = file.read(at, 8 + 26);
        if chunk.starts_with(b"fmt ") {
            // The size of the samples as it is written may be wrong, and is where a file was streamed.
            return Some((file.len().saturating_sub(at) as f64) / bytes_per_second(chunk.get(8..)?)?);
        }
        at = at.checked_add(8)?.checked_add((le32(&chunk, 4)? as usize).checked_next_multiple_of(2)?)?;
    }
    None
}

/// By rate, channels and bits of the samples, as decoders have it: they ignore the average that is written, too.
fn bytes_per_second(format: &[u8]) -> Option<f64> {
    let tag = match le16(format, 0)? {
        EXTENSIBLE => le16(format, 24)?,
        tag => tag,
    };
    let (channels, rate, bits) = (le16(format, 2)?, le32(format, 4)?, le16(format, 14)?);
    let bytes = f64::from(channels) * f64::from(rate) * f64::from(bits.div_ceil(8));
    (PLAIN.contains(&tag) && bytes > 0.0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::tests::read;
    use super::*;

    fn wav(tag: u16, channels: u16, rate: u32, bits: u16, before: &[u8], samples: usize) -> Vec<u8> {
        let mut file = [&b"RIFF\xff\xff\xff\xffWAVE"[..], before, b"fmt \x10\0\0\0"].concat();
        file.extend([tag.to_le_bytes(), channels.to_le_bytes()].concat());
        file.extend([rate.to_le_bytes(), 1_u32.to_le_bytes()].concat());
        file.extend([1_u16.to_le_bytes(), bits.to_le_bytes()].concat());
        file.extend(b"data\0\0\0\0");
        file.resize(file.len() + samples, 0);
        file
    }

    #[test]
    fn durations_are_those_of_the_bytes_that_are_there() {
        let table = [
            ("16 kHz, mono, 16 bits", wav(1, 1, 16_000, 16, b"", 960_000), Some(30)),
            ("48 kHz, stereo, floats", wav(3, 2, 48_000, 32, b"", 3_840_000), Some(10)),
            ("telephone", wav(7, 1, 8000, 8, b"", 80_000), Some(10)),
            ("another chunk first", wav(1, 1, 8000, 8, b"JUNK\x03\0\0\0abc\0", 80_000), Some(10)),
            ("ADPCM", wav(2, 1, 8000, 4, b"", 80_000), None),
            ("no rate", wav(1, 1, 0, 16, b"", 80_000), None),
            ("no WAV", b"RIFF\0\0\0\0AVI fmt ".to_vec(), None),
            ("cut", b"RIFF\0\0\0\0WAVEfmt \x10".to_vec(), None),
        ];
        for (what, file, expected) in table {
            assert_eq!(read(seconds, &file).map(|seconds| seconds.round() as u64), expected, "{what}");
        }
    }
}
