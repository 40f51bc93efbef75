//! MP4, M4A and QuickTime: the duration in the movie header, `moov/mvhd` (ISO/IEC 14496-12, section 8.2.2).

use std::ops::Range;

use super::{Encoded, be32, be64};

/// Boxes that are looked at on one level. Files have about ten.
const BOXES_MAX: usize = 256;
/// What a file begins with.
const FIRST: [&[u8]; 6] = [b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"];

pub(super) fn seconds(file: &Encoded<'_>) -> Option<f64> {
    let first = file.read(4, 4);
    if !FIRST.contains(&first.as_slice()) {
        return None;
    }
    let movie = find(file, 0..file.len(), b"moov")?;
    let header = find(file, movie, b"mvhd")?;
    let header = file.read(header.start, 32);
    let (scale, duration) = match header.first()? {
        0 => (be32(&header, 12)?, be32(&header, 16).filter(|duration| *duration != u32::MAX)?.into()),
        _ => (be32(&header, 20)?, be64(&header, 24).filter(|duration| *duration != u64::MAX)?),
    };
    // A file in fragments has no duration in its header.
    (scale > 0 && duration > 0).then(|| duration as f64 / f64::from(scale))
}

/// The content of the first box of that name.
fn find(file: &Encoded<'_>, within: Range<usize>, name: &[u8]) -> Option<Range<usize>> {
    let mut at = within.start;
    for _ in 0..BOXES_MAX {
        let head = file.read(at, 16);
        let (size, content) = match be32(&head, 0)? {
            0 => (within.end.checked_sub(at)?, 8),
            1 => (usize::try_from(be64(&head, 8)?).ok()?, 16),
            size => (size as usize, 8),
        };
        let end = at.checked_add(size.max(content))?;
        if head.get(4..8)? == name {
            return Some(at + content..end.min(within.end));
        }
        at = end;
        if at >= within.end {
            break;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::tests::read;
    use super::*;

    fn boxed(name: &[u8], content: &[u8]) -> Vec<u8> {
        [&u32::try_from(content.len() + 8).unwrap().to_be_bytes()[..], name, content].concat()
    }

    fn movie(scale: u32, duration: u32) -> Vec<u8> {
        let header = [&[0; 12][..], &scale.to_be_bytes(), &duration.to_be_bytes(), &[0; 80]].concat();
        boxed(b"moov", &boxed(b"mvhd", &header))
    }

    #[test]
    fn durations_are_those_of_the_movie_header_wherever_it_is() {
        let first = boxed(b"ftyp", b"M4A \0\0\0\0");
        let long = [&[1, 0, 0, 0][..], &[0; 16], &1000_u32.to_be_bytes(), &5000_u64.to_be_bytes()].concat();
        let large = [&1_u32.to_be_bytes()[..], b"mdat", &24_u64.to_be_bytes(), &[7; 8]].concat();
        let table = [
            ("in front", [first.clone(), movie(600, 18_000), boxed(b"mdat", &[7; 99])].concat(), Some(30.0)),
            ("at the end", [first.clone(), boxed(b"mdat", &[7; 99]), movie(600, 18_000)].concat(), Some(30.0)),
            ("behind a large box", [first.clone(), large, movie(1000, 500)].concat(), Some(0.5)),
            ("64 bits", [first.clone(), boxed(b"moov", &boxed(b"mvhd", &long))].concat(), Some(5.0)),
            ("in fragments", [first.clone(), movie(1000, 0)].concat(), None),
            ("no scale", [first.clone(), movie(0, 1)].concat(), None),
            ("no header", [first.clone(), boxed(b"moov", b"")].concat(), None),
            ("a box of no size", [first, vec![0, 0, 0, 0], b"mdat".to_vec()].concat(), None),
            ("no MP4", b"RIFF....".to_vec(), None),
        ];
        for (what, file, expected) in table {
            assert_eq!(read(seconds, &file), expected, "{what}");
        }
    }
}
