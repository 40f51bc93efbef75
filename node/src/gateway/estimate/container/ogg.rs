//! Ogg: the position of its last page, in samples of the codec that its first page names (RFC 3533, RFC 7845).

use memchr::memmem;

use super::{Encoded, array, le32};

/// The largest page: 27 bytes of head, 255 segments and their sizes.
const PAGE_MAX: usize = 27 + 255 + 255 * 255;

pub(super) fn seconds(file: &Encoded<'_>) -> Option<f64> {
    let head = file.read(0, 256);
    if !head.starts_with(b"OggS") {
        return None;
    }
    let rate = rate(&head)?;
    let tail = file.tail(2 * PAGE_MAX);
    // A page in which no packet ends has the position -1.
    let position = memmem::rfind_iter(&tail, b"OggS")
        .filter_map(|page| array(&tail, page + 6).map(i64::from_le_bytes))
        .find(|position| *position >= 0)?;
    (rate > 0).then(|| position as f64 / f64::from(rate))
}

fn rate(head: &[u8]) -> Option<u32> {
    let behind = |mark: &[u8]| memmem::find(head, mark).map(|at| at + mark.len());
    if behind(b"OpusHead").is_some() {
        return Some(48_000);
    }
    if let Some(at) = behind(b"\x01vorbis") {
        return le32(head, at + 5);
    }
    le32(head, behind(b"Speex   ")? + 28)
}

#[cfg(test)]
mod tests {
    use super::super::tests::read;
    use super::*;

    fn page(position: i64, packet: &[u8]) -> Vec<u8> {
        let size = u8::try_from(packet.len()).unwrap();
        [&b"OggS\0\0"[..], &position.to_le_bytes(), &[0; 12], &[1, size], packet].concat()
    }

    #[test]
    fn durations_are_those_of_the_last_page_that_has_one() {
        let opus = |position| [page(0, b"OpusHead\x01\x01"), page(48_000, b"x"), page(position, b"y")].concat();
        let vorbis = [page(0, b"\x01vorbis\0\0\0\0\x02\x44\xac\0\0"), page(441_000, b"x")].concat();
        let speex = [page(0, &[&b"Speex   "[..], &[0; 28], &[0x80, 0x3e, 0, 0]].concat()), page(16_000, b"x")].concat();
        let table = [
            ("Opus", opus(1_440_000), Some(30.0)),
            ("a last page without an end", opus(-1), Some(1.0)),
            ("Vorbis", vorbis, Some(10.0)),
            ("Speex", speex, Some(1.0)),
            ("another codec", page(100, b"theora"), None),
            ("cut", b"OggS\0\0".to_vec(), None),
        ];
        for (what, file, expected) in table {
            assert_eq!(read(seconds, &file), expected, "{what}");
        }
    }
}
