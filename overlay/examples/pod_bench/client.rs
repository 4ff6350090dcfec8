//! The clients that are compared: each is a process with a SOCKS5 proxy, and ends with the benchmark.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
};

use nix::{time::clock_getcpuclockid, unistd::Pid};

use crate::{
    lab::{FAR, Lab, MTU, NEAR, inner, key},
    load::Load,
    ours,
};

/// Which client.
pub(crate) enum Kind {
    /// What pod mode is made of: the device with a stack, its filter, and the proxy.
    Ours,
    /// wireguard-go with gVisor's stack; where its program is.
    Go(PathBuf),
}

/// A client that runs.
pub(crate) struct Client {
    child: Child,
    proxy: SocketAddr,
    /// Its end ends the client.
    _stdin: ChildStdin,
}

impl Kind {
    /// Those that can run here.
    pub(crate) fn here() -> Vec<Self> {
        let go = env::var_os("LATTICE_NETSTACK").filter(|path| !path.is_empty());
        if go.is_none() {
            println!(
                "no client to compare with: LATTICE_NETSTACK names none (make bench-pod builds it where Go is)"
            );
        }
        [Self::Ours].into_iter().chain(go.map(|path| Self::Go(path.into()))).collect()
    }

    /// What it is, in words.
    pub(crate) fn version(&self) -> String {
        match self {
            Self::Ours => "device with a stack, filter, proxy".into(),
            Self::Go(program) => {
                let output = Command::new(program).arg("version").output().expect("LATTICE_NETSTACK runs");
                String::from_utf8_lossy(&output.stdout).trim().to_owned()
            }
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Ours => "lattice",
            Self::Go(_) => "wireguard-go + gVisor",
        }
    }

    fn number(&self) -> u8 {
        match self {
            Self::Ours => NEAR[0],
            Self::Go(_) => NEAR[1],
        }
    }

    fn command(&self, lab: &Lab) -> Command {
        let number = self.number();
        match self {
            Self::Ours => {
                let mut command = Command::new(env::current_exe().unwrap());
                command.args([ours::CLIENT, &number.to_string(), &lab.far_endpoint().to_string()]);
                command
            }
            Self::Go(program) => {
                let mut command = Command::new(program);
                command.args([inner(number).to_string(), MTU.to_string()]);
                command
            }
        }
    }
}

impl Client {
    /// Starts it, and has it make its session with the far end.
    pub(crate) fn start(lab: &Lab, kind: &Kind) -> Self {
        let mut command = kind.command(lab);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // A child is born in the namespace of the thread that spawns it.
        let child = lab.near().run(|| command.spawn()).expect("the namespace stands");
        let mut child = child.expect("the client starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        if let Kind::Go(_) = kind {
            stdin.write_all(uapi(kind.number(), lab).as_bytes()).expect("the client reads");
        }
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe"))
            .read_line(&mut line)
            .expect("the client answers");
        let proxy = line.trim().parse().expect("the client says where its proxy is");
        let client = Self { child, proxy, _stdin: stdin };
        client.load(lab, &["hold", "1"]).numbers();
        client
    }

    /// A load that goes by this client.
    pub(crate) fn load(&self, lab: &Lab, arguments: &[&str]) -> Load {
        let (proxy, server) = (self.proxy.to_string(), lab.server().to_string());
        let mut all = vec![arguments[0], &proxy, &server];
        all.extend(&arguments[1..]);
        Load::start(Command::new(env::current_exe().unwrap()), lab.near(), &all)
    }

    /// What a load says, and the client's CPU time meanwhile, in seconds.
    pub(crate) fn spent(&self, lab: &Lab, load: &[&str]) -> (Vec<f64>, f64) {
        let before = self.cpu_seconds();
        let numbers = self.load(lab, load).numbers();
        (numbers, self.cpu_seconds() - before)
    }

    /// User and system time of all its threads, to the nanosecond where `/proc/PID/stat` counts in hundredths of a second.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let clock = clock_getcpuclockid(self.id()).expect("the client runs");
        let time = clock.now().expect("the client runs");
        time.tv_sec() as f64 + time.tv_nsec() as f64 * 1e-9
    }

    /// A figure of `proc_pid_status(5)`, in MiB.
    pub(crate) fn memory(&self, field: &str) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("the client runs");
        let value = status.lines().find_map(|line| line.strip_prefix(field)).expect("such a field");
        value.trim().trim_end_matches(" kB").parse::<f64>().expect("kB") / 1024.0
    }

    fn id(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A configuration as wireguard-go reads it: keys in hexadecimal, an empty line at the end.
fn uapi(number: u8, lab: &Lab) -> String {
    let hex = |key: &[u8; 32]| key.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!(
        "private_key={}\npublic_key={}\nendpoint={}\nallowed_ip={}/32\n\n",
        hex(key(number).expose()),
        hex(&key(FAR).public().0),
        lab.far_endpoint(),
        inner(FAR),
    )
}
