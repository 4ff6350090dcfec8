//! Nobody who is not latticed is believed, and nobody on the way reads a secret.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

use async_nats::ConnectOptions;
use lattice_bootstrap::ServerUrl;
use lattice_wire::message::{Signaling, TlsTrust};
use nix::sys::signal::{Signal, kill};
use tokio::time::timeout;

use crate::{
    peer::{PATIENCE, Peer, ask_to_enroll, bootstrap, connect, request},
    server::{Server, start},
};

/// A proxy in plain TCP that keeps what it sees, in both directions. Its threads end with their connections.
fn listen_in(to: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, seen) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let kept = Arc::clone(&seen);
    thread::spawn(move || {
        while let Ok((near, _)) = listener.accept() {
            let Ok(far) = TcpStream::connect(to) else { return };
            for (mut from, mut to) in [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)] {
                let kept = Arc::clone(&kept);
                thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    while let Ok(n @ 1..) = from.read(&mut buffer) {
                        kept.lock().unwrap().extend(&buffer[..n]);
                        if to.write_all(&buffer[..n]).is_err() {
                            break;
                        }
                    }
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
            }
        }
    });
    (address, seen)
}

fn address_of(at: &Signaling) -> SocketAddr {
    at.nats_url.strip_prefix("nats://").unwrap().parse().unwrap()
}

fn holds(seen: &[u8], text: &str) -> bool {
    seen.windows(text.len()).any(|part| part == text.as_bytes())
}

#[tokio::test]
async fn who_listens_in_reads_no_token_and_no_jwt() {
    let (_dir, server) = start();
    let token = server.token("w", 1);
    let mut at = server.signaling();
    let (proxy, seen) = listen_in(address_of(&at));
    at.nats_url = format!("nats://{proxy}");
    let link = bootstrap(&at).await;
    let grant = ask_to_enroll(&link, &request("a", &token).0).await.unwrap();
    let seen = seen.lock().unwrap();
    assert!(holds(&seen, "INFO {"), "the proxy sees what is in plain");
    for secret in [&token, &at.bootstrap.jwt, &grant.nats_jwt, "lattice.enroll"] {
        assert!(!holds(&seen, secret), "{secret}");
    }
}

#[tokio::test]
async fn nats_is_believed_by_its_authority_and_its_name_alone() {
    let (_dir, server) = start();
    let (_other_dir, other) = start();
    let at = server.signaling();
    let ours = at.nats_tls.clone().unwrap();
    let theirs = other.signaling().nats_tls.unwrap();
    let cases = [
        ("another authority", TlsTrust { ca: theirs.ca, name: ours.name.clone() }, false),
        ("another name", TlsTrust { ca: ours.ca.clone(), name: Some("latticed".into()) }, false),
        ("the URL's host", TlsTrust { ca: ours.ca.clone(), name: None }, false),
        ("the right one", ours, true),
    ];
    for (what, trust, is_right) in cases {
        let (proxy, seen) = listen_in(address_of(&at));
        let user = at.bootstrap.clone();
        let key = Arc::new(nkeys::KeyPair::from_seed(&user.seed).unwrap());
        let options = ConnectOptions::with_jwt(user.jwt.clone(), move |nonce| {
            let key = Arc::clone(&key);
            async move { key.sign(&nonce).map_err(async_nats::AuthError::new) }
        });
        let options = options.connection_timeout(PATIENCE).require_tls(true);
        let options = options.tls_client_config(trust.client_config().unwrap());
        let error = options.connect(format!("nats://{proxy}")).await.err().map(|error| format!("{error:?}"));
        let is_refused = error.as_ref().is_some_and(|error| error.contains("InvalidCertificate"));
        assert_eq!((error.is_none(), is_refused), (is_right, !is_right), "{what}: {error:?}");
        assert!(!holds(&seen.lock().unwrap(), "CONNECT"), "{what}: nothing was sent in plain");
    }
    // And who would do without TLS is refused by the server.
    assert!(async_nats::connect(&at.nats_url).await.is_err());
}

/// As the daily renewal does: a running nats-server takes another certificate, and nobody is cut off.
#[tokio::test]
async fn nats_takes_a_new_certificate_while_it_runs() {
    let (dir, server) = start();
    let peer = Peer::enroll(&server, "a", &server.token("w", 1)).await;
    let at = server.signaling();
    let inbox = lattice_wire::subject::inbox(peer.id());
    let foreign = rcgen::generate_simple_self_signed(vec!["nats.lattice.internal".into()]).unwrap();
    std::fs::write(dir.path().join("nats-server.crt"), foreign.cert.pem()).unwrap();
    std::fs::write(dir.path().join("nats-server.key"), foreign.signing_key.serialize_pem()).unwrap();
    kill(server.nats_pid().unwrap(), Signal::SIGHUP).unwrap();
    let refused = async { while connect(&at, &peer.grant.nats_jwt, &peer.key, &inbox).await.is_ok() {} };
    timeout(PATIENCE, refused).await.expect("the new certificate is not of our authority");
    assert!(peer.netmap().await.is_ok(), "who is connected stays so");
}

#[tokio::test]
async fn https_is_for_who_trusts_the_authority() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--tls", "self-signed", "--tls-san", "lattice.example"]);
    assert!(server.http.starts_with("https://"));
    // `server` pins the authority in the data directory.
    Peer::enroll(&server, "a", &server.token("w", 1)).await;

    let url = format!("{}/healthz", server.http);
    let error = ureq::get(&url).call().unwrap_err();
    assert!(error.to_string().to_lowercase().contains("certificate"), "{error}");
    let plain = ureq::get(url.replace("https://", "http://")).call();
    assert!(plain.is_err(), "no plain HTTP on a port of HTTPS");
    // It says who it is before it is trusted.
    let pem = server.text("/api/v1/ca");
    assert_eq!(pem, std::fs::read_to_string(dir.path().join("ca.pem")).unwrap());
}

/// What `lattice` does with `--server-url`, and what it says when that is not who is there.
#[test]
fn a_fingerprint_in_the_url_names_one_control_plane() {
    let (dir, other_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(dir.path(), &["--tls", "self-signed"]);
    let other = Server::start(other_dir.path(), &["--tls", "self-signed"]);
    let (_plain_dir, plain) = start();
    let authority = dir.path().join("ca.pem");
    let host = |server: &Server| server.http.split_once("://").unwrap().1.to_owned();
    let fingerprint = |server: &Server| server.printed_url().split_once('#').unwrap().1.to_owned();
    let call = |url: &str, ca: Option<&Path>| -> Result<u16, String> {
        let server = ServerUrl::parse(url, ca).map_err(|failure| failure.message)?;
        let agent = server.agent(PATIENCE).map_err(|failure| failure.message)?;
        let answer = agent.get(format!("{}/healthz", server.base())).call();
        answer.map(|answer| answer.status().as_u16()).map_err(|error| server.unreachable(&error).message)
    };

    assert_eq!(call(&server.printed_url(), None), Ok(200));
    assert_eq!(call(&server.http, Some(&authority)), Ok(200));
    assert_eq!(call(&plain.http, None), Ok(200));
    let cases = [
        (format!("{}#{}", other.http, fingerprint(&server)), None, "another SHA-256"),
        (other.http.clone(), Some(&*authority), "--server-url https://host:port#sha256:"),
        (server.http.clone(), None, "--server-url https://host:port#sha256:"),
        (format!("https://{}#{}", host(&plain), fingerprint(&server)), None, "http or https"),
        (format!("http://{}", host(&server)), None, "http or https"),
    ];
    for (url, ca, says) in cases {
        let message = call(&url, ca).expect_err(&url);
        assert!(message.contains(says), "{url}: {message}");
    }
}

#[test]
fn https_with_given_files() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
    std::fs::write(file("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(file("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let options = ["--tls-cert", &file("cert.pem"), "--tls-key", &file("key.pem")];
    let server = Server::start(&dir.path().join("data"), &options);
    let tls = TlsTrust { ca: made.cert.pem(), name: None };
    assert!(tls.client_config().is_ok());
    let root = ureq::tls::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
    let tls =
        ureq::tls::TlsConfig::builder().root_certs(ureq::tls::RootCerts::new_with_certs(&[root])).build();
    let agent: ureq::Agent = ureq::Agent::config_builder().tls_config(tls).build().into();
    assert_eq!(agent.get(format!("{}/healthz", server.http)).call().unwrap().status(), 200);
}
