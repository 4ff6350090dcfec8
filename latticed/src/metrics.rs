//! What latticed counts, in the text format of Prometheus (OpenMetrics). No label comes from a request, so there are few
//! of each.

use std::{sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

/// One label and its value.
type Label = [(&'static str, &'static str); 1];

/// The counters.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    limited: Family<Label, Counter>,
    enrolments: Family<Label, Counter>,
    relay_tokens: Family<Label, Counter>,
    peers: Family<Label, Gauge>,
    nats: Gauge,
    push_seconds: Histogram,
    store_seconds: Gauge<f64, AtomicU64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    method: &'static str,
    route: &'static str,
    status: u16,
}

/// What is looked up when the metrics are asked for.
#[derive(Debug, Clone, Copy)]
pub struct Observed {
    /// Peers that have been heard from lately.
    pub online: i64,
    /// Peers that have not.
    pub offline: i64,
    /// Places that are held for peers.
    pub reserved: i64,
    /// Whether NATS is connected.
    pub nats: bool,
    /// How long the database took to answer.
    pub store: Duration,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("lattice"),
            requests: Family::default(),
            limited: Family::default(),
            enrolments: Family::default(),
            relay_tokens: Family::default(),
            peers: Family::default(),
            nats: Gauge::default(),
            // Of a workspace with one peer, up to one with ten thousand.
            push_seconds: Histogram::new([0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0]),
            store_seconds: Gauge::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("http_requests", "HTTP requests by route and status", metrics.requests.clone());
        registry.register(
            "http_rate_limited",
            "HTTP requests that came too often, by what was counted",
            metrics.limited.clone(),
        );
        registry.register("enrolments", "Enrolments by result", metrics.enrolments.clone());
        registry.register("relay_tokens", "Relay tokens by result", metrics.relay_tokens.clone());
        registry.register("peers", "Peers by state", metrics.peers.clone());
        registry.register("nats_connected", "1 when NATS is connected", metrics.nats.clone());
        registry.register_with_unit(
            "map_push",
            "Pushing the network maps of one workspace",
            Unit::Seconds,
            metrics.push_seconds.clone(),
        );
        registry.register_with_unit(
            "store_answer",
            "How long the database took to answer this request for metrics",
            Unit::Seconds,
            metrics.store_seconds.clone(),
        );
        metrics
    }
}

impl Metrics {
    /// An HTTP request was answered. `route` is the route's path with placeholders.
    pub fn request(&self, method: &'static str, route: &'static str, status: u16) {
        self.requests.get_or_create(&Request { method, route, status }).inc();
    }

    /// A request came too often; `by` is what was counted.
    pub fn limited(&self, by: &'static str) {
        self.limited.get_or_create(&[("by", by)]).inc();
    }

    /// An enrolment ended, over either door.
    pub fn enrolment(&self, result: &'static str) {
        self.enrolments.get_or_create(&[("result", result)]).inc();
    }

    /// A peer asked for a relay token.
    pub fn relay_token(&self, result: &'static str) {
        self.relay_tokens.get_or_create(&[("result", result)]).inc();
    }

    /// The maps of one workspace were pushed.
    pub fn pushed(&self, took: Duration) {
        self.push_seconds.observe(took.as_secs_f64());
    }

    /// The text, with what is so now.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn text(&self, now: Observed) -> Result<String, std::fmt::Error> {
        for (state, count) in [("online", now.online), ("offline", now.offline), ("reserved", now.reserved)] {
            self.peers.get_or_create(&[("state", state)]).set(count);
        }
        self.nats.set(i64::from(now.nats));
        self.store_seconds.set(now.store.as_secs_f64());
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_appear_under_their_names() {
        let metrics = Metrics::default();
        metrics.request("GET", "/api/v1/peers/{id}", 404);
        metrics.limited("address");
        metrics.enrolment("granted");
        metrics.relay_token("refused");
        metrics.pushed(Duration::from_millis(3));
        let now =
            Observed { online: 2, offline: 1, reserved: 0, nats: true, store: Duration::from_millis(1) };
        let text = metrics.text(now).unwrap();
        for line in [
            r#"lattice_http_requests_total{method="GET",route="/api/v1/peers/{id}",status="404"} 1"#,
            r#"lattice_http_rate_limited_total{by="address"} 1"#,
            r#"lattice_enrolments_total{result="granted"} 1"#,
            r#"lattice_relay_tokens_total{result="refused"} 1"#,
            r#"lattice_peers{state="online"} 2"#,
            "lattice_nats_connected 1",
            r#"lattice_map_push_seconds_bucket{le="0.005"} 1"#,
            "lattice_store_answer_seconds 0.001",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in {text}");
        }
    }
}
