//! `[probe]` and `[quota]`: what the actors decide with.

use actors::Settings;

use super::Gateway;
use super::section::Reader;

pub(super) fn read(reader: &Reader<'_>, gateway: &Gateway) -> Settings {
    let defaults = Settings::default();
    let (probe, quota) = (reader.section("probe"), reader.section("quota"));
    Settings {
        probe_interval: probe.duration("interval", defaults.probe_interval),
        probe_timeout: probe.duration("timeout", defaults.probe_timeout),
        recall_wait: quota.duration("recall_wait", defaults.recall_wait),
        held_wait: quota.duration("held_wait", defaults.held_wait),
        ledger_wait: quota.duration("ledger_wait", defaults.ledger_wait),
        idle_return: quota.duration("idle_return", defaults.idle_return),
        gateway_url: gateway.public_url.clone(),
    }
}
