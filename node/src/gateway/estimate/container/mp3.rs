//! MP3: the count of frames in its first one, else the lowest bit rate of the first frames (ISO/IEC 11172-3 and 13818-3; the
//! count is a convention of encoders, `Xing` or `Info`).

use super::{Encoded, be16, be32, behind_id3};

/// What is looked through for the first frame, and for further ones.
const HEAD: usize = 16 * 1024;

/// kbit/s by index, of MPEG 1 and of MPEG 2 and 2.5.
const BIT_RATES: [[u32; 16]; 2] = [
    [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0],
    [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0],
];
const RATES: [u32; 4] = [44_100, 48_000, 32_000, 0];

struct Frame {
    bytes: usize,
    bit_rate: u32,
    rate: u32,
    samples: u32,
    /// Where the count of frames is in the first one.
    count_at: usize,
}

pub(super) fn seconds(file: &Encoded<'_>) -> Option<f64> {
    let start = behind_id3(file);
    let head = file.read(start, HEAD);
    // Two frames in a row are no accident.
    let (at, first) = (0..head.len()).find_map(|at| {
        let found = frame(&head, at)?;
        let next = at + found.bytes;
        (next + 4 > head.len() || frame(&head, next).is_some()).then_some((at, found))
    })?;
    let count = head.get(at + first.count_at..).unwrap_or_default();
    if count.starts_with(b"Xing") || count.starts_with(b"Info") {
        let has_frames = be32(count, 4)? & 1 == 1;
        if let Some(frames) = be32(count, 8).filter(|frames| has_frames && *frames > 0) {
            return Some(f64::from(frames) * f64::from(first.samples) / f64::from(first.rate));
        }
    }
    let (mut next, mut lowest) = (at, first.bit_rate);
    while let Some(frame) = frame(&head, next) {
        lowest = lowest.min(frame.bit_rate);
        next += frame.bytes;
    }
    let bytes = file.len().saturating_sub(start + at);
    Some(bytes as f64 * 8.0 / (f64::from(lowest) * 1000.0))
}

/// The frame of layer III whose header is at `at`.
fn frame(bytes: &[u8], at: usize) -> Option<Frame> {
    let (first, second) = (be16(bytes, at)?, be16(bytes, at + 2)?);
    // 11 bits of synchronization, version, layer.
    if first & 0xffe6 != 0xffe2 || first >> 3 & 3 == 1 {
        return None;
    }
    let version = first >> 3 & 3;
    let is_first = version == 3;
    let bit_rate = BIT_RATES[usize::from(!is_first)][usize::from(second >> 12)];
    let rate = RATES[usize::from(second >> 10 & 3)] >> [2, 0, 1, 0][usize::from(version)];
    if bit_rate == 0 || rate == 0 {
        return None;
    }
    let samples = if is_first { 1152 } else { 576 };
    let padding = usize::from(second >> 9 & 1);
    let is_mono = second >> 6 & 3 == 3;
    let side = match (is_first, is_mono) {
        (true, false) => 32,
        (true, true) | (false, false) => 17,
        (false, true) => 9,
    };
    let bytes = (samples / 8 * bit_rate * 1000 / rate) as usize + padding;
    Some(Frame { bytes, bit_rate, rate, samples, count_at: 4 + side })
}

#[cfg(test)]
mod tests {
    use super::super::tests::read;
    use super::*;

    /// Frames of MPEG 1, 44.1 kHz, stereo, with this index of the bit rate.
    fn frames(index: u8, count: usize) -> Vec<u8> {
        let header = [0xff, 0xfb, index << 4, 0];
        let size = frame(&header, 0).unwrap().bytes;
        let one: Vec<u8> = header.into_iter().chain(std::iter::repeat(0)).take(size).collect();
        one.repeat(count)
    }

    #[test]
    fn durations_are_those_of_the_counted_frames_or_of_the_lowest_bit_rate() {
        let mut counted = frames(9, 3);
        counted[36..48].copy_from_slice(b"Xing\0\0\0\x01\0\0\x04\x7d");
        // 24 kHz, mono, 64 kbit/s: 20 frames of 192 bytes.
        let speech: Vec<u8> = [0xff, 0xf3, 0x84, 0xc0].into_iter().chain(std::iter::repeat(0)).take(192).collect();
        let table = [
            ("128 kbit/s", frames(9, 1149), Some(30_000)),
            ("behind a tag", [b"ID3\x04\0\0\0\0\0\x03abc".to_vec(), frames(9, 1149)].concat(), Some(30_000)),
            ("behind rubbish", [vec![0xff; 5], frames(9, 1149)].concat(), Some(30_000)),
            ("counted", counted, Some(30_014)),
            ("a loud beginning", [frames(14, 1), frames(1, 100)].concat(), Some(2_872)),
            ("MPEG 2", speech.repeat(20), Some(480)),
            ("no frame", vec![0; 5000], None),
            ("no other frame", [&frames(9, 1)[..], &[0; 5000]].concat(), None),
        ];
        for (what, file, expected) in table {
            let seconds = read(seconds, &file).map(|seconds| (seconds * 1000.0) as u64);
            let is_near = match (seconds, expected) {
                (Some(seconds), Some(expected)) => seconds.abs_diff(expected) <= expected / 50,
                (seconds, expected) => seconds == expected,
            };
            assert!(is_near, "{what}: {seconds:?}, not {expected:?}");
        }
    }
}
