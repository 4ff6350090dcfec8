use std::io::Read;

use lattice_runsc::RunscError;
use nix::sys::signal::Signal;

use crate::support::{Place, each_runsc, status_field, tree};

#[test]
fn exit_codes_and_output_pass_through() {
    each_runsc(|runsc| {
        let place = Place::new();
        let output = place.run(runsc, &place.spec("echo out; echo err >&2; exit 7"));
        assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (7, "out\n", "err\n"));
        assert_eq!(place.run(runsc, &place.spec("exit 0")).code, 0);
        assert_eq!(place.run(runsc, &place.spec("exit 128")).code, 128);
        assert_eq!(place.run(runsc, &place.spec("exec sh -c 'kill -TERM $$; sleep 9'")).code, 143);
        assert!(place.left().is_empty());
    });
}

#[test]
fn signals_reach_the_agent() {
    each_runsc(|runsc| {
        let place = Place::new();
        let spec = place.spec("trap 'echo got; exit 3' TERM; echo up; while :; do sleep 0.05; done");
        let (mut agent, line, mut out) = place.start_and_await_line(runsc, &spec);
        assert_eq!(line, "up");
        let handle = agent.signaller();
        agent.signal(Signal::SIGTERM).unwrap();
        assert_eq!(agent.wait().unwrap(), 3);
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "got\n");
        assert!(matches!(handle.send(Signal::SIGTERM), Err(RunscError::Ended(_))));
        drop(agent);
        assert!(place.left().is_empty());
    });
}

#[test]
fn a_signal_sent_at_once_is_not_lost() {
    each_runsc(|runsc| {
        let place = Place::new();
        let (mut agent, _out, _err) = place.start(runsc, &place.spec("exec sleep 600"));
        agent.signal(Signal::SIGTERM).unwrap();
        assert_eq!(agent.wait().unwrap(), 143);
    });
}

#[test]
fn a_dropped_agent_leaves_nothing() {
    each_runsc(|runsc| {
        let place = Place::new();
        let (agent, ..) = place.start_and_await_line(runsc, &place.spec("echo up; sleep 600 & sleep 600"));
        let pids = tree(agent.pid());
        assert!(pids.len() >= 3 && pids.contains(&agent.sandbox_pid()), "runsc, sentry, gofer: {pids:?}");
        drop(agent);
        for pid in pids {
            assert_eq!(status_field(pid, "Pid"), None, "{pid} still runs");
        }
        assert!(place.left().is_empty());
    });
}

#[test]
fn two_at_once_and_one_name_once() {
    each_runsc(|runsc| {
        let place = Place::new();
        let mut spec = place.spec("echo up; exec sleep 600");
        let (first, ..) = place.start_and_await_line(runsc, &spec);
        let taken = runsc.start(&place.ready(), &spec, &place.state()).unwrap_err();
        assert!(matches!(taken, RunscError::NameTaken(_)), "{taken}");
        spec.name = "other".into();
        let (second, ..) = place.start_and_await_line(runsc, &spec);
        drop(first);
        assert!(status_field(second.sandbox_pid(), "Pid").is_some(), "the other one goes on");
        drop(second);
        assert!(place.left().is_empty());
    });
}

#[test]
fn a_program_that_cannot_be_executed_is_runscs_reason() {
    each_runsc(|runsc| {
        let place = Place::new();
        let mut spec = place.spec("");
        spec.binary = "/etc/garbage".into();
        std::fs::write(place.rootfs().join("etc/garbage"), "\x7fELF garbage").unwrap();
        let chmod = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(place.rootfs().join("etc/garbage"), chmod).unwrap();
        let (mut agent, _out, _err) = place.start(runsc, &spec);
        let error = agent.wait().unwrap_err();
        assert!(matches!(error, RunscError::Runsc { .. }), "{error}");
        assert!(!error.to_string().contains('\n'), "{error}");
        eprintln!("{error}");
        drop(agent);
        assert!(place.left().is_empty());
    });
}

#[test]
fn a_namespace_that_is_gone_is_an_error() {
    each_runsc(|runsc| {
        let place = Place::new();
        let gone = lattice_bootstrap::Ready::for_tests("/proc/self/fd/99999".into());
        let error = runsc.start(&gone, &place.spec("true"), &place.state()).unwrap_err();
        eprintln!("{error}");
        assert!(matches!(error, RunscError::Runsc { .. }), "{error}");
        assert!(place.left().is_empty());
    });
}
