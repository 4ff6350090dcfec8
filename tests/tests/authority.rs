//! What the control plane says holds at once at running sandboxes, and what it has said holds on without it: policies,
//! presets, removal, the end of a membership.

use std::{net::Ipv4Addr, time::Duration};

use lattice_tests::{Host, Lab, Prober, Process, agent, remains};

const LIMIT: Duration = Duration::from_secs(60);

fn up_with(lab: &Lab, host: &Host, name: &str, token_options: &[&str]) -> (Process, Ipv4Addr) {
    let mut create = vec!["token", "create", "--workspace", "demo"];
    create.extend(token_options);
    let token = host.dir.join("token");
    std::fs::write(&token, lab.admin(&create)).expect("the token's file");
    let mut lattice = lab.lattice(host);
    lattice.args(["up", "--name", name, "--token-file"]).arg(&token);
    let mut process = Process::spawn(lattice, name, lab.dir.path());
    process.wait_for("overlay IP=", LIMIT);
    let address = lattice_tests::lab::overlay_ip(&process.output().1);
    (process, address)
}

#[test]
fn a_policy_narrows_a_running_sandbox_and_its_removal_widens_it() {
    let mut lab = Lab::start();
    let (tool, runner) = (lab.host(), lab.host());
    let (_node, ip) = up_with(&lab, &tool, "tool", &["--label", "role=tool"]);
    let _services = [lab.serve_http(&tool, 8080), lab.serve_http(&tool, 9090)];
    let targets = [format!("{ip}:8080"), format!("{ip}:9090")];
    let [open, other] = [targets[0].as_str(), targets[1].as_str()];
    for enforcer in ["ebpf", "nftables", "userspace"] {
        let _none = std::fs::remove_file(runner.dir.join("audit.jsonl"));
        let mut start = agent::start(&lab, &runner, "a", &[&format!("{ip}/32")]);
        start.args(["--enforcer", enforcer]);
        let mut agent = Prober::run(start, &lab, "a", &targets);
        agent.await_results("both are reached", &[(open, "ok"), (other, "ok")]);

        let add = ["policy", "add", "web", "--workspace", "demo", "--selector", "kind=sandbox"];
        lab.admin(&[&add[..], &["--allow-egress", "tcp:{role=tool}:8080"]].concat());
        agent.await_results("one is refused", &[(open, "ok"), (other, "no")]);

        let deny = ["policy", "add", "freeze", "--workspace", "demo", "--selector", "name=a"];
        lab.admin(&[&deny[..], &["--deny-egress", "0.0.0.0/0"]].concat());
        agent.await_results("deny wins", &[(open, "no"), (other, "no")]);

        lab.admin(&["policy", "remove", "freeze", "--workspace", "demo"]);
        agent.await_results("one is open again", &[(open, "ok"), (other, "no")]);
        lab.admin(&["policy", "remove", "web", "--workspace", "demo"]);
        agent.await_results("both are open again", &[(open, "ok"), (other, "ok")]);

        let audit = std::fs::read_to_string(runner.dir.join("audit.jsonl")).unwrap();
        assert!(audit.lines().any(|line| line.contains("\"deny\"") && line.contains("freeze")), "{audit}");
        agent.end(&runner);
    }
}

#[test]
fn a_preset_is_a_cap_that_flags_cannot_widen() {
    let mut lab = Lab::start();
    let (tool, other, runner) = (lab.host(), lab.host(), lab.host());
    let (_tool, tool_ip) = up_with(&lab, &tool, "tool", &["--label", "role=tool"]);
    let (_other, other_ip) = up_with(&lab, &other, "other", &[]);
    let _services = [lab.serve_http(&tool, 8080), lab.serve_http(&other, 8080)];
    let token = lab.admin(&["token", "create", "--workspace", "demo", "--preset", "sandboxed"]);
    std::fs::write(runner.dir.join("token"), token).unwrap();

    let targets = [format!("{tool_ip}:8080"), format!("{other_ip}:8080")];
    let mut command = lab.lattice(&runner);
    command
        .args(["sandbox", "start", "--mode", "gvisor", "--name", "a", "--egress-allow", "0.0.0.0/0"])
        .arg("--audit-file")
        .arg(runner.dir.join("audit.jsonl"))
        .arg("--agent-rootfs")
        .arg(lattice_tests::tools::rootfs())
        .arg("--token-file")
        .arg(runner.dir.join("token"))
        .args(["--agent-binary", "/usr/local/bin/demo-agent", "--"])
        .args(targets.iter().map(|target| format!("http:{target}")));
    let out = Process::spawn(command, "a", lab.dir.path()).finish(LIMIT);
    let attempts = agent::attempts(&out.stdout);
    let results: Vec<&str> = attempts.iter().map(|attempt| attempt.result.as_str()).collect();
    assert_eq!(results[0], "ok", "{}", out.stderr);
    assert!(["EPERM", "ECONNREFUSED"].contains(&results[1]), "{results:?}{}", out.stderr);
    remains::assert_none(&runner);
}

#[test]
fn a_removed_peer_is_cut_off_at_the_other_end() {
    let mut lab = Lab::start();
    let (tool, runner) = (lab.host(), lab.host());
    let (mut node, ip) = up_with(&lab, &tool, "tool", &[]);
    let _service = lab.serve_http(&tool, 8080);
    let target = format!("{ip}:8080");
    let mut agent =
        Prober::start(&lab, &runner, "a", &[&format!("{ip}/32:8080")], std::slice::from_ref(&target));
    agent.await_results("the tool is reached", &[(&target, "ok")]);
    let peers = lab.admin(&["peer", "list", "--workspace", "demo", "--output", "json"]);
    let peers: serde_json::Value = serde_json::from_str(&peers).unwrap();
    let id = peers.as_array().unwrap().iter().find(|peer| peer["name"] == "tool").unwrap()["id"].clone();
    lab.admin(&["peer", "remove", id.as_str().unwrap()]);
    agent.await_results("the tool is gone", &[(&target, "no")]);
    // Its host is still up, and told why it is alone.
    node.wait_for("NATS refuses this peer", LIMIT);
    agent.end(&runner);
}

#[test]
fn a_membership_ends_at_its_peers_without_the_control_plane() {
    let mut lab = Lab::start();
    let (tool, runner) = (lab.host(), lab.host());
    let (_node, ip) = up_with(&lab, &tool, "tool", &["--peer-ttl", "12s"]);
    let _service = lab.serve_http(&tool, 8080);
    let target = format!("{ip}:8080");
    let mut agent =
        Prober::start(&lab, &runner, "a", &[&format!("{ip}/32:8080")], std::slice::from_ref(&target));
    agent.await_results("the tool is reached", &[(&target, "ok")]);
    // Renewed as long as the control plane is there.
    std::thread::sleep(Duration::from_secs(14));
    agent.await_results("the tool is still reached", &[(&target, "ok")]);
    drop(lab.take_latticed());
    agent.await_results("its time is over", &[(&target, "no")]);
    agent.end(&runner);
}
