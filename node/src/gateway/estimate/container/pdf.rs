//! PDF: its pages, as far as they can be counted without decompressing anything (ISO 32000-2, section 7.7.3).

use memchr::memmem;

use super::Encoded;

/// Of a larger file the first and the last half of this are looked through.
const LOOKED_AT: usize = 4 * 1024 * 1024;

/// What is known of a document's pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::gateway::estimate) enum Pages {
    /// So many.
    All(u64),
    /// So many are seen, and some may be in what is compressed or was not looked at.
    AtLeast(u64),
}

/// `None`: it is no PDF.
pub(in crate::gateway::estimate) fn pages(file: &Encoded<'_>) -> Option<Pages> {
    memmem::find(&file.read(0, 1024), b"%PDF-")?;
    let is_whole = file.len() <= LOOKED_AT;
    let head = file.read(0, if is_whole { LOOKED_AT } else { LOOKED_AT / 2 });
    let tail = if is_whole { Vec::new() } else { file.tail(LOOKED_AT / 2) };
    let seen = (leaves(&head) + leaves(&tail)).max(counted(&head)).max(counted(&tail));
    // Objects may be in compressed streams, of which `/ObjStm` is the type.
    let is_open = is_whole && memmem::find(&head, b"/ObjStm").is_none() && seen > 0;
    Some(if is_open { Pages::All(seen) } else { Pages::AtLeast(seen) })
}

/// Objects of type `/Page`.
fn leaves(bytes: &[u8]) -> u64 {
    let is_leaf = |at: &usize| {
        let rest = bytes[at + 5..].trim_ascii_start();
        rest.strip_prefix(b"/Page").is_some_and(|rest| rest.first().is_none_or(|byte| !byte.is_ascii_alphanumeric()))
    };
    memmem::find_iter(bytes, b"/Type").filter(is_leaf).count() as u64
}

/// The largest `/Count`, which is that of the whole tree of pages.
fn counted(bytes: &[u8]) -> u64 {
    let number = |at: usize| {
        let digits = bytes[at + 6..].trim_ascii_start().iter().take_while(|byte| byte.is_ascii_digit());
        digits.take(9).fold(0, |value, digit| value * 10 + u64::from(digit - b'0'))
    };
    memmem::find_iter(bytes, b"/Count").map(number).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, Engine};

    use super::*;

    #[test]
    fn pages_are_counted_and_what_may_hide_some_is_known() {
        let leaf = "<< /Type /Page /Parent 1 0 R >> ";
        let table = [
            (format!("%PDF-1.4 << /Type/Pages /Count 3 >> {}", leaf.repeat(3)), Some(Pages::All(3))),
            (format!("%PDF-1.4 {} <</Type\n/Page>>", leaf.repeat(2)), Some(Pages::All(3))),
            ("%PDF-1.7 /Type /Pages /Count 12 /Type /ObjStm".to_owned(), Some(Pages::AtLeast(12))),
            ("%PDF-1.7 /Type /ObjStm".to_owned(), Some(Pages::AtLeast(0))),
            (format!("%PDF-1.7 {leaf} {}", " ".repeat(LOOKED_AT)), Some(Pages::AtLeast(1))),
            ("PK\x03\x04 /Type /Page".to_owned(), None),
        ];
        for (text, expected) in table {
            assert_eq!(
                pages(&Encoded::new(&BASE64_STANDARD.encode(&text))),
                expected,
                "{}",
                &text[..text.len().min(60)]
            );
        }
    }
}
