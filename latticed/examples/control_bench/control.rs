//! A latticed of its own, its administrator, and a NATS user with every right.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_nats::{AuthError, Client, ConnectOptions};
use lattice_wire::message::Signaling;
use nkeys::KeyPair;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::jwt;

pub struct Control {
    child: Child,
    dir: TempDir,
    http: String,
    api_token: String,
}

impl Control {
    /// Starts the latticed that lies beside the directory of this example. A Postgres is emptied before.
    pub fn start(database: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(beside("latticed"));
        command.arg("--data-dir").arg(dir.path().join("data"));
        command.args(["--listen", "127.0.0.1:0", "--nats-listen", "127.0.0.1:0", "--log", "warn"]);
        if let Some(url) = database {
            let reset = "DROP SCHEMA public CASCADE; CREATE SCHEMA public";
            assert!(Command::new("psql").args(["-q", url, "-c", reset]).status().unwrap().success());
            command.env("LATTICE_DATABASE_URL", url);
        }
        let mut child = command.stderr(Stdio::piped()).spawn().expect("latticed: build it with --release");
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut log = String::new();
        while !log.contains("latticed: NATS ") {
            assert_ne!(stderr.read_line(&mut log).unwrap(), 0, "latticed ended: {log}");
        }
        thread::spawn(move || stderr.read_to_end(&mut Vec::new()));
        let record: Value =
            serde_json::from_slice(&fs::read(dir.path().join("data/latticed.json")).unwrap()).unwrap();
        let http = record["http"].as_str().unwrap().to_owned();
        let mut control = Self { child, dir, http, api_token: String::new() };
        let one_time = fs::read_to_string(control.data().join("admin-token")).unwrap();
        let login = control.post(&agent(), "/api/v1/login", one_time.trim(), &json!({"name": "bench"}));
        login["token"].as_str().unwrap().clone_into(&mut control.api_token);
        control.post(&agent(), "/api/v1/workspaces", &control.api_token, &json!({"name": "bench"}));
        control
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn post(&self, agent: &ureq::Agent, path: &str, token: &str, body: &Value) -> Value {
        let mut answer = agent
            .post(format!("{}{path}", self.http))
            .header("authorization", format!("Bearer {token}"))
            .send_json(body)
            .unwrap();
        let (status, text) = (answer.status(), answer.body_mut().read_to_string().unwrap());
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// A token that admits `uses` peers, and says `more` of them.
    pub fn token(&self, uses: usize, more: &Value) -> String {
        let mut body = json!({"workspace": "bench", "uses": uses});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let made = self.post(&agent(), "/api/v1/tokens", &self.api_token, &body);
        made["token"].as_str().unwrap().to_owned()
    }

    /// The account's key, by which a NATS user gets every right.
    pub fn account(&self) -> KeyPair {
        let seed = fs::read_to_string(self.data().join("account.nk")).unwrap();
        KeyPair::from_seed(seed.trim()).unwrap()
    }

    /// Connects as a user with every right, signed with the account's key from the data directory.
    pub async fn nats(&self) -> Client {
        let mut answer = agent().get(format!("{}/api/v1/signaling", self.http)).call().unwrap();
        let signaling: Signaling = answer.body_mut().read_json().unwrap();
        let user = Arc::new(KeyPair::new_user());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let claims = jwt::Claims {
            name: "bench",
            subject: &user.public_key(),
            issued_at: now.cast_signed(),
            expires_at: None,
            nats: json!({
                "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1, "type": "user", "version": 2,
            }),
        };
        let jwt = jwt::encode(&self.account(), &claims).unwrap();
        let sign = move |nonce: Vec<u8>| {
            let user = Arc::clone(&user);
            async move { user.sign(&nonce).map_err(AuthError::new) }
        };
        let mut options = ConnectOptions::with_jwt(jwt, sign).subscription_capacity(1 << 16);
        if let Some(trust) = &signaling.nats_tls {
            options = options.require_tls(true).tls_client_config(trust.client_config().unwrap());
        }
        options.connect(&signaling.nats_url).await.unwrap()
    }

    /// Bytes of resident memory.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Seconds of processor time so far, in ticks of 10 ms.
    pub fn cpu(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(60)))
        .http_status_as_error(false);
    config.build().into()
}

fn beside(name: &str) -> PathBuf {
    let here = std::env::current_exe().unwrap();
    here.ancestors().nth(2).unwrap_or(Path::new(".")).join(name)
}
