//! The host's `resolv.conf(5)`: which nameservers it uses, and how patiently. Read again when it has changed.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    net::{IpAddr, SocketAddr, SocketAddrV6},
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    rc::Rc,
    time::{Duration, Instant, SystemTime},
};

use crate::limits::DEADLINE;

const PORT: u16 = 53;
/// Most nameservers that are used, as in glibc (`MAXNS`).
const MAX_SERVERS: usize = 3;
/// Most of the file that is read, in octets.
const MAX_FILE: u64 = 64 * 1024;
const DEFAULT_ATTEMPTS: u32 = 2;
const MAX_ATTEMPTS: u32 = 5;
const LEAST_WAIT: Duration = Duration::from_millis(300);
/// How often we look whether the file has changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is used of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResolvConf {
    /// In order of preference.
    pub(crate) servers: Vec<SocketAddr>,
    /// How often each is asked.
    pub(crate) attempts: u32,
    /// How long the file says to wait for an answer, at most [`DEADLINE`].
    timeout: Duration,
}

impl ResolvConf {
    /// Reads the text. What is not understood is passed over, as by everyone else. `zone` knows the index of an interface
    /// by its name, for `fe80::1%eth0`.
    pub(crate) fn parse(text: &str, zone: &dyn Fn(&str) -> Option<u32>) -> Self {
        let mut conf = Self { servers: Vec::new(), attempts: DEFAULT_ATTEMPTS, timeout: DEADLINE };
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let server = words.next().and_then(|word| server(word, zone));
                    if let Some(server) = server.filter(|server| !conf.servers.contains(server))
                        && conf.servers.len() < MAX_SERVERS
                    {
                        conf.servers.push(server);
                    }
                }
                Some("options") => words.for_each(|word| conf.option(word)),
                _ => {}
            }
        }
        conf
    }

    /// How long to wait for one answer, so that every attempt has its turn before the deadline.
    pub(crate) fn wait(&self) -> Duration {
        let servers = u32::try_from(self.servers.len()).unwrap_or(u32::MAX);
        let turns = servers.saturating_mul(self.attempts).max(1);
        self.timeout.min(DEADLINE / turns).max(LEAST_WAIT)
    }

    fn option(&mut self, word: &str) {
        let Some((key, value)) = word.split_once(':') else { return };
        match (key, value.parse::<u32>()) {
            ("timeout", Ok(seconds)) => {
                self.timeout = Duration::from_secs(seconds.max(1).into()).min(DEADLINE);
            }
            ("attempts", Ok(attempts)) => self.attempts = attempts.clamp(1, MAX_ATTEMPTS),
            _ => {}
        }
    }
}

fn server(text: &str, zone: &dyn Fn(&str) -> Option<u32>) -> Option<SocketAddr> {
    let (text, scope) = match text.split_once('%') {
        Some((text, name)) => (text, name.parse().ok().or_else(|| zone(name))?),
        None => (text, 0),
    };
    let address = match text.parse::<IpAddr>().ok()? {
        IpAddr::V6(address) if scope != 0 => SocketAddrV6::new(address, PORT, 0, scope).into(),
        address => SocketAddr::new(address.to_canonical(), PORT),
    };
    let ip = address.ip();
    (!ip.is_unspecified() && !ip.is_multicast()).then_some(address)
}

/// The file, and what it said last. One that has gone, or cannot be read, still says that.
#[derive(Debug)]
pub(crate) struct Followed {
    path: PathBuf,
    conf: Rc<ResolvConf>,
    stamp: Option<Stamp>,
    looked: Option<Instant>,
}

/// What changes with the file. A symbolic link is followed.
type Stamp = (u64, u64, u64, Option<SystemTime>);

impl Followed {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, conf: Rc::new(ResolvConf::parse("", &|_| None)), stamp: None, looked: None }
    }

    /// What it says now, or said within the last [`LOOK_EVERY`].
    pub(crate) fn conf(&mut self, now: Instant) -> Rc<ResolvConf> {
        let lately = |looked: Instant| now.saturating_duration_since(looked) < LOOK_EVERY;
        if !self.looked.is_some_and(lately) {
            self.looked = Some(now);
            let _unreadable = self.look();
        }
        Rc::clone(&self.conf)
    }

    fn look(&mut self) -> io::Result<()> {
        let meta = fs::metadata(&self.path)?;
        let stamp = Some((meta.dev(), meta.ino(), meta.size(), meta.modified().ok()));
        if stamp != self.stamp {
            let mut bytes = Vec::new();
            File::open(&self.path)?.take(MAX_FILE).read_to_end(&mut bytes)?;
            let zone = |name: &str| nix::net::if_::if_nametoindex(name).ok();
            self.conf = Rc::new(ResolvConf::parse(&String::from_utf8_lossy(&bytes), &zone));
            self.stamp = stamp;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> ResolvConf {
        ResolvConf::parse(text, &|name| (name == "eth0").then_some(7))
    }

    #[test]
    fn nameservers_and_options_are_read() {
        let conf = parse(
            "# nameserver 192.0.2.9\n; nameserver 192.0.2.8\nsearch example.com\n  nameserver\t127.0.0.53 # stub\n\
             nameserver 2001:db8::1\nnameserver 127.0.0.53\nnameserver fe80::1%eth0\nnameserver 192.0.2.4\n\
             options edns0 timeout:1 attempts:1 trust-ad\n",
        );
        let link_local = SocketAddrV6::new("fe80::1".parse().unwrap(), 53, 0, 7);
        let servers =
            ["127.0.0.53:53".parse().unwrap(), "[2001:db8::1]:53".parse().unwrap(), link_local.into()];
        assert_eq!(conf.servers, servers);
        assert_eq!((conf.attempts, conf.wait()), (1, Duration::from_secs(1)));
    }

    #[test]
    fn what_is_no_nameserver_is_passed_over() {
        let conf = parse(
            "nameserver\nnameserver example.com\nnameserver 0.0.0.0\nnameserver ::\nnameserver fe80::1%none\n\
             nameserver 224.0.0.1\nnameservers 192.0.2.1\nnameserver 192.0.2.1:53\nnameserver ::ffff:192.0.2.7\n",
        );
        assert_eq!(conf.servers, ["192.0.2.7:53".parse().unwrap()]);
    }

    #[test]
    fn options_are_bounded_and_every_attempt_has_its_turn() {
        let conf = parse("nameserver 192.0.2.1\noptions timeout:4000000000 attempts:4000000000");
        assert_eq!((conf.attempts, conf.wait()), (MAX_ATTEMPTS, DEADLINE / MAX_ATTEMPTS));
        let conf = parse("nameserver 192.0.2.1\noptions timeout:0 attempts:0 timeout:x attempts");
        assert_eq!((conf.attempts, conf.wait()), (1, Duration::from_secs(1)));
        assert_eq!(parse("nameserver 192.0.2.1\nnameserver 192.0.2.2").wait(), DEADLINE / 4);
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_gone_one_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        let (mut file, start) = (Followed::new(path.clone()), Instant::now());
        assert_eq!(file.conf(start).servers, []);
        fs::write(&path, "nameserver 192.0.2.1").unwrap();
        assert_eq!(file.conf(start).servers, [], "not looked again so soon");
        let first = ["192.0.2.1:53".parse().unwrap()];
        assert_eq!(file.conf(start + LOOK_EVERY).servers, first);
        fs::remove_file(&path).unwrap();
        assert_eq!(file.conf(start + 2 * LOOK_EVERY).servers, first);
        fs::write(&path, "nameserver 192.0.2.22").unwrap();
        assert_eq!(file.conf(start + 3 * LOOK_EVERY).servers, ["192.0.2.22:53".parse().unwrap()]);
    }
}
