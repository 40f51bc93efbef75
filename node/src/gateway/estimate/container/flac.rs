//! FLAC: the count of samples in its first block, STREAMINFO (RFC 9639, section 8.2).

use super::{Encoded, be64, behind_id3};

pub(super) fn seconds(file: &Encoded<'_>) -> Option<f64> {
    let head = file.read(behind_id3(file), 26);
    if !head.starts_with(b"fLaC") || head.get(4)? & 0x7f != 0 {
        return None;
    }
    // 20 bits of rate, 8 of channels and sample size, 36 of samples.
    let fields = be64(&head, 18)?;
    let (rate, samples) = (fields >> 44, fields & 0xf_ffff_ffff);
    // No samples: their count is unknown.
    (rate > 0 && samples > 0).then(|| samples as f64 / rate as f64)
}

#[cfg(test)]
mod tests {
    use super::super::tests::read;
    use super::*;

    fn flac(rate: u64, samples: u64) -> Vec<u8> {
        [&b"fLaC\0\0\0\x22"[..], &[0; 10], &(rate << 44 | 1 << 36 | samples).to_be_bytes(), &[0; 100]].concat()
    }

    #[test]
    fn durations_are_those_of_the_first_block() {
        let table = [
            ("plain", flac(16_000, 480_000), Some(30.0)),
            ("behind a tag", [&b"ID3\x04\0\0\0\0\0\x03abc"[..], &flac(8000, 4000)].concat(), Some(0.5)),
            ("streamed", flac(16_000, 0), None),
            ("cut", flac(16_000, 480_000)[..20].to_vec(), None),
            ("another block first", [&b"fLaC\x04\0\0\x22"[..], &[1; 100]].concat(), None),
        ];
        for (what, file, expected) in table {
            assert_eq!(read(seconds, &file), expected, "{what}");
        }
    }
}
