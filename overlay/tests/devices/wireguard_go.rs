//! A wireguard-go process on a host, configured over its UAPI socket
//! (<https://www.wireguard.com/xplatform/#configuration-protocol>).

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    os::unix::net::UnixStream,
    process::{Child, Command, Stdio},
};

use lattice_overlay::PeerConfig;

use crate::host::{Host, eventually};

pub(crate) struct WireGuardGo {
    pub(crate) host: Host,
    process: Child,
}

const PORT: u16 = 51820;

impl WireGuardGo {
    pub(crate) fn start(host: Host) -> Self {
        Self::start_as(host, "wireguard-go")
    }

    /// `program` is the one to run.
    pub(crate) fn start_as(host: Host, program: &str) -> Self {
        let netns = host.inside.path();
        // Its socket goes into a mount namespace of its own, and it dies with the test.
        let script = "mount -t tmpfs none /run && mkdir /run/wireguard && exec \"$0\" -f wg0";
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "nsenter"])
            .arg(format!("--net={}", netns.display()))
            .args(["unshare", "--mount", "sh", "-c", script, program])
            .env("WG_PROCESS_FOREGROUND", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("needs setpriv, nsenter and unshare (util-linux)");
        let started = Self { host, process };
        eventually("wireguard-go (is it installed?)", || started.connect().is_some());
        started
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn endpoint(&self) -> SocketAddr {
        SocketAddr::new(self.host.outer(), PORT)
    }

    pub(crate) fn config(&self) -> PeerConfig {
        PeerConfig { endpoints: vec![self.endpoint()], ..self.host.config() }
    }

    pub(crate) fn bring_up(&self) {
        self.host.bring_up();
    }

    pub(crate) fn set_peer(&self, peer: &Host, endpoint: Option<SocketAddr>) {
        let config = peer.config();
        let mut request = format!(
            "set=1\nprivate_key={}\nlisten_port={PORT}\npublic_key={}\n",
            hex(self.host.key.expose()),
            hex(&config.public_key.0)
        );
        if let Some(endpoint) = endpoint {
            writeln!(request, "endpoint={endpoint}").unwrap();
        }
        for net in config.allowed_ips {
            writeln!(request, "allowed_ip={net}").unwrap();
        }
        request.push('\n');
        let mut socket = self.connect().unwrap();
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        BufReader::new(socket).read_line(&mut answer).unwrap();
        assert_eq!(answer, "errno=0\n");
    }

    fn connect(&self) -> Option<UnixStream> {
        UnixStream::connect(format!("/proc/{}/root/run/wireguard/wg0.sock", self.id())).ok()
    }
}

impl Drop for WireGuardGo {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}
