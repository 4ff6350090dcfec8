//! What a running sandbox did, in the text format of Prometheus (OpenMetrics). No label comes from a client of the proxy or from a peer.

use std::fmt;

use lattice_bootstrap::control::{ProxyReport, Report, ResolverReport};
use lattice_policy::{Action, Direction};
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

type Label = [(&'static str, String); 1];
type Verdict = [(&'static str, String); 3];

/// The text for one report.
///
/// # Errors
/// When it cannot be written.
pub(super) fn text(report: &Report) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("lattice_sandbox");
    verdicts(&mut registry, report);
    overlay(&mut registry, report);
    resolver(&mut registry, &report.resolver);
    if let Some(proxy) = &report.proxy {
        self::proxy(&mut registry, proxy);
    }
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

fn verdicts(registry: &mut Registry, report: &Report) {
    let (packets, bytes) = (Family::<Verdict, Counter>::default(), Family::<Verdict, Counter>::default());
    let rules =
        report.rules.iter().map(|rule| (rule.direction.into(), rule.action, rule.rule.as_str(), rule.count));
    let default = (None::<Direction>, Action::Deny, "everything else", report.default);
    for (direction, action, rule, count) in rules.chain([default]) {
        let direction = match direction {
            Some(Direction::Egress) => "egress",
            Some(Direction::Ingress) => "ingress",
            None => "both",
        };
        let action = match action {
            Action::Allow => "allow",
            Action::Deny => "deny",
        };
        let labels =
            [("direction", direction.to_owned()), ("action", action.to_owned()), ("rule", rule.to_owned())];
        // Rules of different layers may have one text.
        packets.get_or_create(&labels).inc_by(count.packets);
        bytes.get_or_create(&labels).inc_by(count.bytes);
    }
    registry.register(
        "verdict_packets",
        "Packets by the rule that decided, since the policy is in force",
        packets,
    );
    registry.register("verdict_bytes", "Their bytes", bytes);
    counter(registry, "verdicts_lost", "Verdicts that could not be put on record", report.lost);
    gauge(registry, "policy_generation", "The policy in force", report.generation.into());
}

fn overlay(registry: &mut Registry, report: &Report) {
    let peers = Family::<Label, Gauge>::default();
    for path in ["direct", "relay", "none"] {
        drop(peers.get_or_create(&[("path", path.to_owned())]));
    }
    for peer in &report.overlay.peers {
        peers.get_or_create(&[("path", peer.path.clone())]).inc();
    }
    registry.register("peers", "Peers by the path to them", peers);
    by_label(
        registry,
        ("dropped_packets", "why", "Packets that the device dropped, by reason"),
        report.overlay.drops.iter().map(|(why, count)| (why.clone(), *count)),
    );
    if let Some(seconds) = report.heard_seconds {
        gauge(registry, "control_plane_silent_seconds", "Since the control plane was heard from", seconds);
    }
}

fn resolver(registry: &mut Registry, counts: &ResolverReport) {
    let outcomes = [
        ("local", counts.local),
        ("cached", counts.cached),
        ("forwarded", counts.forwarded),
        ("failed", counts.failed),
        ("malformed", counts.malformed),
        ("upstream_timeout", counts.timeouts),
        ("upstream_wrong", counts.wrong),
    ];
    counter(registry, "resolver_queries", "Questions of the agent", counts.queries);
    by_label(registry, ("resolver_events", "what", "What became of them"), owned(&outcomes));
    by_label(
        registry,
        ("resolver_refused", "why", "Questions that were refused, by reason"),
        counts.refused.iter().map(|(why, count)| (why.clone(), *count)),
    );
}

fn proxy(registry: &mut Registry, counts: &ProxyReport) {
    let events = [
        ("accepted", counts.accepted),
        ("connected", counts.connected),
        ("associated", counts.associated),
        ("refused", counts.refused),
        ("busy", counts.busy),
        ("unauthorized", counts.unauthorized),
        ("malformed", counts.malformed),
        ("slow", counts.slow),
    ];
    let datagrams = [
        ("carried", counts.datagrams),
        ("malformed", counts.datagrams_malformed),
        ("foreign", counts.datagrams_foreign),
        ("refused", counts.datagrams_refused),
        ("dropped", counts.datagrams_dropped),
    ];
    gauge(registry, "proxy_active", "Clients of the proxy beyond the handshake", counts.active);
    by_label(registry, ("proxy_events", "what", "What became of the proxy's clients"), owned(&events));
    by_label(registry, ("proxy_datagrams", "what", "What became of datagrams"), owned(&datagrams));
}

fn owned(counts: &[(&'static str, u64)]) -> impl Iterator<Item = (String, u64)> {
    counts.iter().map(|(what, count)| ((*what).to_owned(), *count))
}

fn by_label(
    registry: &mut Registry,
    (name, label, help): (&'static str, &'static str, &'static str),
    counts: impl Iterator<Item = (String, u64)>,
) {
    let family = Family::<Label, Counter>::default();
    for (value, count) in counts {
        family.get_or_create(&[(label, value)]).inc_by(count);
    }
    registry.register(name, help, family);
}

fn counter(registry: &mut Registry, name: &'static str, help: &'static str, value: u64) {
    let counter = Counter::<u64>::default();
    counter.inc_by(value);
    registry.register(name, help, counter);
}

fn gauge(registry: &mut Registry, name: &'static str, help: &'static str, value: u64) {
    let gauge = Gauge::<i64>::default();
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    registry.register(name, help, gauge);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use lattice_bootstrap::control::{OverlayReport, PeerReport, RuleCount, RuleReport};

    use super::*;

    #[test]
    fn all_that_a_report_says_is_there() {
        let rule = |id, rule: &str, packets| RuleReport {
            id,
            direction: Direction::Egress,
            action: Action::Allow,
            rule: rule.into(),
            count: RuleCount { packets, bytes: 100 * packets },
            parts: Vec::new(),
        };
        let peer = PeerReport {
            name: "tool".into(),
            address: None,
            address6: None,
            path: "direct".into(),
            relay: None,
            endpoint: None,
            rtt_ms: None,
            handshake_age: None,
            rx_bytes: 0,
            tx_bytes: 0,
            why_not_direct: None,
        };
        let report = Report {
            generation: 4,
            rules: vec![rule(1, "a \"b\" \\ c\n", 3), rule(2, "twice", 1), rule(3, "twice", 2)],
            default: RuleCount { packets: 5, bytes: 300 },
            lost: 6,
            overlay: OverlayReport {
                peers: vec![peer.clone(), peer],
                drops: BTreeMap::from([("no peer".into(), 7)]),
                ..OverlayReport::default()
            },
            resolver: ResolverReport {
                queries: 8,
                refused: BTreeMap::from([("unknown".into(), 9)]),
                ..ResolverReport::default()
            },
            proxy: Some(ProxyReport { active: 1, connected: 2, ..ProxyReport::default() }),
            heard_seconds: Some(11),
            ..Report::default()
        };
        let text = text(&report).unwrap();
        for line in [
            r#"lattice_sandbox_verdict_packets_total{direction="egress",action="allow",rule="a \"b\" \\ c\n"} 3"#,
            r#"lattice_sandbox_verdict_packets_total{direction="egress",action="allow",rule="twice"} 3"#,
            r#"lattice_sandbox_verdict_bytes_total{direction="both",action="deny",rule="everything else"} 300"#,
            "lattice_sandbox_verdicts_lost_total 6",
            "lattice_sandbox_policy_generation 4",
            r#"lattice_sandbox_peers{path="direct"} 2"#,
            r#"lattice_sandbox_peers{path="none"} 0"#,
            r#"lattice_sandbox_dropped_packets_total{why="no peer"} 7"#,
            "lattice_sandbox_control_plane_silent_seconds 11",
            "lattice_sandbox_resolver_queries_total 8",
            r#"lattice_sandbox_resolver_refused_total{why="unknown"} 9"#,
            "lattice_sandbox_proxy_active 1",
            r#"lattice_sandbox_proxy_events_total{what="connected"} 2"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
