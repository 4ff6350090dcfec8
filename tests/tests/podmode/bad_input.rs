//! Every wrong word on pod mode's command line is one line that names the cause and the remedy, and leaves nothing behind.

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt as _};

use lattice_tests::{Host, Lab, Output, Process, User, remains, tools};

use crate::world::{LIMIT, UID};

const USAGE: i32 = 64;
const TAKEN: i32 = 73;
const CREDENTIALS: i32 = 78;

struct Place {
    lab: Lab,
    host: Host,
    user: User,
}

impl Place {
    fn new(mut lab: Lab) -> Self {
        let host = lab.host();
        let user = User::new(&lab, &host, UID, "user");
        Self { lab, host, user }
    }

    fn run(&self, args: &[String]) -> Output {
        let mut start = self.user.command(&self.host.netns, &tools::built("lattice"));
        start.args(args);
        Process::spawn(start, "agent", self.lab.dir.path()).finish(LIMIT)
    }

    /// Runs, and checks: the exit code, one line that begins with `error:` and has all of `says`, nothing left.
    fn refused(&self, more: &[&str], code: i32, says: &[&str]) {
        let out = self.run(&self.user.start(&self.lab, &self.host, "agent", more));
        assert_eq!(out.code, code, "{more:?}: {}", out.stderr);
        for text in says {
            assert!(out.stderr.contains(text), "{more:?}: expected {text:?} in {:?}", out.stderr);
        }
        if code != USAGE {
            let errors = out.stderr.lines().filter(|line| line.starts_with("error:")).count();
            assert_eq!(errors, 1, "{more:?}: one line, not {:?}", out.stderr);
        }
        assert_eq!(out.stdout, "", "{more:?}: errors go to stderr");
        assert_eq!(
            remains::processes(&self.user.dir.display().to_string()),
            Vec::<String>::new(),
            "{more:?}"
        );
        for left in ["ready.json", "run/lattice/sandboxes/agent"] {
            assert!(!self.user.dir.join(left).exists(), "{more:?}: {left}");
        }
    }
}

#[test]
fn flags_that_make_no_sense_are_refused_before_a_token_is_spent() {
    let place = Place::new(Lab::start());
    for forward in [
        "nonsense",
        "",
        "8080",
        "8080:localhost:80",
        "8080:127.0.0.1",
        "8080:127.0.0.1:0",
        "0:127.0.0.1:80",
        "70000:127.0.0.1:80",
        "sctp:80:127.0.0.1:80",
        "8080:0.0.0.0:80",
        "8080:224.0.0.1:80",
        "8080:::1:80",
        "8080:127.0.0.1:80:90",
    ] {
        place.refused(&["--forward", forward], USAGE, &["--forward"]);
    }
    place.refused(&["--forward", "80:127.0.0.1:1", "--forward", "80:127.0.0.1:2"], USAGE, &["80"]);
    for open in ["0.0.0.0:1080", "[::]:1080", "192.168.50.2:1080"] {
        place.refused(&["--proxy-addr", open], USAGE, &[open, "credentials", "127.0.0.1:1080"]);
    }
    for wrong in ["1080", "localhost", "127.0.0.1", "127.0.0.1:x", ""] {
        place.refused(&["--proxy-addr", wrong], USAGE, &["--proxy-addr"]);
    }
    place.refused(
        &["--proxy-addr", "127.0.0.1:0", "--egress-allow", "10.42.0.0/33"],
        USAGE,
        &["invalid egress CIDR"],
    );
    place.refused(
        &["--agent-rootfs", "/", "--proxy-addr", "127.0.0.1:0"],
        USAGE,
        &["--agent-rootfs", "gvisor"],
    );
    assert!(!place.user.enrolled(), "nothing was asked of the control plane");
}

#[test]
fn secrets_of_others_and_ports_of_others_are_refused() {
    let place = Place::new(Lab::start());
    let user = &place.user;
    let proxy = ["--proxy-addr", "127.0.0.1:0"];
    let with = |file: &std::path::Path| {
        let file = file.display().to_string();
        let out = place.run(&user.start(
            &place.lab,
            &place.host,
            "agent",
            &[&proxy[..], &["--proxy-auth-file", &file]].concat(),
        ));
        assert_ne!(out.code, 0, "{file}");
        assert!(out.stderr.lines().filter(|line| line.starts_with("error:")).count() == 1, "{}", out.stderr);
        out.stderr
    };
    let weak = user.file("weak", "merlin:short\n");
    let said = with(&weak);
    assert!(said.contains("16 to 255") && !said.contains("short"), "{said}");
    let shared = user.file("shared", "merlin:correct-horse-battery\n");
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o644)).unwrap();
    let said = with(&shared);
    assert!(said.contains("chmod 600") && !said.contains("horse"), "{said}");
    with(&user.dir.join("nothing"));

    // A port that somebody has.
    let taken = place.host.netns.run(|| TcpListener::bind("127.0.0.1:0")).unwrap().unwrap();
    let at = taken.local_addr().unwrap().to_string();
    place.refused(&["--proxy-addr", &at], TAKEN, &[&at]);

    // Once enrolled: the credentials are looked at before they are used.
    let pod = user.pod(&place.lab, &place.host, "agent", &proxy);
    pod.end();
    let credentials = user.dir.join("state/lattice/sandbox-credentials.json");
    fs::set_permissions(&credentials, fs::Permissions::from_mode(0o644)).unwrap();
    place.refused(&proxy, CREDENTIALS, &["sandbox-credentials.json"]);
    fs::set_permissions(&credentials, fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(&credentials, Some(UID + 1), Some(UID + 1)).unwrap();
    place.refused(&proxy, CREDENTIALS, &["sandbox-credentials.json"]);
    std::os::unix::fs::chown(&credentials, Some(UID), Some(UID)).unwrap();
    user.pod(&place.lab, &place.host, "agent", &proxy).end();
}
