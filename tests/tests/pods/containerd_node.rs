//! A node with containerd and our shim, whose pods have an identity each: a real control plane, and a tool that they may reach.

use std::{fs, path::PathBuf, time::Duration};

use lattice_audit::{Entry, FlowRecord};
use lattice_shim::place::Record;
use lattice_tests::{
    Lab, Process,
    containerd::{Container, Daemon, Options, Pod, Runtime},
    tools,
};

use crate::world::wait_for;

const LIMIT: Duration = Duration::from_secs(60);

/// A node of a lab, with a tool that its pods may reach at port 8080.
pub(crate) struct Node {
    // The pods end before the network they are in.
    pub(crate) daemon: Daemon,
    /// Its address in the overlay.
    pub(crate) tool: String,
    token: String,
    _parts: Vec<Process>,
    pub(crate) lab: Lab,
}

impl Node {
    pub(crate) fn new(has_token: bool) -> Self {
        let mut lab = Lab::start();
        let daemon = Daemon::start(Runtime::Lattice);
        let tool = lab.host();
        let (up, tool_ip) = lab.up(&tool, "tool");
        let parts = vec![up, lab.serve_http(&tool, 8080)];
        let token = lab.admin(&["token", "create", "--workspace", "demo", "--uses", "1000"]);
        let mut more = format!(
            "wireguard = \"auto\"\nenforcer = \"ebpf\"\negress_allow = [\"10.42.0.0/16\"]\negress_default = [\"tcp:{tool_ip}/32:8080\"]\n"
        );
        if has_token {
            let file = daemon.dir.path().join("token");
            let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            fs::write(&file, &token).and_then(|()| fs::set_permissions(&file, private)).unwrap();
            more.push_str(&format!("token_file = \"{}\"\n", file.display()));
        }
        daemon.join(&mut lab, &more);
        Self { daemon, tool: tool_ip.to_string(), token, _parts: parts, lab }
    }

    /// A container with the host's python.
    pub(crate) fn agent(&self, pod: &Pod<'_>, with_token: bool) -> Container {
        let mounts = ["/usr", "/lib", "/lib64"].map(|dir| (PathBuf::from(dir), dir.to_owned(), true));
        let token = with_token.then(|| ("LATTICE_TOKEN".to_owned(), self.token.clone()));
        let env = token.into_iter().collect();
        pod.start("agent", &Options { mounts: mounts.to_vec(), env, ..Options::default() })
    }

    pub(crate) fn record(&self, pod: &Pod<'_>) -> Record {
        let path = self.daemon.inside.path(format!("/run/lattice/shim/k8s.io/{}/pod.json", pod.id));
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    /// The group whose calls are policed: ours, or runsc's where it has version 2.
    pub(crate) fn group(&self, pod: &Pod<'_>) -> PathBuf {
        let record = self.record(pod);
        let groups = record.fence.iter().chain(&record.cgroups).map(|group| self.daemon.inside.path(group));
        groups.into_iter().find(|group| group.join("cgroup.events").exists()).expect("a group of version 2")
    }

    pub(crate) fn lattice(&self, words: &[&str]) -> String {
        let out = self.daemon.inside.run(tools::built("lattice"), words, LIMIT);
        out.stdout + &out.stderr
    }

    pub(crate) fn flows(&self, peer: &str) -> Vec<FlowRecord> {
        let file = self.daemon.dir.path().join(format!("audit/{peer}.jsonl"));
        let entries = lattice_audit::read(&file).unwrap();
        let flows = entries.filter_map(|entry| match entry.unwrap() {
            Entry::Flow(flow) => Some(flow),
            Entry::Gap(_) => None,
        });
        flows.collect()
    }
}

/// Waits until the node has neither state of the peer nor of any pod.
pub(crate) fn assert_gone(node: &Node, peer: &str) {
    let state = node.daemon.inside.path(format!("/run/lattice/sandboxes/{peer}"));
    wait_for("the sandbox's state to go", || !state.exists());
    wait_for("the pod's state to go", || {
        let pods = node.daemon.inside.path("/run/lattice/shim/k8s.io");
        fs::read_dir(pods).map_or(true, |mut pods| pods.next().is_none())
    });
}
