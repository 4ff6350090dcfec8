//! The command under gVisor, without root.

use std::{fs, os::unix::net::UnixListener};

use lattice_tests::{Process, tools};
use nix::sys::signal::Signal;

use crate::{
    files::dir,
    place::{LIMIT, Place},
};

const AGENT: &str = r#"
import os, socket, sys
tool, home, bus = sys.argv[1:4]
def attempt(name, f):
    try: result = f()
    except OSError as e: result = type(e).__name__
    print(name + ': ' + str(result), flush=True)
def tcp(address, port):
    with socket.create_connection((address, port), timeout=20): return 'ok'
def unix():
    with socket.socket(socket.AF_UNIX) as s: s.connect(bus); return 'ok'
def write(path):
    with open(path, 'w') as file: file.write('x')
    return 'ok'
def read(path):
    with open(path) as file: return 'ok' if file.read(1) else 'empty'
attempt('kernel', lambda: 'gVisor' if 'gvisor' in open('/proc/version').read().lower() or os.uname().release.startswith('4.4') else os.uname())
attempt('allowed', lambda: tcp(tool, 8080))
attempt('by name', lambda: tcp('tool.lattice', 8080))
attempt('denied', lambda: tcp(tool, 9090))
attempt('bus', unix)
attempt('work', lambda: write('written'))
attempt('home', lambda: write(home + '/written'))
attempt('system', lambda: write('/etc/written'))
attempt('tmp', lambda: write('/tmp/written'))
attempt('token', lambda: read(home + '/token'))
attempt('credentials', lambda: read(os.path.dirname(home) + '/etc/sandbox-credentials.json'))
attempt('name', lambda: os.environ['LATTICE_SANDBOX_NAME'])
attempt('secrets', lambda: [k for k in os.environ if 'TOKEN' in k] or 'none')
sys.exit(9)
"#;

#[test]
fn a_command_runs_under_gvisor_and_reaches_what_it_may() {
    let mut place = Place::new();
    let home = place.path("home").display().to_string();
    dir(&place.path("home/work"));
    place.cwd = "home/work".into();
    let bus = place.path("home/bus");
    let _bus = UnixListener::bind(&bus).unwrap();
    let flags = ["--isolate", "gvisor", "--egress-allow", &place.allowed()];
    let run = |flags: &[&str], command: &[&str]| {
        let mut run = place.run(true, flags, command);
        if let Some(runsc) = tools::runsc() {
            run.env("LATTICE_RUNSC", runsc);
        }
        run
    };
    let (tool, bus) = (place.tool.to_string(), bus.display().to_string());
    let out = place.finish(run(&flags, &["/usr/bin/python3", "-c", AGENT, &tool, &home, &bus]));
    assert_eq!(out.code, 9, "{}{}", out.stdout, out.stderr);
    for line in [
        "kernel: gVisor",
        "allowed: ok",
        "by name: ok",
        "denied: ConnectionRefusedError",
        "work: ok",
        "tmp: ok",
        "token: empty",
        "credentials: FileNotFoundError",
        "name: agent",
        "secrets: none",
    ] {
        assert!(out.stdout.lines().any(|found| found == line), "{line:?} in\n{}{}", out.stdout, out.stderr);
    }
    for refused in ["bus", "home", "system"] {
        assert!(!out.stdout.contains(&format!("{refused}: ok")), "{}", out.stdout);
    }
    assert_eq!(fs::read_to_string(place.path("home/work/written")).unwrap(), "x");
    place.assert_clean();

    let missing = place.finish(run(&flags, &["/no/such/program"]));
    assert_eq!(missing.code, 127, "{}", missing.stderr);
    let trap = "trap 'echo asked; exit 5' TERM; echo running; while :; do sleep 0.05; done";
    let asked = run(&flags, &["/bin/sh", "-c", trap]);
    let mut asked = Process::spawn(asked, "run", place.lab.dir.path());
    asked.wait_for("running", LIMIT);
    asked.signal(Signal::SIGTERM);
    let out = asked.finish(LIMIT);
    assert_eq!((out.code, out.stdout.as_str()), (5, "running\nasked\n"), "{}", out.stderr);
    place.assert_clean();
}

#[test]
fn where_gvisor_does_not_run_the_user_is_told_why() {
    let place = Place::new();
    let mut run = place.run(true, &["--isolate", "gvisor"], &["true"]);
    run.env("LATTICE_RUNSC", "/bin/false");
    let out = place.finish(run);
    assert_eq!(out.code, 125, "{}", out.stderr);
    assert!(out.stderr.contains("runs nothing here"), "{}", out.stderr);
    assert!(!place.path("etc/sandbox-credentials.json").exists(), "before a token is spent");
    place.assert_clean();
}
