//! A running latticed, and its HTTP API as an administrator uses it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::{self, JoinHandle},
    time::Duration,
};

use lattice_wire::message::Signaling;
use nix::{
    sys::{
        prctl,
        signal::{Signal, kill},
        wait::{WaitStatus, waitpid},
    },
    unistd::Pid,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// A latticed and its nats-server. Both die when it is dropped.
pub struct Server {
    pub http: String,
    printed_url: String,
    child: Child,
    log: Option<JoinHandle<String>>,
    data: PathBuf,
}

/// A command that starts latticed on free ports.
pub fn command(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_latticed"));
    command.arg("--data-dir").arg(data).args(["--listen", "127.0.0.1:0", "--nats-listen", "127.0.0.1:0"]);
    command
}

/// A server in a directory of its own.
pub fn start() -> (TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    (dir, server)
}

impl Server {
    /// Starts latticed and returns when it serves.
    pub fn start(data: &Path, more: &[&str]) -> Self {
        Self::run(command(data).args(more), data)
    }

    /// The same of a command that starts latticed in `data`.
    pub fn run(command: &mut Command, data: &Path) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut log = String::new();
        while !log.contains("latticed: NATS ") {
            if stderr.read_line(&mut log).unwrap() == 0 {
                panic!("latticed ended with {}: {log}", child.wait().unwrap());
            }
        }
        let printed = log.lines().find_map(|line| line.strip_prefix("latticed: HTTP listens on "));
        let printed_url = printed.expect("it says where it listens").to_owned();
        let log = thread::spawn(move || {
            let _ = stderr.read_to_string(&mut log);
            log
        });
        let record: Value = serde_json::from_slice(&fs::read(data.join("latticed.json")).unwrap()).unwrap();
        assert_eq!(record["pid"], child.id());
        let http = record["http"].as_str().unwrap().to_owned();
        Self { http, printed_url, child, log: Some(log), data: data.to_owned() }
    }

    /// The API token of the first login; it outlives the server.
    pub fn api_token(&self) -> String {
        let kept = self.data.join("test-api-token");
        if let Ok(token) = fs::read_to_string(&kept) {
            return token;
        }
        let one_time = fs::read_to_string(self.data.join("admin-token")).unwrap();
        let body = json!({"name": "test"});
        let (status, made) = self.request("POST", "/api/v1/login", Some(&one_time), Some(body));
        assert_eq!(status, 201, "{made}");
        let token = made["token"].as_str().unwrap().to_owned();
        let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(&kept).unwrap();
        file.write_all(token.as_bytes()).unwrap();
        token
    }

    /// Sends a request as an administrator; the status and the JSON body (null when there is none).
    pub fn admin(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        self.request(method, path, Some(&self.api_token()), body)
    }

    /// Sends a request.
    pub fn request(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> (u16, Value) {
        self.request_with(method, path, token, body, &[])
    }

    /// Sends a request with more headers.
    pub fn request_with(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> (u16, Value) {
        let agent = self.agent();
        let mut request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.http));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let mut response = match body {
            Some(body) => {
                let request = request.header("content-type", "application/json");
                agent.run(request.body(body.to_string()).unwrap()).unwrap()
            }
            None => agent.run(request.body(()).unwrap()).unwrap(),
        };
        let text = response.body_mut().read_to_string().unwrap();
        (response.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// What a GET without a token answers.
    pub fn text(&self, path: &str) -> String {
        let mut response = self.agent().get(format!("{}{path}", self.http)).call().unwrap();
        response.body_mut().read_to_string().unwrap()
    }

    /// A client that trusts the authority in the data directory alone.
    fn agent(&self) -> ureq::Agent {
        let ca = Certificate::from_pem(&fs::read(self.data.join("ca.pem")).unwrap()).unwrap();
        ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(30)))
            .tls_config(TlsConfig::builder().root_certs(RootCerts::new_with_certs(&[ca])).build())
            .build()
            .into()
    }

    /// A token of `uses` uses in workspace `name`, which is made when it is missing.
    pub fn token(&self, name: &str, uses: u32) -> String {
        self.admin("POST", "/api/v1/workspaces", Some(json!({"name": name})));
        let body = json!({"workspace": name, "uses": uses});
        let (status, token) = self.admin("POST", "/api/v1/tokens", Some(body));
        assert_eq!(status, 201, "{token}");
        token["token"].as_str().unwrap().to_owned()
    }

    /// Where NATS is, and a bootstrap user.
    pub fn signaling(&self) -> Signaling {
        let (status, body) = self.request("GET", "/api/v1/signaling", None, None);
        assert_eq!(status, 200, "{body}");
        serde_json::from_value(body).unwrap()
    }

    pub fn peers(&self) -> Vec<Value> {
        self.admin("GET", "/api/v1/peers", None).1["items"].as_array().unwrap().clone()
    }

    /// Its URL as it prints it at its start.
    pub fn printed_url(&self) -> String {
        self.printed_url.clone()
    }

    /// The public key of its NATS account.
    pub fn account(&self) -> String {
        let seed = fs::read_to_string(self.data.join("account.nk")).unwrap();
        nkeys::KeyPair::from_seed(seed.trim()).unwrap().public_key()
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// The process id of its nats-server.
    pub fn nats_pid(&self) -> Option<Pid> {
        let pid = self.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        children.split_whitespace().next().map(|pid| Pid::from_raw(pid.parse().unwrap()))
    }

    /// Signals latticed and waits for the end of it and of its nats-server: its exit code, and everything that it wrote.
    pub fn end(mut self, signal: Signal) -> (Option<i32>, String) {
        let nats = self.nats_pid().filter(|_| signal == Signal::SIGKILL);
        // Its orphan becomes our child, so that its end can be waited for.
        prctl::set_child_subreaper(true).unwrap();
        kill(self.pid(), signal).unwrap();
        let status = self.child.wait().unwrap();
        if let Some(nats) = nats {
            assert_eq!(waitpid(nats, None), Ok(WaitStatus::Signaled(nats, Signal::SIGKILL, false)));
        }
        (status.code(), self.log.take().unwrap().join().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = kill(self.pid(), Signal::SIGTERM);
        for _ in 0..500 {
            if self.child.try_wait().is_ok_and(|status| status.is_some()) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A child that is killed when the guard is dropped.
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until `done`; panics when it never is.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..1500 {
        if done() {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("never: {what}");
}
