//! A command at a terminal, and what is typed there.

use lattice_tests::process::command;

use crate::place::{LIMIT, Place};

/// Runs a command at a terminal of its own, types Ctrl-C as often as the first argument says once it has said `running`, and ends as it does.
const TERMINAL: &str = r"
import os, pty, sys, time
times, argv = int(sys.argv[1]), sys.argv[2:]
pid, terminal = pty.fork()
if pid == 0: os.execvp(argv[0], argv)
said = b''
def more():
    global said
    try: got = os.read(terminal, 4096)
    except OSError: got = b''
    said += got
    return got
while b'running' not in said and more(): pass
for _ in range(times):
    os.write(terminal, b'\x03')
    time.sleep(0.4)
while more(): pass
sys.stdout.write(said.decode())
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
";

#[test]
fn a_command_that_makes_nothing_of_ctrl_c_is_asked_by_the_second_and_killed_by_the_third() {
    let place = Place::new();
    let typed = |times: &str, trap: &str| {
        let script = format!("{trap}; echo running; while :; do sleep 0.05; done");
        let run = place.run(true, &["--isolate", "netns"], &["sh", "-c", &script]);
        let mut at_terminal = command(&place.host.netns.path(), "python3".as_ref());
        at_terminal.args(["-c", TERMINAL, times]).arg(run.get_program()).args(run.get_args());
        for (name, value) in run.get_envs() {
            match value {
                Some(value) => at_terminal.env(name, value),
                None => at_terminal.env_remove(name),
            };
        }
        at_terminal.env("TERM", "dumb");
        let out = lattice_tests::Process::spawn(at_terminal, "run", place.lab.dir.path()).finish(LIMIT);
        place.assert_clean();
        out
    };
    let once = typed("1", "trap 'echo typed; exit 3' INT");
    assert_eq!((once.code, once.stdout.matches("typed").count()), (3, 1), "{}", once.stdout);
    let twice = typed("2", "trap '' INT; trap 'exit 4' TERM");
    assert_eq!(twice.code, 4, "{}", twice.stdout);
    assert!(twice.stdout.contains("SIGTERM"), "{}", twice.stdout);
    let thrice = typed("3", "trap '' INT TERM");
    assert_eq!(thrice.code, 137, "{}", thrice.stdout);
}
