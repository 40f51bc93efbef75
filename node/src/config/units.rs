//! Values with units: `"10s"`, `"32MiB"`.

use std::time::Duration;

/// What a duration looks like, for error messages.
pub(super) const DURATION: &str = "a duration: write a whole number and a unit, such as \"10s\" (ms, s, m, h, d)";
/// What a size looks like, for error messages.
pub(super) const SIZE: &str = "a size: write a whole number and a unit, such as \"32MiB\" (B, KiB, MiB, GiB)";

/// `500ms`, `10s`, `5m`, `1h`, `90d`; `None` for anything else, and for what overflows.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(milliseconds).map(Duration::from_millis)
}

/// Bytes: `512B`, `64KiB`, `32MiB`, `1GiB`; `None` for anything else, and for what overflows.
pub(super) fn size(text: &str) -> Option<usize> {
    let (number, unit) = split(text)?;
    let bytes = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(bytes).and_then(|bytes| usize::try_from(bytes).ok())
}

fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    Some((text[..end].parse().ok()?, text[end..].trim_start()))
}
