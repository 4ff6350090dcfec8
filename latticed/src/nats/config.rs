//! The configuration of the supervised server. NATS reads JSON, so nothing here needs quoting rules of its own.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use lattice_wire::message::MAX_MESSAGE;
use serde_json::{Map, Value, json};

use super::issuer::Trust;

/// Where a server that is not ours keeps what it was told, relative to its working directory.
const EXTERNAL_DIR: &str = "lattice-jwt";

/// What any server must be configured with to let our users in.
fn trust(trust: &Trust) -> Map<String, Value> {
    let accounts: Map<String, Value> =
        trust.accounts.iter().map(|(key, jwt)| (key.clone(), jwt.clone().into())).collect();
    Map::from_iter([
        ("operator".into(), trust.operator.clone().into()),
        ("system_account".into(), trust.system_account.clone().into()),
        ("resolver_preload".into(), accounts.into()),
    ])
}

/// For a server that is not ours. Its resolver keeps what it is told of revocations through a restart, and tells the
/// other servers of its cluster.
pub(super) fn external(trust_in: &Trust) -> Map<String, Value> {
    let mut config = trust(trust_in);
    config.insert(
        "resolver".into(),
        json!({"type": "full", "dir": EXTERNAL_DIR, "allow_delete": false, "interval": "2m", "timeout": "2s"}),
    );
    config
}

/// For the server that we supervise: it listens on `listen` (port 0: a free one) and then writes its real port to a file
/// in `ports_dir`. Nobody talks to it but by TLS, with the certificate and the key in the files `tls`.
pub(super) fn server(
    trust_in: &Trust,
    listen: SocketAddr,
    ports_dir: &Path,
    tls: &(PathBuf, PathBuf),
) -> Map<String, Value> {
    let port = match listen.port() {
        0 => -1,
        port => i32::from(port),
    };
    let mut config = trust(trust_in);
    config.extend([
        ("resolver".into(), "MEMORY".into()),
        ("server_name".into(), "latticed".into()),
        ("host".into(), listen.ip().to_string().into()),
        ("port".into(), port.into()),
        ("ports_file_dir".into(), json!(ports_dir)),
        // Seconds for each handshake: a small machine that starts many agents at once is slow.
        ("tls".into(), json!({"cert_file": tls.0, "key_file": tls.1, "timeout": 15})),
        ("max_payload".into(), MAX_MESSAGE.into()),
        // A stranger gets this long, in seconds, to prove who it is.
        ("authorization".into(), json!({"timeout": 15})),
        ("max_control_line".into(), 4096.into()),
        ("write_deadline".into(), "10s".into()),
    ]);
    config
}

/// The port in a ports file, once it is complete.
pub(super) fn port_of(ports_file: &str) -> Option<u16> {
    let ports: Value = serde_json::from_str(ports_file).ok()?;
    ports["nats"][0].as_str()?.rsplit_once(':')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_ports_file_may_be_there(text in "\\PC{0,60}", inner in "[a-z:/.0-9]{0,30}") {
            let _ = port_of(&text);
            let _ = port_of(&format!(r#"{{"nats":["{inner}"]}}"#));
        }
    }

    #[test]
    fn reads_the_port_and_nothing_else() {
        assert_eq!(port_of(r#"{"nats":["nats://127.0.0.1:4222","nats://10.0.0.1:4222"]}"#), Some(4222));
        assert_eq!(port_of(r#"{"nats":["tls://127.0.0.1:4222"]}"#), Some(4222));
        assert_eq!(port_of(r#"{"nats":["nats://[::1]:5"]}"#), Some(5));
        for incomplete in ["", "{", "{}", r#"{"nats":[]}"#, r#"{"nats":["x"]}"#] {
            assert_eq!(port_of(incomplete), None, "{incomplete}");
        }
    }
}
