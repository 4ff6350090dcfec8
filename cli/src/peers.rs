//! `lattice status NAME`: the peers of one that runs here, and the paths to them.

use lattice_bootstrap::control::{OverlayReport, PeerReport, RelayReport};

use crate::output;

/// Prints peers, relays and what was dropped.
pub(crate) fn table(overlay: &OverlayReport) {
    let rows: Vec<_> = overlay.peers.iter().map(row).collect();
    output::table(
        &[
            "PEER",
            "ADDRESS",
            "IPV6",
            "PATH",
            "ENDPOINT",
            "RTT",
            "HANDSHAKE",
            "RECEIVED",
            "SENT",
            "WHY NOT DIRECT",
        ],
        &rows,
    );
    if !overlay.relays.is_empty() {
        let row = |relay: &RelayReport| {
            vec![relay.name.clone(), relay.state.clone(), rtt(relay.rtt_ms), relay.dropped.to_string()]
        };
        output::table(
            &["RELAY", "STATE", "RTT", "DROPPED"],
            &overlay.relays.iter().map(row).collect::<Vec<_>>(),
        );
    }
    if !overlay.drops.is_empty() {
        let drops: Vec<_> = overlay.drops.iter().map(|(why, count)| format!("{why} {count}")).collect();
        output::print(&format!("dropped: {}", drops.join(", ")));
    }
}

fn row(peer: &PeerReport) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    vec![
        peer.name.clone(),
        or_dash(peer.address.map(|address| address.to_string())),
        or_dash(peer.address6.map(|address| address.to_string())),
        path(peer),
        or_dash(peer.endpoint.map(|endpoint| endpoint.to_string())),
        rtt(peer.rtt_ms),
        or_dash(peer.handshake_age.map(|age| format!("{age} s ago"))),
        peer.rx_bytes.to_string(),
        peer.tx_bytes.to_string(),
        or_dash(peer.why_not_direct.clone()),
    ]
}

/// The path's kind, and which relay.
pub(crate) fn path(peer: &PeerReport) -> String {
    match &peer.relay {
        Some(relay) => format!("{} {relay}", peer.path),
        None => peer.path.clone(),
    }
}

fn rtt(milliseconds: Option<f64>) -> String {
    milliseconds.map_or_else(|| "-".into(), |ms| format!("{ms:.1} ms"))
}
