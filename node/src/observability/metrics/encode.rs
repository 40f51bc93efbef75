//! The text of `/metrics`: the counters, and what is read from the cluster and the pools at that moment.

use std::fmt::Write;

use actors::epp::Status;
use prometheus::TextEncoder;
use raft::resources::{Kind, Spec, budget_uses};

use super::Metrics;
use crate::Context;

/// Counters that boards ask for under both spellings.
const TWO_NAMES: [&str; 3] = ["authorized_hits", "authorized_calls", "limited_calls"];

impl Metrics {
    /// Everything in Prometheus' text format.
    pub fn encode(&self, context: &Context) -> String {
        let mut text = self.counters();
        raft_gauges(context, &mut text);
        endpoint_gauges(context, &mut text);
        usage_counters(context, &mut text);
        budget_gauges(context, &mut text);
        text
    }

    /// What is counted here.
    fn counters(&self) -> String {
        let mut families = self.0.registry.gather();
        for at in 0..families.len() {
            if TWO_NAMES.contains(&families[at].name()) {
                let mut again = families[at].clone();
                again.set_name(format!("{}_total", families[at].name()));
                families.push(again);
            }
        }
        TextEncoder::new()
            .encode_to_string(&families)
            .expect("writing to memory does not fail, and every family has a name")
    }
}

fn raft_gauges(context: &Context, text: &mut String) {
    let standing = context.cluster.standing();
    let leads = u64::from(standing.leader == Some(context.cluster.node()));
    gauge(text, "tollgate_raft_term", "the consensus term", &[("", standing.term as f64)]);
    gauge(text, "tollgate_raft_is_leader", "1 on the leader", &[("", leads as f64)]);
    gauge(
        text,
        "tollgate_raft_has_leader",
        "1 if a leader is known",
        &[("", f64::from(u8::from(standing.leader.is_some())))],
    );
    gauge(
        text,
        "tollgate_raft_committed_index",
        "the last entry known to be on a quorum",
        &[("", standing.committed as f64)],
    );
    gauge(text, "tollgate_raft_applied_index", "the last entry applied here", &[("", standing.applied as f64)]);
    let lag = standing.committed.saturating_sub(standing.applied);
    gauge(text, "tollgate_raft_apply_lag", "committed entries not applied here", &[("", lag as f64)]);
    gauge(text, "tollgate_raft_members", "members of the cluster", &[("", standing.members.len() as f64)]);
    let serves = f64::from(u8::from(context.cluster.may_serve()));
    gauge(text, "tollgate_serving", "1 if this node may admit calls", &[("", serves)]);
}

fn endpoint_gauges(context: &Context, text: &mut String) {
    let (mut up, mut in_flight, mut age, mut kv) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut statuses = Vec::new();
    let pools = context.actors.pools.snapshot();
    for pool in &pools {
        for replica in &pool.replicas {
            let (model, endpoint) = (escaped(&pool.service.name), escaped(&replica.url));
            let labels = format!("{{model=\"{model}\",endpoint=\"{endpoint}\"}}");
            let status = |name: &str| f64::from(u8::from(replica.status.name() == name));
            statuses.extend(Status::NAMES.map(|name| {
                (format!("{{model=\"{model}\",endpoint=\"{endpoint}\",status=\"{name}\"}}"), status(name))
            }));
            up.push((labels.clone(), status("ready")));
            in_flight.push((labels.clone(), replica.in_flight as f64));
            kv.push((labels.clone(), replica.kv_usage));
            if let Some(seconds) = replica.metrics_age_seconds {
                age.push((labels, seconds));
            }
        }
    }
    gauge(text, "tollgate_endpoint_up", "1 if the replica gets calls", &up);
    let help = "1 for what the replica is: ready, down (probes fail), unreachable, hung, or ejected for its answers";
    gauge(text, "tollgate_endpoint_status", help, &statuses);
    gauge(text, "tollgate_endpoint_in_flight", "this node's calls at the replica", &in_flight);
    gauge(text, "tollgate_endpoint_kv_usage_ratio", "KV-cache use it last reported", &kv);
    gauge(text, "tollgate_endpoint_metrics_age_seconds", "age of the replica's numbers", &age);
}

fn usage_counters(context: &Context, text: &mut String) {
    let journal = context.cluster.journal();
    let (written, lost) = (journal.calls_written() as f64, journal.calls_lost() as f64);
    family(text, "counter", "tollgate_usage_records_written_total", "ended calls in the journal", &[("", written)]);
    let help = "calls before a power cut that may be missing in usage";
    family(text, "counter", "tollgate_usage_records_lost_total", help, &[("{reason=\"power_cut\"}", lost)]);
}

fn budget_gauges(context: &Context, text: &mut String) {
    let view = context.cluster.view();
    let now = view.time.max(context.doors.clock.wall());
    let mut ratios = Vec::new();
    for object in view.objects_of(Kind::Subscription) {
        let Spec::Subscription(spec) = &object.spec else { continue };
        for budget in budget_uses(&view, object, spec, now) {
            let (subscription, model) = (escaped(&object.key.name), escaped(&budget.model.name));
            let scope = budget.limit.scope.name();
            let labels = format!("{{subscription=\"{subscription}\",model=\"{model}\",scope=\"{scope}\"}}");
            ratios.push((labels, budget.ratio()));
        }
    }
    let help =
        "how much of this month's budget is used, 1 is all; of a budget of each user or key, by whoever used the most";
    gauge(text, "tollgate_budget_used_ratio", help, &ratios);
}

fn gauge<L: AsRef<str>>(text: &mut String, name: &str, help: &str, samples: &[(L, f64)]) {
    family(text, "gauge", name, help, samples);
}

/// Appends a family: labels with their braces, and values.
fn family<L: AsRef<str>>(text: &mut String, kind: &str, name: &str, help: &str, samples: &[(L, f64)]) {
    if samples.is_empty() {
        return;
    }
    let mut line = |line: std::fmt::Arguments<'_>| writeln!(text, "{line}").expect("writing to memory does not fail");
    line(format_args!("# HELP {name} {help}"));
    line(format_args!("# TYPE {name} {kind}"));
    for (labels, value) in samples {
        line(format_args!("{name}{} {value}", labels.as_ref()));
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compatible_counters_have_both_names() {
        let metrics = Metrics::new();
        metrics.0.authorized_hits.with_label_values(&["ns/m", "sub", "cc", "org", "", "", "m"]).inc_by(24);
        let text = metrics.counters();
        let labels = r#"{cost_center="cc",group="",limitador_namespace="ns/m",model="m",organization_id="org",subscription="sub",user=""}"#;
        assert!(text.contains(&format!("authorized_hits{labels} 24\n")), "{text}");
        assert!(text.contains(&format!("authorized_hits_total{labels} 24\n")), "{text}");
        assert!(text.contains("\nlimitador_up 1\n") && text.contains("\ndatastore_partitioned 0\n"), "{text}");
    }

    #[test]
    fn label_values_cannot_break_a_line() {
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
