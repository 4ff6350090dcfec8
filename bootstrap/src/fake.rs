//! For tests: a latticed that says what it is told to, behind a real nats-server.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use async_nats::Client;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures::StreamExt as _;
use lattice_wire::{
    Credentials, PeerId, WgPrivateKey, WorkspaceId,
    credentials::VERSION,
    message::{BootstrapUser, EnrollGrant, EnrollRequest, PeerKind, Refusal, RefusalCode, Reply, Signaling},
};
use serde::Serialize;
use serde_json::Value;
use tempfile::TempDir;

use crate::{Join, ServerUrl};

/// Both servers end with it.
pub(crate) struct Fake {
    nats: Child,
    dir: TempDir,
    pub(crate) client: Client,
    pub(crate) url: String,
    http: String,
}

/// A JWT by its claims; nobody checks who signed it.
pub(crate) fn jwt(claims: &Value) -> String {
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ports = dir.path().join("ports");
        fs::create_dir(&ports).unwrap();
        // By setpriv(1), so that it dies with the thread of the test however that ends.
        let nats = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "nats-server", "-a", "127.0.0.1", "-p", "-1", "--ports_file_dir"])
            .arg(&ports)
            .stderr(Stdio::null())
            .spawn()
            .expect("setpriv and nats-server are on PATH");
        let url = loop {
            let file = fs::read_dir(&ports).unwrap().next().map(|file| file.unwrap().path());
            let text = file.and_then(|file| fs::read(file).ok()).unwrap_or_default();
            let ports: Value = serde_json::from_slice(&text).unwrap_or_default();
            if let Some(url) = ports["nats"][0].as_str() {
                break url.to_owned();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let client = async_nats::connect(&url).await.unwrap();
        let user = nkeys::KeyPair::new_user();
        let bootstrap = BootstrapUser {
            jwt: jwt(&Value::Null),
            seed: user.seed().unwrap(),
            inbox: "_INBOX_enroll-x".into(),
        };
        let signaling = Signaling { nats_url: url.clone(), bootstrap, nats_tls: None };
        let http = serve(serde_json::to_string(&signaling).unwrap());
        Self { nats, dir, client, url, http }
    }

    /// Answers every request on `subject` by `answer`; what was asked is kept.
    pub(crate) async fn answer<T: Serialize>(
        &self,
        subject: &str,
        answer: impl Fn(&[u8]) -> Result<T, RefusalCode> + Send + 'static,
    ) -> Arc<Mutex<Vec<Vec<u8>>>> {
        let mut requests = self.client.subscribe(subject.to_owned()).await.unwrap();
        self.client.flush().await.unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (client, kept) = (self.client.clone(), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Some(request) = requests.next().await {
                kept.lock().unwrap().push(request.payload.to_vec());
                let payload = {
                    let reply = match answer(&request.payload) {
                        Ok(value) => Reply::Ok(value),
                        Err(code) => Reply::Error(Refusal { code, message: "as the test says".into() }),
                    };
                    serde_json::to_vec(&reply).unwrap()
                };
                client.publish(request.reply.unwrap(), payload.into()).await.unwrap();
            }
        });
        asked
    }

    /// Of a sandbox with a directory of its own.
    pub(crate) fn join(&self) -> Join {
        Join {
            name: "a".parse().unwrap(),
            kind: PeerKind::Sandbox,
            server: ServerUrl::parse(&self.http, None).unwrap(),
            token: Some(lattice_wire::Token::from_random([1; 7], [2; 25])),
            credentials: self.credentials(),
            listen_port: 0,
            preset: None,
            for_good: false,
        }
    }

    /// What a peer of this control plane has stored.
    pub(crate) fn stored(&self, nats_jwt: &str) -> Credentials {
        let grant = grant(nats_jwt.to_owned());
        Credentials {
            version: VERSION,
            name: "a".parse().unwrap(),
            peer: grant.peer,
            workspace: grant.workspace,
            address: grant.address,
            server_url: self.http.clone(),
            nats_url: self.url.clone(),
            nats_tls: None,
            server_ca: None,
            nats_jwt: grant.nats_jwt,
            nats_seed: nkeys::KeyPair::new_user().seed().unwrap(),
            wireguard_private_key: WgPrivateKey::from_random([3; 32]),
            listen_port: 0,
        }
    }

    fn credentials(&self) -> PathBuf {
        self.dir.path().join("credentials.json")
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = self.nats.kill();
        let _ = self.nats.wait();
    }
}

pub(crate) fn grant(nats_jwt: String) -> EnrollGrant {
    EnrollGrant {
        peer: PeerId::from_random([1; 10]),
        workspace: WorkspaceId::from_random([2; 10]),
        address: "10.42.0.2/32".parse().unwrap(),
        nats_jwt,
        not_after: None,
    }
}

pub(crate) fn read(request: &[u8]) -> EnrollRequest {
    serde_json::from_slice(request).unwrap()
}

/// Answers every HTTP request by `body`; its thread ends with the test's process.
fn serve(body: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let _ = stream.read(&mut [0; 4096]);
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    format!("http://{address}")
}
