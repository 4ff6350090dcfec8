use clap::Parser as _;

use super::*;
use crate::args::{Args, Command, SandboxCommand};

fn parsed(flags: &[&str]) -> Start {
    let command = ["lattice", "sandbox", "start", "--name", "a"].iter().chain(flags);
    match Args::try_parse_from(command).unwrap().command {
        Command::Sandbox(SandboxCommand::Start(start)) => *start,
        other => panic!("{other:?}"),
    }
}

#[test]
fn pod_mode_is_the_default_and_refuses_what_belongs_to_the_other() {
    for flag in [
        &["--agent-rootfs", "/"][..],
        &["--agent-binary", "/a"],
        &["--agent-args", "a"],
        &["--env", "A=b"],
        &["--workdir", "/"],
        &["--user", "0:0"],
        &["--memory", "1M"],
        &["--cpus", "1"],
        &["--pids-limit", "1"],
        &["--read-only"],
        &["--runsc", "/a"],
        &["--platform", "ptrace"],
        &["--enforcer", "auto"],
        &["--attach", "auto"],
        &["--", "sh"],
    ] {
        let refused = only_of_pod_mode(&parsed(flag)).unwrap_err();
        assert_eq!(refused.kind, Kind::Usage);
        let named = if flag[0] == "--" { "after '--'" } else { flag[0] };
        assert!(refused.message.contains(named) && refused.message.contains("--mode gvisor"), "{refused}");
    }
    assert!(only_of_pod_mode(&parsed(&["--wireguard", "kernel"])).is_err());
    assert_eq!(only_of_pod_mode(&parsed(&["--wireguard", "userspace", "--egress-default-deny"])), Ok(()));
}

#[test]
fn the_other_mode_refuses_the_flags_of_this_one() {
    for flag in [
        &["--proxy-addr", "127.0.0.1:1"][..],
        &["--proxy-auth-file", "/a"],
        &["--forward", "1:127.0.0.1:1"],
        &["--ready-file", "/a"],
        &["--health-addr", "127.0.0.1:1"],
    ] {
        assert_eq!(parsed(flag).pod.given(), Some(flag[0]));
    }
    assert_eq!(parsed(&[]).pod.given(), None);
}

#[test]
fn an_address_is_one_and_nothing_is_resolved() {
    for bad in ["localhost:1080", ":1080", "1080", "127.0.0.1", "::1:1080", "127.0.0.1:70000", ""] {
        let command = ["lattice", "sandbox", "start", "--name", "a", "--proxy-addr", bad];
        let told = Args::try_parse_from(command).unwrap_err().to_string();
        assert!(told.contains("such as 127.0.0.1:1080"), "{bad}: {told}");
    }
}

#[test]
fn a_proxy_for_strangers_is_refused_with_the_remedy() {
    for open in ["0.0.0.0:1080", "[::]:1080", "10.0.0.1:1080"] {
        let refused = proxy(&parsed(&["--proxy-addr", open]).pod).unwrap_err();
        assert_eq!(refused.kind, Kind::Usage);
        assert!(refused.message.contains("listen on 127.0.0.1:1080"), "{refused}");
        assert!(refused.message.contains("--proxy-auth-file"), "{refused}");
    }
    assert!(proxy(&parsed(&["--proxy-addr", "127.0.0.1:1080"]).pod).unwrap().is_some());
    assert!(proxy(&parsed(&[]).pod).unwrap().is_none());
    let lonely = proxy(&parsed(&["--proxy-auth-file", "/nonexistent"]).pod).unwrap_err();
    assert!(lonely.message.contains("--proxy-addr"), "{lonely}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("auth");
    std::fs::write(&file, "merlin:0123456789abcdef\n").unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let flags = ["--proxy-addr", "0.0.0.0:1080", "--proxy-auth-file", file.to_str().unwrap()];
    assert!(proxy(&parsed(&flags).pod).unwrap().is_some());
}
