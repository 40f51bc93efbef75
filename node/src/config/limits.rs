//! The limits of a port, the same keys in `[gateway]` and `[admin]`.

use std::time::Duration;

use super::section::Section;
use crate::accept::{Limits, Network};

/// The least that `header_max` can be.
const HEADER_MAX_LEAST: usize = 8 << 10;
const COUNT_MAX: u64 = 1_000_000;

pub(super) fn read(section: Section<'_>, drain_timeout: Duration) -> Limits {
    let defaults = Limits::default();
    let connections_max = count(section, "connections_max", defaults.connections_max);
    let per_address = defaults.connections_per_address_max.min(connections_max);
    let unauthenticated = defaults.connections_unauthenticated_max.min(connections_max);
    Limits {
        connections_max,
        connections_per_address_max: count(section, "connections_per_address_max", per_address),
        connections_unauthenticated_max: count(section, "connections_unauthenticated_max", unauthenticated),
        connections_reserved: count(section, "connections_reserved", defaults.connections_reserved),
        trusted_proxies: trusted_proxies(section),
        header_read_timeout: section.duration("header_read_timeout", defaults.header_read_timeout),
        body_read_timeout: section.duration("body_read_timeout", defaults.body_read_timeout),
        body_timeout: section.duration("body_timeout", defaults.body_timeout),
        body_rate_min: section.size("body_rate_min", defaults.body_rate_min),
        write_timeout: section.duration("write_timeout", defaults.write_timeout),
        idle_timeout: section.duration("idle_timeout", defaults.idle_timeout),
        header_max: header_max(section, defaults.header_max),
        body_max: section.size("body_max", defaults.body_max),
        tls_handshake_timeout: section.duration("tls_handshake_timeout", defaults.tls_handshake_timeout),
        frames_burst: section.integer("frames_burst", defaults.frames_burst, 100..=COUNT_MAX),
        frames_per_second: section.integer("frames_per_second", defaults.frames_per_second, 1..=COUNT_MAX),
        auth_failures_burst: section.integer("auth_failures_burst", defaults.auth_failures_burst, 1..=COUNT_MAX),
        auth_failures_per_second: section.integer(
            "auth_failures_per_second",
            defaults.auth_failures_per_second,
            1..=COUNT_MAX,
        ),
        auth_failures_addresses: count(section, "auth_failures_addresses", defaults.auth_failures_addresses),
        drain_timeout,
        date_header: defaults.date_header,
    }
}

pub(super) fn count(section: Section<'_>, key: &'static str, default: usize) -> usize {
    let default = u64::try_from(default).unwrap_or(u64::MAX);
    usize::try_from(section.integer(key, default, 1..=COUNT_MAX)).unwrap_or(usize::MAX)
}

fn header_max(section: Section<'_>, default: usize) -> usize {
    let header_max = section.size("header_max", default);
    if header_max < HEADER_MAX_LEAST {
        section.mistake("header_max", "is less than 8KiB: heads of ordinary clients would not fit");
    }
    header_max
}

fn trusted_proxies(section: Section<'_>) -> Vec<Network> {
    let mut networks = Vec::new();
    for text in section.list("trusted_proxies", "10.0.0.0/8,2001:db8::/32") {
        match text.parse() {
            Ok(network) => networks.push(network),
            Err(wrong) => section.mistake("trusted_proxies", format!("\"{text}\" {wrong}")),
        }
    }
    networks
}
