//! Three nats-servers with TLS, configured as docs/operating.md says.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use lattice_wire::message::Signaling;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::Value;

use crate::{
    hostile::refuses,
    peer::{Peer, connect},
    server::{Killed, Server, wait_until},
    start::fails,
};

/// A server of the cluster, in a directory of its own.
pub struct Node {
    dir: PathBuf,
    process: Option<Killed>,
    /// Where peers reach it.
    pub client: String,
    /// Where the others of the cluster reach it.
    pub route: String,
}

/// An authority and a certificate for 127.0.0.1, as files in `dir`.
pub fn certify(dir: &Path) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let key = KeyPair::generate().unwrap();
    fs::write(dir.join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    fs::write(dir.join("server.crt"), server.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    fs::write(dir.join("server.key"), key.serialize_pem()).unwrap();
}

impl Node {
    pub fn start(base: &Path, name: &str, route: Option<&str>) -> Self {
        let dir = base.join(name);
        fs::create_dir(&dir).unwrap();
        let files = r#"cert_file: "../server.crt", key_file: "../server.key""#;
        let routes = route.map(|route| format!(r#""{route}""#)).unwrap_or_default();
        let text = format!(
            r#"
            server_name: {name}
            host: 127.0.0.1
            port: -1
            ports_file_dir: "."
            max_payload: 4MB
            tls {{ {files} }}
            cluster {{
                name: lattice
                host: 127.0.0.1
                port: -1
                routes: [{routes}]
                tls {{ {files}, ca_file: "../ca.pem", verify: true }}
            }}
            include ../data/nats-trust.conf
            "#
        );
        fs::write(dir.join("nats.conf"), text).unwrap();
        let mut node = Self { dir, process: None, client: String::new(), route: String::new() };
        node.run();
        node
    }

    /// As `kill -9` does.
    pub fn kill(&mut self) {
        drop(self.process.take());
    }

    /// Starts it once more, as it was left and where it was.
    pub fn run(&mut self) {
        self.kill();
        let (conf, port) =
            (self.dir.join("nats.conf"), |url: &str| url.rsplit(':').next().unwrap().to_owned());
        let mut text = fs::read_to_string(&conf).unwrap();
        for url in [&self.client, &self.route].into_iter().filter(|url| !url.is_empty()) {
            text = text.replacen("port: -1", &format!("port: {}", port(url)), 1);
        }
        fs::write(&conf, text).unwrap();
        for file in fs::read_dir(&self.dir).unwrap().map(|file| file.unwrap().path()) {
            if file.extension().is_some_and(|extension| extension == "ports") {
                fs::remove_file(file).unwrap();
            }
        }
        // By setpriv(1), so that it dies with the test.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "nats-server", "-c", "nats.conf"]).current_dir(&self.dir);
        let process = Killed(command.stderr(Stdio::null()).spawn().unwrap());
        let file = self.dir.join(format!("nats-server_{}.ports", process.0.id()));
        self.process = Some(process);
        wait_until("a server of the cluster listens", || {
            let ports: Value =
                fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
            let url = |kind: &str| {
                let address = ports[kind][0].as_str()?.split_once("://")?.1;
                Some(format!("nats://{address}"))
            };
            match (url("nats"), url("cluster")) {
                (Some(client), Some(route)) => (self.client, self.route) = (client, route),
                _ => return false,
            }
            true
        });
    }
}

#[tokio::test]
async fn a_cluster_learns_of_a_removal_everywhere_and_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    certify(dir.path());
    // The first try leaves behind what the servers must include.
    assert_eq!(fails(&data, &["--nats-url", "nats://127.0.0.1:1"]).0, 7);
    let first = Node::start(dir.path(), "one", None);
    let _second = Node::start(dir.path(), "two", Some(&first.route));
    let mut third = Node::start(dir.path(), "three", Some(&first.route));

    let ca = dir.path().join("ca.pem");
    let server = Server::start(&data, &["--nats-url", &first.client, "--nats-ca", ca.to_str().unwrap()]);
    let at = |node: &Node| Signaling { nats_url: node.client.clone(), ..server.signaling() };
    let token = server.token("w", 2);
    let stays = Peer::enroll(&server, "stays", &token).await;
    let enrolled = Peer::enroll(&server, "removed", &token).await;
    let inbox = lattice_wire::subject::inbox(enrolled.id());
    // Through another server than latticed's.
    let link = connect(&at(&third), &enrolled.grant.nats_jwt, &enrolled.key, &inbox).await.unwrap();
    let mut removed = Peer { link, ..enrolled };
    removed.answered().await;

    assert_eq!(server.admin("DELETE", &format!("/api/v1/peers/{}", removed.id()), None).0, 204);
    removed.link.lost().await;
    assert!(stays.netmap().await.is_ok());
    // It knows from its own directory, before latticed tells it again.
    third.run();
    let again = connect(&at(&third), &removed.grant.nats_jwt, &removed.key, &inbox).await;
    assert!(refuses(again.err()));
    let inbox = lattice_wire::subject::inbox(stays.id());
    assert!(connect(&at(&third), &stays.grant.nats_jwt, &stays.key, &inbox).await.is_ok());
}

/// Stands before a server, and hangs up on the first `broken` clients when they have begun the handshake.
fn hang_up_on(broken: usize, server: &str) -> (String, Arc<AtomicUsize>) {
    let to = server.strip_prefix("nats://").unwrap().to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, seen) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&seen);
    thread::spawn(move || {
        while let (Ok((mut near, _)), Ok(mut far)) = (listener.accept(), TcpStream::connect(&to)) {
            if count.fetch_add(1, Ordering::Relaxed) < broken {
                let (mut info, mut hello) = ([0; 4096], [0; 1]);
                let said = far.read(&mut info).unwrap_or(0);
                let _ = near.write_all(&info[..said]).and_then(|()| near.read(&mut hello));
                continue;
            }
            let (mut back, mut forth) = (far.try_clone().unwrap(), near.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut near, &mut far));
            thread::spawn(move || std::io::copy(&mut back, &mut forth));
        }
    });
    (format!("nats://{address}"), seen)
}

/// As on a host that is too busy for them, at the start.
#[test]
fn handshakes_that_fail_at_first_are_tried_again_and_not_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    certify(dir.path());
    let (code, message) = fails(&data, &["--nats-url", "nats://127.0.0.1:1"]);
    assert_eq!(code, 7);
    assert!(message.contains("in 5 attempts"), "{message}");
    let node = Node::start(dir.path(), "one", None);
    let ca = dir.path().join("ca.pem");
    let options = |url: &str| ["--nats-url", url, "--nats-ca", ca.to_str().unwrap()].map(str::to_owned);

    let (dead, seen) = hang_up_on(usize::MAX, &node.client);
    let (code, message) = fails(&data, &options(&dead).each_ref().map(String::as_str));
    assert_eq!((code, seen.load(Ordering::Relaxed)), (7, 5), "{message}");
    assert!(message.contains(&dead) && message.contains("in 5 attempts"), "{message}");

    let (late, seen) = hang_up_on(4, &node.client);
    let server = Server::start(&data, &options(&late).each_ref().map(String::as_str));
    assert!(seen.load(Ordering::Relaxed) >= 6, "four in vain, and latticed has two connections");
    drop(server);

    // Whom it does not trust, it does not ask again.
    let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
    fs::write(&ca, other.cert.pem()).unwrap();
    let (watched, seen) = hang_up_on(0, &node.client);
    let (code, message) = fails(&data, &options(&watched).each_ref().map(String::as_str));
    assert_eq!((code, seen.load(Ordering::Relaxed)), (7, 1), "{message}");
}
