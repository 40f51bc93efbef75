//! The limits of a port, the same keys in `[gateway]` and `[admin]`.

use std::time::Duration;

use super::section::Section;
use crate::accept::Limits;

pub(super) fn read(section: Section<'_>, drain_timeout: Duration) -> Limits {
    let defaults = Limits::default();
    let connections_max = u64::try_from(defaults.connections_max).unwrap_or(u64::MAX);
    let connections_max = section.integer("connections_max", connections_max, 1..=1_000_000);
    let header_max = section.size("header_max", defaults.header_max);
    if header_max < HEADER_MAX_LEAST {
        section.mistake("header_max", "is less than 8KiB: heads of ordinary clients would not fit");
    }
    Limits {
        connections_max: usize::try_from(connections_max).unwrap_or(usize::MAX),
        header_read_timeout: section.duration("header_read_timeout", defaults.header_read_timeout),
        body_read_timeout: section.duration("body_read_timeout", defaults.body_read_timeout),
        write_timeout: section.duration("write_timeout", defaults.write_timeout),
        idle_timeout: section.duration("idle_timeout", defaults.idle_timeout),
        header_max,
        body_max: section.size("body_max", defaults.body_max),
        tls_handshake_timeout: section.duration("tls_handshake_timeout", defaults.tls_handshake_timeout),
        drain_timeout,
        date_header: defaults.date_header,
    }
}

/// The least a port can be given.
const HEADER_MAX_LEAST: usize = 8 << 10;
