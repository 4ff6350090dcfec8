//! Where the control plane is, and whom to trust that it is.

use lattice_bootstrap::ServerUrl;
use lattice_wire::{HostPort, RelayServer, message::TlsTrust, trust::certificates};

/// `--server-url`.
pub(crate) fn url(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    match ServerUrl::parse(text, None) {
        Ok(url) => {
            let base = url.base();
            let host = base.strip_prefix("https://").or(base.strip_prefix("http://"));
            let host = host.expect("only http and https");
            assert!(
                !host.starts_with([':', '/', '?']) && !host.is_empty() && !base.ends_with('/'),
                "{base:?}"
            );
            assert!(!base.contains(|c: char| !c.is_ascii_graphic() || matches!(c, '#' | '@')), "{base:?}");
            let again = ServerUrl::parse(base, None).expect("the address alone is one too");
            assert_eq!(again.base(), base);
            true
        }
        Err(failure) => {
            assert!(!failure.message.contains(char::is_control), "{failure}");
            false
        }
    }
}

/// The PEM of an authority, as a server sends it and a file holds it.
pub(crate) fn trust(bytes: &[u8]) -> bool {
    let Ok(ca) = std::str::from_utf8(bytes) else { return false };
    let found = certificates(ca);
    let trust = TlsTrust { ca: ca.to_owned(), name: Some("nats.lattice.internal".to_owned()) };
    let config = trust.client_config();
    assert!(config.is_err() || found.is_ok_and(|all| !all.is_empty()), "trust without a certificate");
    config.is_ok()
}

/// `--stun` and `--relay`.
pub(crate) fn servers(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let place = text.parse::<HostPort>();
    if let Ok(place) = &place {
        assert_eq!(place.to_string(), text);
        assert!(place.port() > 0 && !place.host().is_empty() && !place.host().contains(['[', ']', '/', '@']));
    }
    let relay = text.parse::<RelayServer>();
    if let Ok(relay) = &relay {
        assert!(relay.is_sound(), "{relay:?}");
    }
    place.is_ok() || relay.is_ok()
}
