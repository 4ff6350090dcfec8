use std::fs;

use crate::support::{Place, each_runsc, status_field, tree};

const NET_ADMIN: u64 = 1 << 12;
const NET_RAW: u64 = 1 << 13;

#[test]
fn the_agent_has_no_capability_and_gains_none() {
    each_runsc(|runsc| {
        let place = Place::new();
        let status = place.sh(runsc, "grep -E '^(Cap|NoNewPrivs)' /proc/self/status");
        for line in status.lines() {
            let value = line.split_once(':').unwrap().1.trim();
            let none = if line.starts_with("Cap") { "0000000000000000" } else { "1" };
            assert_eq!(value, none, "{line}");
        }
        assert!(status.contains("CapEff"), "{status}");
    });
}

#[test]
fn no_host_process_of_the_sandbox_may_change_the_network() {
    each_runsc(|runsc| {
        let place = Place::new();
        let (agent, ..) = place.start_and_await_line(runsc, &place.spec("echo up; exec sleep 600"));
        for pid in tree(agent.pid()) {
            for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                let Some(bits) = status_field(pid, set) else { continue };
                let bits = u64::from_str_radix(&bits, 16).unwrap();
                assert_eq!(bits & (NET_ADMIN | NET_RAW), 0, "{set} of {pid} is {bits:x}");
            }
        }
        let sentry = status_field(agent.sandbox_pid(), "CapEff").unwrap();
        eprintln!("the sentry's own CapEff: {sentry}");
    });
}

#[test]
fn nothing_of_ours_is_inherited() {
    each_runsc(|runsc| {
        let place = Place::new();
        let canary = tempfile::NamedTempFile::new().unwrap();
        // A descriptor that was left open across exec, as a careless library leaves it.
        let leaky = fs::File::open(canary.path()).unwrap();
        nix::fcntl::fcntl(&leaky, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
        let (agent, ..) = place.start_and_await_line(runsc, &place.spec("echo up; exec sleep 600"));
        for pid in tree(agent.pid()) {
            let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
            for descriptor in descriptors.flatten() {
                let target = fs::read_link(descriptor.path()).unwrap_or_default();
                assert_ne!(target, canary.path(), "{pid} holds our file");
            }
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let environ = String::from_utf8_lossy(&environ);
            assert!(!environ.contains("CARGO"), "{pid} has our environment: {environ}");
        }
    });
}

#[test]
fn the_environment_is_what_was_asked_for() {
    each_runsc(|runsc| {
        let place = Place::new();
        let mut spec = place.spec("env");
        spec.env = vec![("KEY".into(), "a=b c".into()), ("PATH".into(), "/bin".into())];
        let output = place.run(runsc, &spec).stdout;
        let mut names: Vec<_> =
            output.lines().filter(|line| !line.starts_with("SHLVL") && !line.starts_with("PWD")).collect();
        names.sort_unstable();
        assert_eq!(names, ["HOME=/root", "KEY=a=b c", "PATH=/bin"]);
    });
}

#[test]
fn the_user_is_the_one_asked_for() {
    each_runsc(|runsc| {
        let place = Place::new();
        let mut spec = place.spec("id -u; id -g; echo $HOME; hostname; touch /bin/x 2>/dev/null || echo refused; touch /tmp/x && echo tmp");
        (spec.uid, spec.gid) = (1000, 1001);
        assert_eq!(place.run(runsc, &spec).stdout, "1000\n1001\n/home/agent\nagent\nrefused\ntmp\n");
    });
}

#[test]
fn there_is_no_tun_and_no_way_to_change_the_network() {
    each_runsc(|runsc| {
        let place = Place::new();
        let tried = place.sh(
            runsc,
            "exec 2>/dev/null
             ls /dev/net/tun && echo tun
             mkdir -p /dev/net; mknod /dev/net/tun c 10 200; (exec 3<>/dev/net/tun) && echo open
             ip link set lo up && echo up
             ip addr add 192.0.2.1/24 dev lo && echo addr
             ip route add 192.0.2.0/24 dev lo && echo route
             mount -t tmpfs none /mnt && echo mount
             echo tried",
        );
        let lo_up = place.sh(runsc, "ip link show lo");
        assert!(!lo_up.contains("UP"), "the host's side of the namespace has changed: {lo_up}");
        for forbidden in ["tun", "open", "mount"] {
            assert!(!tried.lines().any(|line| line == forbidden), "{tried}");
        }
    });
}

#[test]
fn no_host_path_is_visible() {
    each_runsc(|runsc| {
        let place = Place::new();
        let seen = place
            .sh(runsc, "cat /proc/mounts /proc/self/mountinfo; ls -a /; cat /proc/1/cmdline /proc/cmdline");
        let host = place.rootfs();
        assert!(!seen.contains(host.to_str().unwrap()), "{seen}");
        assert!(!seen.contains(place.state().to_str().unwrap()), "{seen}");
    });
}
