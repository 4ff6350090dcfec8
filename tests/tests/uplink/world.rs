//! A runner whose way out of the overlay is a server, and sandboxes on it.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use lattice_tests::{Attempt, Host, Lab, Output, Process, agent, lab::wait_until, process, remains};
use serde_json::Value;

pub(crate) const LIMIT: Duration = Duration::from_secs(60);
pub(crate) const REFUSED: [&str; 3] = ["EPERM", "ECONNREFUSED", "EHOSTUNREACH"];
/// Addresses of the server, as of the Internet.
pub(crate) const SERVER: &str = "203.0.113.7";
pub(crate) const NEIGHBOUR: &str = "203.0.113.8";
pub(crate) const SERVER_6: &str = "2001:db8:7::7";
pub(crate) const PORT: u16 = 8443;

/// A runner whose way to everything else is the server. No overlay peers are needed.
pub(crate) struct Field {
    pub(crate) lab: Lab,
    pub(crate) server: Host,
    pub(crate) runner: Host,
    _services: [Process; 2],
}

impl Field {
    pub(crate) fn new() -> Self {
        let mut lab = Lab::start();
        let (server, runner) = (lab.host(), lab.host());
        let own = [SERVER, NEIGHBOUR].map(|ip| format!("addr add {ip}/32 dev lo"));
        let via = format!("route add default via {}", server.address);
        for (host, command) in [
            (&server, own[0].as_str()),
            (&server, &own[1]),
            (&server, &format!("addr add {SERVER_6}/128 dev lo")),
            (&server, "addr add 2001:db8:50::1/64 dev eth0 nodad"),
            (&runner, "addr add 2001:db8:50::2/64 dev eth0 nodad"),
            (&runner, &via),
            (&runner, "-6 route add default via 2001:db8:50::1"),
        ] {
            let words: Vec<&str> = command.split_whitespace().collect();
            let out = lab.on(host, "ip", &words);
            assert_eq!(out.code, 0, "ip {command}: {}", out.stderr);
        }
        // The lab takes after the machine; strict filters must be no hindrance.
        for setting in ["forwarding=0", "rp_filter=1"] {
            let out = lab.on(&runner, "sysctl", &["-qw", &format!("net.ipv4.conf.all.{setting}")]);
            assert_eq!(out.code, 0, "{}", out.stderr);
        }
        let services = [PORT, PORT + 1].map(|port| serve(&lab, &server, port));
        Self { lab, server, runner, _services: services }
    }

    /// A sandbox on the runner with credentials of its own, still without an agent binary.
    pub(crate) fn start(&self, name: &str, rules: &[&str]) -> Command {
        let home = self.runner.dir.join(name);
        fs::create_dir_all(&home).expect("a directory");
        let mut command = self.lab.lattice(&self.runner);
        command.args(["sandbox", "start", "--mode", "gvisor", "--name", name, "--audit-file"]);
        command.arg(home.join("audit.jsonl")).env("LATTICE_CONFIG_DIR", home.join("etc"));
        command.arg("--agent-rootfs").arg(lattice_tests::tools::rootfs());
        for rule in rules {
            command.args(["--egress-allow", rule]);
        }
        if !home.join("etc/sandbox-credentials.json").exists() {
            command.arg("--token-file").arg(self.lab.token_file(&self.runner));
        }
        command
    }

    pub(crate) fn finish(&self, command: Command) -> Output {
        Process::spawn(command, "agent", self.lab.dir.path()).finish(LIMIT)
    }

    pub(crate) fn probe(&self, name: &str, rules: &[&str], probes: &[String]) -> (Vec<Attempt>, Output) {
        let mut command = self.start(name, rules);
        command.args(["--agent-binary", "/usr/local/bin/demo-agent", "--"]).args(probes);
        let out = self.finish(command);
        assert_eq!(out.code, 0, "{}{}", out.stdout, out.stderr);
        (agent::attempts(&out.stdout), out)
    }

    /// A sandbox that visits the server again and again, and is ready.
    pub(crate) fn visitor(&self, name: &str, rules: &[&str]) -> Process {
        let mut command = self.start(name, rules);
        let script = format!(
            "n=0; while :; do n=$((n+1)); curl -sf -m 5 -o /dev/null http://{SERVER}:{PORT}/ && echo visit $n; sleep 0.1; done"
        );
        command.args(["--agent-binary", "/bin/sh", "--", "-c", &script]);
        let mut process = Process::spawn(command, name, self.lab.dir.path());
        process.wait_for("visit 1\n", LIMIT);
        process
    }

    pub(crate) fn records(&self, name: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.runner.dir.join(name).join("audit.jsonl")).expect("the records");
        text.lines().map(|line| serde_json::from_str(line).expect("a record")).collect()
    }

    pub(crate) fn on_runner(&self, program: &str, args: &[&str]) -> String {
        let out = self.lab.on(&self.runner, program, args);
        assert_eq!(out.code, 0, "{program} {args:?}: {}", out.stderr);
        out.stdout
    }

    /// What uplinks have made of the runner.
    pub(crate) fn traces(&self) -> Vec<String> {
        let tables = self.on_runner("nft", &["list", "tables"]);
        let mut found: Vec<String> =
            tables.lines().filter(|line| line.contains("lattice")).map(str::to_owned).collect();
        let links = self.on_runner("ip", &["-o", "link"]);
        found.extend(links.lines().filter(|line| line.contains("lattice-")).map(str::to_owned));
        for setting in ["ipv4.conf.eth0.forwarding", "ipv6.conf.eth0.force_forwarding"] {
            let out = self.lab.on(&self.runner, "sysctl", &["-n", &format!("net.{setting}")]);
            if out.stdout.trim() == "1" {
                found.push(setting.into());
            }
        }
        found
    }

    pub(crate) fn assert_clean(&self) {
        remains::assert_none(&self.runner);
        assert_eq!(self.traces(), Vec::<String>::new());
    }
}

pub(crate) fn serve(lab: &Lab, host: &Host, port: u16) -> Process {
    let mut server = process::command(&host.netns.path(), Path::new("python3"));
    server.args(["-m", "http.server", "--bind", "::", &port.to_string(), "--directory"]).arg(&host.dir);
    let service = Process::spawn(server, "http", lab.dir.path());
    wait_until(LIMIT, "the HTTP service", || {
        host.netns.run(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()).unwrap_or(false)
    });
    service
}

/// `command` in a mount namespace after `setup`.
pub(crate) fn after(command: &Command, setup: &str) -> Command {
    let mut new = Command::new("unshare");
    new.args(["--mount", "sh", "-c", &format!("{setup} && exec \"$@\""), "sh"]);
    new.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => new.env(name, value),
            None => new.env_remove(name),
        };
    }
    new
}

/// Whether this kernel forwards IPv6 for single links.
pub(crate) fn has_ipv6() -> bool {
    let has = Path::new("/proc/sys/net/ipv6/conf/lo/force_forwarding").exists();
    if !has {
        println!("SKIPPED: IPv6 uplinks: this kernel has no force_forwarding (Linux 6.17)");
    }
    has
}
