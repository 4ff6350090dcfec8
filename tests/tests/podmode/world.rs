//! What the cases share: a lab, a user's sandbox on one host, and services on another.

use std::{net::Ipv4Addr, path::Path, time::Duration};

use lattice_tests::{Host, Lab, Output, Pod, Process, User};

use crate::{
    client::{Client, PATIENCE},
    services::Services,
};

/// Bounds every wait of a case.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// A user who is in no `/etc/passwd`.
pub(crate) const UID: u32 = 12_345;

/// One that every user may run; the first on PATH may be root's own.
pub(crate) const PYTHON: &str = "/usr/bin/python3";

/// A page at the far host that rules name, and one that none does.
pub(crate) const PAGE: u16 = 8080;
pub(crate) const CLOSED_PAGE: u16 = 9090;

pub(crate) struct World {
    pub(crate) services: Services,
    pub(crate) far_ip: Ipv4Addr,
    _node: Process,
    pub(crate) far: Host,
    pub(crate) near: Host,
    pub(crate) lab: Lab,
}

impl World {
    pub(crate) fn new() -> Self {
        let mut lab = Lab::start();
        let (near, far) = (lab.host(), lab.host());
        let (node, far_ip) = lab.up(&far, "far");
        let services = Services::start(&far.netns, &[PAGE, CLOSED_PAGE]);
        Self { services, far_ip, _node: node, far, near, lab }
    }

    pub(crate) fn user(&self, folder: &str) -> User {
        User::new(&self.lab, &self.near, UID, folder)
    }

    /// A sandbox on the near host with a proxy on loopback, which may reach every service of the far host but one page.
    pub(crate) fn pod(&self, user: &User, name: &str, more: &[&str]) -> Pod {
        let rules = [format!("{}/32:{PAGE}", self.far_ip), format!("{}/32:7000-7099", self.far_ip)];
        let allow = rules.iter().flat_map(|rule| ["--egress-allow", rule]);
        let all: Vec<&str> =
            ["--proxy-addr", "127.0.0.1:0"].into_iter().chain(allow).chain(more.iter().copied()).collect();
        user.pod(&self.lab, &self.near, name, &all)
    }

    /// A client in the near host's namespace, at the sandbox's proxy.
    pub(crate) fn client<'a>(&'a self, pod: &Pod) -> Client<'a> {
        Client { netns: &self.near.netns, proxy: pod.proxy(), credentials: None, limit: PATIENCE }
    }

    /// Runs a program as an agent does: by the user, on the near host.
    pub(crate) fn agent(&self, user: &User, program: &str, args: &[&str]) -> Output {
        self.agent_within(LIMIT, user, program, args)
    }

    /// As [`World::agent`], for what may take longer.
    pub(crate) fn agent_within(&self, limit: Duration, user: &User, program: &str, args: &[&str]) -> Output {
        let mut command = user.command(&self.near.netns, Path::new(program));
        command.args(args);
        Process::spawn(command, "agent", self.lab.dir.path()).finish(limit)
    }

    /// curl by SOCKS, names resolved behind the proxy.
    pub(crate) fn curl(&self, user: &User, proxy: &str, url: &str) -> Output {
        self.agent(user, "curl", &["-sS", "-m", "20", "--proxytunnel", "--proxy", proxy, url])
    }

    /// The id of a peer.
    pub(crate) fn peer(&self, name: &str) -> String {
        let peers = self.lab.admin(&["peer", "list", "--workspace", "demo", "--output", "json"]);
        let peers: serde_json::Value = serde_json::from_str(&peers).expect("peers");
        let found = peers.as_array().and_then(|all| all.iter().find(|peer| peer["name"] == name));
        found.and_then(|peer| peer["id"].as_str()).expect("the peer").into()
    }
}
