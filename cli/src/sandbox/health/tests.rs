use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream as Client,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
};

use tokio::runtime::{Builder, Runtime};

use super::*;

/// Only says when a test has failed.
const PATIENCE: Duration = Duration::from_secs(60);

struct Lab {
    health: Health,
    _runtime: Runtime,
}

impl Lab {
    fn new() -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let health = Health::start("127.0.0.1:0".parse().unwrap(), runtime.handle()).unwrap();
        Self { health, _runtime: runtime }
    }

    /// One that was last heard from this many seconds ago.
    fn ready(heard: u64) -> Self {
        let lab = Self::new();
        lab.reports(move || Ok(Report { heard_seconds: Some(heard), lost: 7, ..Report::default() }));
        lab
    }

    fn reports(&self, reports: impl Fn() -> Result<Report, Failure> + Send + Sync + 'static) {
        self.health.ready(Arc::new(reports));
    }

    fn connect(&self) -> Client {
        let stream = Client::connect(self.health.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// The whole reply to these bytes; empty where the connection was cut.
    fn send(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        let _ = stream.write_all(bytes);
        rest(&mut stream)
    }

    fn ask(&self, method: &str, path: &str) -> String {
        self.send(format!("{method} {path} HTTP/1.1\r\nHost: probe\r\n\r\n").as_bytes())
    }

    fn get(&self, path: &str) -> (u16, String) {
        let reply = self.ask("GET", path);
        let status = reply.split(' ').nth(1).and_then(|code| code.parse().ok());
        let body = reply.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        (status.unwrap_or_else(|| panic!("{path}: {reply:?}")), body.unwrap_or_default())
    }
}

/// Till the end. A reset says the same.
fn rest(stream: &mut Client) -> String {
    let mut reply = Vec::new();
    if let Err(error) = stream.read_to_end(&mut reply) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "it is cut in time: {error}");
    }
    String::from_utf8_lossy(&reply).into_owned()
}

#[test]
fn it_lives_before_it_is_ready_and_is_ready_while_the_control_plane_is_there() {
    let starting = Lab::new();
    assert_eq!(starting.get("/healthz"), (200, "starting\n".into()));
    assert_eq!(starting.get("/readyz"), (503, "starting\n".into()));
    assert_eq!(starting.get("/metrics").0, 503);
    let ready = Lab::ready(HEARD);
    assert_eq!(ready.get("/healthz"), (200, "ok\n".into()));
    assert_eq!(ready.get("/readyz"), (200, "ready\n".into()));
    let metrics = ready.get("/metrics");
    assert!(metrics.0 == 200 && metrics.1.contains("lattice_sandbox_verdicts_lost_total 7\n"), "{metrics:?}");
    let alone = Lab::ready(HEARD + 1);
    assert_eq!((alone.get("/healthz").0, alone.get("/readyz").0), (200, 503));
}

#[test]
fn a_sandbox_that_has_ended_or_hangs_is_not_well() {
    let ended = Lab::new();
    ended.reports(|| Err(Failure::new(Kind::Internal, "the device has ended")));
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(ended.get(path), (503, "the device has ended\n".into()), "{path}");
    }
    let hangs = Lab::new();
    let (asked, gate) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(())));
    let held = gate.lock().unwrap();
    {
        let (asked, gate) = (Arc::clone(&asked), Arc::clone(&gate));
        hangs.reports(move || {
            asked.fetch_add(1, Relaxed);
            drop(gate.lock().unwrap_or_else(PoisonError::into_inner));
            Ok(Report::default())
        });
    }
    for _ in 0..3 {
        assert_eq!(hangs.get("/healthz").0, 503);
    }
    assert_eq!(asked.load(Relaxed), 1, "it takes one thread, however often it is asked");
    drop(held);
}

#[test]
fn nothing_but_get_and_head_of_three_paths_is_served() {
    let lab = Lab::ready(0);
    for path in ["/", "/metricsx", "/healthz/", "/../healthz", "//healthz"] {
        assert_eq!(lab.get(path).0, 404, "{path}");
    }
    assert_eq!(lab.get("/healthz?verbose").0, 200);
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "CONNECTX"] {
        let reply = lab.ask(method, "/healthz");
        assert!(reply.starts_with("HTTP/1.1 405 ") && reply.contains("allow: GET, HEAD"), "{reply}");
    }
    let (head, get) = (lab.ask("HEAD", "/healthz"), lab.ask("GET", "/healthz"));
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    assert!(get.ends_with("\r\n\r\nok\n") && get.contains("connection: close"), "{get}");
}

#[test]
fn garbage_is_cut_and_served_on() {
    let lab = Lab::ready(0);
    let long = [b"GET /healthz HTTP/1.1\r\nX: ".as_slice(), &[b'x'; 2 * MAX_HEADER], b"\r\n\r\n"].concat();
    let many = format!("GET /healthz HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1000));
    let garbage: [&[u8]; 6] = [
        b"\0\0\0\0\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01",
        b"GET\r\n\r\n",
        b"\x05\x01\0\r\n\r\n",
        &long,
        many.as_bytes(),
    ];
    for bytes in garbage {
        let mut stream = lab.connect();
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let reply = rest(&mut stream);
        assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 4"), "{reply}");
        assert_eq!(lab.get("/healthz").0, 200);
    }
}

/// Connections that say nothing, or a byte at a time, neither keep a probe waiting nor stay.
#[test]
fn who_is_slow_is_in_nobodys_way() {
    let lab = Lab::ready(0);
    let mut slow: Vec<Client> = (0..4 * MAX_CONNECTIONS).map(|_| lab.connect()).collect();
    for stream in &mut slow {
        let _ = stream.write_all(b"GET /hea");
    }
    assert_eq!(lab.get("/readyz").0, 200);
    // The oldest were cut to make room.
    assert_eq!(rest(&mut slow[0]), "");
    // The newest is cut when its header is not there in time.
    let newest = slow.last_mut().unwrap();
    let mut drip = newest.try_clone().unwrap();
    let dripping = thread::spawn(move || {
        while drip.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(200));
        }
    });
    let reply = rest(newest);
    assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 4"), "{reply}");
    dripping.join().unwrap();
}

#[test]
fn a_port_that_is_taken_is_named() {
    let lab = Lab::new();
    let taken = lab.health.address();
    let refused = Health::start(taken, lab._runtime.handle()).map(drop).unwrap_err();
    assert_eq!(refused.kind, Kind::Taken);
    assert!(refused.message.contains(&format!("--health-addr {taken}")), "{refused}");
}

#[test]
fn it_ends_with_its_sandbox() {
    let Lab { health, _runtime } = Lab::ready(0);
    let address = health.address();
    let mut open = Client::connect(address).unwrap();
    open.set_read_timeout(Some(PATIENCE)).unwrap();
    drop(health);
    assert_eq!(rest(&mut open), "");
    let begun = std::time::Instant::now();
    while Client::connect(address).is_ok() {
        assert!(begun.elapsed() < PATIENCE, "it still listens");
        thread::sleep(Duration::from_millis(10));
    }
}
