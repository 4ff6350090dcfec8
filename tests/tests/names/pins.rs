//! An address that a name has opened is closed again when the answer's time is over. What began before goes on.

use std::path::Path;

use lattice_tests::{Clock, Process, lab::wait_until, process::command, remains};
use nix::sys::signal::Signal;

use crate::world::{LIMIT, SERVER, World};

/// Asks once, keeps a connection to the address, and tries new ones: `old <ok or error> new <ok or error>`, again and again.
const PROGRAM: &str = "
import errno, http.client, socket, sys, time
address = socket.getaddrinfo(sys.argv[1], 80, socket.AF_INET, socket.SOCK_STREAM)[0][4][0]
def dial():
    connection = http.client.HTTPConnection(address, 80, timeout=20)
    connection.connect()
    connection.auto_open = 0
    return connection
def page(connection):
    connection.request('GET', '/')
    return 'ok' if connection.getresponse().read() else 'empty'
def tried(work):
    try: return work()
    except http.client.HTTPException as error: return type(error).__name__
    except OSError as error: return errno.errorcode.get(error.errno, 'silence')
held = dial()
while True:
    print('old', tried(lambda: page(held)), 'new', tried(lambda: page(dial())), flush=True)
    time.sleep(0.3)
";

#[test]
fn a_connection_outlives_the_answer_that_opened_its_address_and_no_other_begins() {
    let Some(clock) = Clock::new() else { return };
    // Behind the kernel's by eighty seconds: a pin ends so much sooner for it.
    clock.boot(-80);
    let world = World::new();
    let mut twin = command(&world.runner.netns.path(), Path::new("python3"));
    twin.args(["-c", PROGRAM, "brief.example.com"]);
    let twin = Process::spawn(twin, "twin", world.lab.dir.path());
    let mut start = world.start(&["--enforcer", "ebpf"], &["tcp:brief.example.com:80"]);
    start.args(["--agent-binary", "/usr/bin/python3", "--", "-c", PROGRAM, "brief.example.com"]);
    clock.give(&mut start);
    let mut agent = Process::spawn(start, "agent", world.lab.dir.path());
    agent.wait_for("old ok new ok\n", LIMIT);
    let refused = |line: &str| ["old ok new ECONNREFUSED", "old ok new EPERM"].contains(&line);
    wait_until(LIMIT, "the address to be closed", || agent.output().0.lines().any(refused));
    let lines = || agent.output().0.lines().map(str::to_owned).collect::<Vec<_>>();
    let after = lines().len() + 3;
    wait_until(LIMIT, "three more", || lines().len() > after);
    let first = lines().iter().position(|line| refused(line)).expect("a refusal");
    let wrong: Vec<String> = lines().into_iter().skip(first).filter(|line| !refused(line)).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    let of_twin = twin.output().0;
    assert!(of_twin.lines().count() > 3 && of_twin.lines().all(|line| line == "old ok new ok"), "{of_twin}");
    let text = std::fs::read_to_string(world.audit()).expect("the records");
    // The last line may be half written.
    let records = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut verdicts: Vec<String> = records
        .filter(|record| record["dstIP"] == SERVER)
        .map(|record| format!("{} {}", record["action"], record["reason"]).replace('"', ""))
        .collect();
    verdicts.dedup();
    assert_eq!(verdicts, ["allow rule-allow", "deny default-deny"]);
    agent.signal(Signal::SIGTERM);
    agent.finish(LIMIT);
    remains::assert_none(&world.runner);
}
