//! What a probe is told, and what `lattice status` and `lattice sandbox rules` show the user.

use std::net::{SocketAddr, TcpListener};

use lattice_tests::{Process, lab::wait_until, tools};

use crate::world::{CLOSED_PAGE, LIMIT, PAGE, World};

/// Bounds the waiting for a minute's silence to be noticed.
const SILENCE: std::time::Duration = std::time::Duration::from_secs(120);

#[test]
fn probes_and_the_users_own_commands_see_what_is_true() {
    let mut world = World::new();
    let user = world.user("agent");
    // A port that is free: whoever asks for health must name it.
    let free = world.near.netns.run(|| TcpListener::bind("127.0.0.1:0")).unwrap().unwrap();
    let at: SocketAddr = free.local_addr().unwrap();
    drop(free);
    let pod = world.pod(&user, "agent", &["--health-addr", &at.to_string()]);
    let probe = |world: &World, path: &str| {
        let url = format!("http://{at}{path}");
        let out = world.agent(&user, "curl", &["-sS", "-m", "10", "-w", "\n%{http_code}", &url]);
        let (body, status) = out.stdout.rsplit_once('\n').expect("a status");
        (status.to_owned(), body.to_owned())
    };
    assert_eq!(probe(&world, "/healthz").0, "200");
    assert_eq!(probe(&world, "/readyz").0, "200");
    assert_eq!(probe(&world, "/secrets").0, "404");
    let client = world.client(&pod);
    assert_eq!(client.reply(world.far_ip, PAGE), 0);
    assert_eq!(client.reply(world.far_ip, CLOSED_PAGE), 2);
    let (status, metrics) = probe(&world, "/metrics");
    assert_eq!(status, "200");
    let counted = |action: &str| {
        let line = |line: &&str| line.contains(&format!("\"{action}\"")) && !line.starts_with('#');
        metrics.lines().filter(line).any(|line| !line.ends_with(" 0"))
    };
    assert!(counted("allow") && counted("deny"), "{metrics}");

    let own = |args: &[&str]| {
        let mut lattice = user.command(&world.near.netns, &tools::built("lattice"));
        lattice.args(args);
        Process::spawn(lattice, "lattice", world.lab.dir.path()).finish(LIMIT)
    };
    let status = own(&["status"]);
    assert!(status.code == 0 && status.stdout.contains("agent"), "{}{}", status.stdout, status.stderr);
    assert!(
        status.stdout.contains("cooperative"),
        "what can be avoided is not called anything else: {}",
        status.stdout
    );
    let rules = own(&["sandbox", "rules", "agent"]);
    assert!(
        rules.code == 0 && rules.stdout.contains(&format!("{}/32:{PAGE}", world.far_ip)),
        "{}{}",
        rules.stdout,
        rules.stderr
    );
    drop(world.lab.take_latticed());
    // It is believed to be there for a minute after it was last heard.
    wait_until(SILENCE, "the sandbox to be not ready", || probe(&world, "/readyz").0 == "503");
    assert_eq!(probe(&world, "/healthz").0, "200", "flows go on");
    world.lab.start_latticed();
    wait_until(SILENCE, "the sandbox to be ready again", || probe(&world, "/readyz").0 == "200");
    pod.end();
}
