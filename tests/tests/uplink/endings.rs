//! However a sandbox ends, the host is as it was before.

use lattice_tests::{Process, lab::wait_until};
use nix::sys::signal::Signal;

use crate::world::{Field, LIMIT, PORT, SERVER};

#[test]
fn what_a_kill_leaves_is_removed_by_doctor_and_by_the_next_start() {
    let field = Field::new();
    let rule = format!("{SERVER}/32:{PORT}");
    for by_doctor in [true, false] {
        let visitor = field.visitor("a", &[&rule]);
        visitor.signal(Signal::SIGKILL);
        visitor.finish(LIMIT);
        wait_until(LIMIT, "the link to go with its namespace", || {
            !field.on_runner("ip", &["-o", "link"]).contains("lattice-")
        });
        assert!(!field.traces().is_empty(), "else this test proves nothing");
        if by_doctor {
            let out = field.lab.run(&field.runner, &["doctor", "--fix"]);
            assert!(out.stdout.contains("removed: a"), "{}{}", out.stdout, out.stderr);
        } else {
            let mut command = field.start("a", &[]);
            command.args(["--agent-binary", "/bin/true"]);
            let out = field.finish(command);
            assert!(out.code == 0 && out.stderr.contains("killed run"), "{}", out.stderr);
        }
        field.assert_clean();
    }
}

#[test]
fn a_signal_at_any_phase_leaves_nothing() {
    let field = Field::new();
    for step in ["veth", "policy", "links", "uplink", "peers"] {
        let mut command = field.start("a", &["0.0.0.0/0"]);
        command.args(["--agent-binary", "/bin/sleep", "--", "60"]);
        let mut process = Process::spawn(command, "a", field.lab.dir.path());
        process.wait_for(&format!("] {step} "), LIMIT);
        process.signal(Signal::SIGTERM);
        let out = process.finish(LIMIT);
        assert!([75, 143].contains(&out.code), "after {step}: {} {}", out.code, out.stderr);
        field.assert_clean();
    }
}
