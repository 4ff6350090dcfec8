//! A WebSocket through the proxy: a protocol that begins as HTTP and then goes on for long in both directions.

use lattice_tests::{Process, lab::wait_until, process::command};

use crate::world::{LIMIT, PYTHON, World};

const PORT: &str = "7090";
const PROGRAM: &str = include_str!("web_socket.py");

#[test]
fn a_web_socket_echoes_messages_of_every_length() {
    let world = World::new();
    let user = world.user("agent");
    let pod = world.pod(&user, "agent", &[]);
    let mut serve = command(&world.far.netns.path(), PYTHON.as_ref());
    serve.args(["-c", PROGRAM, "serve", PORT]);
    let server = Process::spawn(serve, "web-socket", world.lab.dir.path());
    wait_until(LIMIT, "the server", || server.output().0.contains("listens"));
    let proxy = pod.proxy().port().to_string();
    let out = world.agent(&user, PYTHON, &["-c", PROGRAM, "call", PORT, "far.lattice", &proxy]);
    assert_eq!((out.code, out.stdout.as_str()), (0, "upgraded\n3 messages\nclosed\n"), "{}", out.stderr);
    pod.end();
}
