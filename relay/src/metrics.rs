//! What the relay and the STUN server count, in the text format of Prometheus (OpenMetrics). No label comes from a client.

use lattice_wire::lrp::Reason;
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// One label and its value.
type Label = [(&'static str, &'static str); 1];

/// The counters.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    pub(crate) datagrams: Counter,
    pub(crate) bytes: Counter,
    pub(crate) dropped: Dropped,
    handshakes: Family<Label, Counter>,
    clients: Family<Label, Gauge>,
    pub(crate) stun_answered: Counter,
    pub(crate) stun_limited: Counter,
    pub(crate) stun_malformed: Counter,
}

/// Datagrams that were not passed on.
#[derive(Debug, Default)]
pub(crate) struct Dropped {
    /// Of nobody, or to nobody who is there.
    pub(crate) no_route: Counter,
    /// The receiver takes less than it is sent.
    pub(crate) queue_full: Counter,
    /// The sender sends more than it may.
    pub(crate) rate: Counter,
    /// Longer than the receiver's path carries.
    pub(crate) too_large: Counter,
    /// Too short or too long for a datagram.
    pub(crate) malformed: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("lattice_relay"),
            datagrams: Counter::default(),
            bytes: Counter::default(),
            dropped: Dropped::default(),
            handshakes: Family::default(),
            clients: Family::default(),
            stun_answered: Counter::default(),
            stun_limited: Counter::default(),
            stun_malformed: Counter::default(),
        };
        let drops = Family::<Label, Counter>::default();
        for (why, slot) in [
            ("no_route", &mut metrics.dropped.no_route),
            ("queue_full", &mut metrics.dropped.queue_full),
            ("rate", &mut metrics.dropped.rate),
            ("too_large", &mut metrics.dropped.too_large),
            ("malformed", &mut metrics.dropped.malformed),
        ] {
            // Looked up once, not for each datagram.
            *slot = drops.get_or_create(&[("why", why)]).clone();
        }
        let registry = &mut metrics.registry;
        registry.register("datagrams", "Datagrams passed on", metrics.datagrams.clone());
        registry.register("bytes", "Bytes passed on", metrics.bytes.clone());
        registry.register("dropped", "Datagrams not passed on, by reason", drops);
        registry.register("handshakes", "Handshakes by result", metrics.handshakes.clone());
        registry.register("clients", "Connected clients by transport", metrics.clients.clone());
        registry.register("stun_answered", "STUN requests answered", metrics.stun_answered.clone());
        registry.register("stun_limited", "STUN requests that came too often", metrics.stun_limited.clone());
        registry.register(
            "stun_malformed",
            "Datagrams that are no STUN request",
            metrics.stun_malformed.clone(),
        );
        metrics
    }
}

impl Metrics {
    /// A handshake ended.
    pub(crate) fn handshake(&self, result: Result<(), Reason>) {
        let result = match result {
            Ok(()) => "welcome",
            Err(Reason::Draining) => "draining",
            Err(Reason::Replaced) => "replaced",
            Err(Reason::Token) => "token",
            Err(Reason::Expired) => "expired",
            Err(Reason::Proof) => "proof",
            Err(Reason::Full) => "full",
            Err(Reason::Protocol) => "protocol",
        };
        self.handshakes.get_or_create(&[("result", result)]).inc();
    }

    /// Clients by this transport, to count up and down.
    pub(crate) fn clients(&self, transport: &'static str) -> Gauge {
        self.clients.get_or_create(&[("transport", transport)]).clone()
    }

    /// The text.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
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
        metrics.dropped.queue_full.inc_by(3);
        metrics.handshake(Err(Reason::Proof));
        metrics.clients("quic").inc();
        let text = metrics.text().unwrap();
        for line in [
            "lattice_relay_datagrams_total 0",
            r#"lattice_relay_dropped_total{why="queue_full"} 3"#,
            r#"lattice_relay_handshakes_total{result="proof"} 1"#,
            r#"lattice_relay_clients{transport="quic"} 1"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in {text}");
        }
    }
}
