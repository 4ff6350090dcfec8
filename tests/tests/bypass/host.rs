//! What a host serves to itself, and its agents must not have: by any of its addresses, and by sockets in the file system.

use std::{fs, path::Path, time::Duration};

use lattice_policy::{Action, Reason};
use lattice_tests::{Process, lab::wait_until, process::command, sniffer};
use nix::mount::{MsFlags, mount};

use crate::{Enforcer, world::World};

const LIMIT: Duration = Duration::from_secs(60);
/// Docker, NATS, kubelet, metrics of containerd and of exporters.
const PORTS: [u16; 5] = [2375, 4222, 10250, 1338, 9090];
/// Of the runner, beside its lab address.
const OWN_6: &str = "fd50::3";
/// In the agent's own root directory, as somebody may have mounted it there.
const PLACE: &str = "/srv";

/// Says a line for each who comes. argv: a path, then ports.
const SERVICES: &str = "
import socket, sys, threading
def serve(name, listener):
    while True:
        listener.accept()[0].close()
        print('came', name, flush=True)
listeners = [(port, socket.create_server(('::', int(port)), family=socket.AF_INET6, dualstack_ipv6=True)) for port in sys.argv[2:]]
for path in sys.argv[1], '\\0lattice-of-the-host':
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    listeners.append((path, listener))
for one in listeners:
    threading.Thread(target=serve, args=one).start()
print('serves', flush=True)
";

/// A directory with a socket in it: on the host at [`PLACE`], and there in the agent's root file system. In the lab's own mount
/// namespace, which goes with this thread.
fn mounted(world: &World) -> std::path::PathBuf {
    let shared = world.lab.dir.path().join("shared");
    fs::create_dir(&shared).expect("a directory");
    fs::write(shared.join("marker"), "of the host").expect("a file");
    let root = lattice_tests::tools::rootfs();
    for to in [Path::new(PLACE), &root.join(PLACE.trim_start_matches('/'))] {
        mount(Some(&shared), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("a bind mount");
    }
    shared
}

#[test]
fn nothing_that_the_host_serves_to_itself_is_in_reach() {
    let world = World::new();
    let shared = mounted(&world);
    let mut services = command(&world.runner.netns.path(), Path::new("python3"));
    services.args(["-c", SERVICES]).arg(shared.join("socket")).args(PORTS.map(|port| port.to_string()));
    let mut services = Process::spawn(services, "services", world.lab.dir.path());
    services.wait_for("serves", LIMIT);

    let address = world.runner.address.to_string();
    let by = ["127.0.0.1", "::1", "0.0.0.0", OWN_6, &address];
    let mut attempts: Vec<String> =
        by.iter().flat_map(|ip| PORTS.map(|port| format!("tcp:{ip}:{port}"))).collect();
    attempts.extend([format!("unix:{PLACE}/socket"), "unix:@lattice-of-the-host".into()]);
    let marker = format!("read:{PLACE}/marker");
    let names: Vec<&str> = attempts.iter().map(String::as_str).chain([marker.as_str()]).collect();

    let (native, _) = world.natively_on(&world.runner, &names);
    let failed: Vec<_> = native.iter().filter(|result| result.result != "ok").collect();
    assert!(failed.is_empty(), "the twin could not either: {failed:?}");
    let came = || services.output().0.matches("came").count();
    wait_until(LIMIT, "all to have come", || came() >= attempts.len());
    let before = came();
    assert_eq!(before, attempts.len());
    for enforcer in Enforcer::ALL {
        let (results, _) = world.in_sandbox(enforcer, &names, enforcer.rules(&["0.0.0.0/0", "::/0"]));
        let result = |name: &str| results.iter().find(|result| result.name == name).map(|r| &*r.result);
        assert_eq!(result(&marker), Some("ok"), "the directory with the socket is there");
        for name in &attempts {
            let result = result(name).expect("it was tried");
            assert!(!["ok", "silence"].contains(&result), "{enforcer:?}: {name}: {result}");
        }
        // What an agent says to its own loopback leaves nothing, and so no record.
        let reason = match enforcer {
            Enforcer::Userspace => Reason::DefaultDeny,
            Enforcer::Ebpf | Enforcer::Nftables => Reason::Uplink,
        };
        let records = world.records();
        for port in PORTS {
            let denied = records.iter().any(|record| {
                record.dst_ip.to_string() == address
                    && (record.dst_port, record.action, record.reason) == (port, Action::Deny, reason)
            });
            assert!(denied, "{enforcer:?}: {port}: {records:#?}");
        }
    }
    sniffer::settle();
    assert_eq!(came(), before, "{}", services.output().0);
}
