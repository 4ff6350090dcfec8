//! A node with pods as CNI's ptp plugin makes them, a cluster's service and nameserver, and a tool on the overlay.

use std::{
    collections::HashMap,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use lattice_overlay::Netns;
use lattice_shim::{
    config::Config,
    network::{Network, Pod, Resolv},
    place::PodPlace,
};
use lattice_tests::{
    Host, Lab, Process,
    lab::wait_until,
    process::{command, patience},
};

pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// The address of the cluster's service.
pub(crate) const SERVICE: &str = "10.96.0.9";

/// Answers every question for an address with that of the service, whatever the name.
const NAMESERVER: &str = r"
import socket, struct, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('0.0.0.0', 53))
print('ready', flush=True)
while True:
    q, to = s.recvfrom(512)
    i = 12
    while q[i]: i += q[i] + 1
    kind, end = struct.unpack('!H', q[i+1:i+3])[0], i + 5
    a = b'\xc0\x0c' + struct.pack('!HHIH', 1, 1, 60, 4) + socket.inet_aton(sys.argv[1]) if kind == 1 else b''
    s.sendto(q[:2] + b'\x81\x80\0\1' + (b'\0\1' if a else b'\0\0') + b'\0\0\0\0' + q[12:end] + a, to)
";

/// A pod's namespace.
pub(crate) struct Made {
    pub(crate) netns: Netns,
    pub(crate) address: Ipv4Addr,
}

pub(crate) struct World {
    pub(crate) lab: Lab,
    pub(crate) node: Host,
    pub(crate) tool: IpAddr,
    _parts: Vec<Process>,
    pods: u8,
    enforcer: &'static str,
}

impl World {
    /// A node whose pods are policed by eBPF.
    pub(crate) fn new() -> Self {
        Self::by("ebpf")
    }

    /// A node whose pods are policed by that enforcer.
    pub(crate) fn by(enforcer: &'static str) -> Self {
        let mut lab = Lab::start();
        let (tool, node, service) = (lab.host(), lab.host(), lab.host());
        let (up, tool_ip) = lab.up(&tool, "tool");
        let mut parts = vec![up, lab.serve_http(&tool, 8080), lab.serve_http(&tool, 9090)];
        run(&service.netns, &format!("ip addr add {SERVICE}/32 dev lo"));
        parts.push(lab.serve_http(&service, 80));
        let mut nameserver = command(&service.netns.path(), Path::new("python3"));
        nameserver.args(["-c", NAMESERVER, SERVICE]);
        let mut nameserver = Process::spawn(nameserver, "nameserver", lab.dir.path());
        nameserver.wait_for("ready", LIMIT);
        parts.push(nameserver);
        for netns in [&service.netns, lab.hub()] {
            run(netns, &format!("ip route add 10.77.0.0/16 via {}", node.address));
        }
        run(&node.netns, &format!("ip route add 10.96.0.0/12 via {}", service.address));
        run(&node.netns, "sysctl -qw net.ipv4.ip_forward=1");
        fs::write(
            node.dir.join("resolv.conf"),
            format!("nameserver {}\nsearch default.svc.cluster.local\noptions ndots:5\n", service.address),
        )
        .unwrap();
        Self { lab, node, tool: tool_ip.into(), _parts: parts, pods: 1, enforcer }
    }

    /// What CNI's ptp plugin makes, by its steps.
    pub(crate) fn pod(&mut self) -> Made {
        self.pods += 1;
        let (netns, number) = (Netns::create().unwrap(), self.pods);
        let (address, inside) = (Ipv4Addr::new(10, 77, 0, number), netns.path());
        let node = &self.node.netns;
        run(node, &format!("ip link add pod{number} type veth peer name eth0 netns {}", inside.display()));
        for line in [
            "ip link set lo up".to_owned(),
            format!("ip addr add {address}/32 dev eth0"),
            "ip link set eth0 up".into(),
            "ip route add 10.77.0.1 dev eth0 scope link".into(),
            format!("ip route add default via 10.77.0.1 src {address}"),
        ] {
            run(&netns, &line);
        }
        for line in [
            format!("ip addr add 10.77.0.1/32 dev pod{number}"),
            format!("ip link set pod{number} up"),
            format!("ip route add {address} dev pod{number} scope link"),
        ] {
            run(node, &line);
        }
        Made { netns, address }
    }

    /// An IPv6 address for `pod`, as a dual-stack CNI plugin gives one; the node's end is `fd77::1`.
    pub(crate) fn add_ipv6(&self, pod: &Made) -> Ipv6Addr {
        let number = pod.address.octets()[3];
        let address = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, number.into());
        run(&self.node.netns, &format!("ip addr add fd77::1/128 dev pod{number} nodad"));
        run(&self.node.netns, &format!("ip route add {address} dev pod{number}"));
        run(&pod.netns, &format!("ip addr add {address}/128 dev eth0 nodad"));
        run(&pod.netns, "ip route add fd77::1 dev eth0");
        run(&pod.netns, &format!("ip route add default via fd77::1 src {address}"));
        address
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.node.dir
    }

    /// The node's shim.toml, and its token.
    pub(crate) fn config(&self, more: &str) -> String {
        let token = self.lab.token_file(&self.node);
        fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
        let dir = self.dir().display();
        format!(
            "state_dir = \"{dir}/run\"\n[lattice]\nserver = \"{}\"\ntoken_file = \"{}\"\ncredentials_dir = \"{dir}/pods\"\n\
             audit_dir = \"{dir}/audit\"\ncluster_domains = [\"cluster.local\"]\nservice_cidrs = [\"10.96.0.0/12\"]\n\
             wireguard = \"userspace\"\nenforcer = \"{}\"\n{more}\n",
            self.lab.server_url(),
            token.display(),
            self.enforcer,
        )
    }

    pub(crate) fn spec(&self, made: &Made, name: &str, annotations: &[(&str, &str)]) -> Pod {
        let pairs = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Pod {
            namespace: "default".into(),
            name: name.into(),
            uid: format!("uid-{name}"),
            netns: made.netns.path(),
            annotations: pairs.collect::<HashMap<_, _>>(),
            resolv_conf: Some(self.dir().join("resolv.conf")),
        }
    }

    pub(crate) fn start(&self, config: &str, pod: &Pod) -> Result<Network, lattice_bootstrap::Failure> {
        self.node.netns.run(|| start(config, pod)).unwrap()
    }

    /// The rules that open the tool's port.
    pub(crate) fn to_tool(&self, port: u16) -> String {
        format!("tcp:{}/32:{port}", self.tool)
    }

    /// Whether the node or another pod reaches a port of the pod.
    pub(crate) fn reaches(from: &Netns, to: impl Into<IpAddr>, port: u16) -> bool {
        connect(from, (to.into(), port).into(), Duration::from_secs(2)).is_ok()
    }

    pub(crate) fn end_control_plane(&mut self) {
        drop(self.lab.take_latticed());
    }
}

/// In the caller's namespace.
pub(crate) fn start(config: &str, pod: &Pod) -> Result<Network, lattice_bootstrap::Failure> {
    let config = Config::parse(config).unwrap();
    let place = PodPlace::new(&config.state_dir, "k8s.io", &pod.name).unwrap();
    place.create().unwrap();
    let resolv = Resolv::write(&config, pod, &place)?;
    Network::start(&config, pod, resolv, None)
}

impl Made {
    /// Waits until the tool answers: the first packets may come before the handshake.
    pub(crate) fn fetches(&self, url: &str) -> bool {
        let mut curl = command(&self.netns.path(), Path::new("curl"));
        let limit = patience(Duration::from_secs(30)).as_secs().to_string();
        curl.args(["-sf", "-o", "/dev/null", "-m", &limit, url]);
        curl.status().unwrap().success()
    }

    /// Whether the policy refuses it: with an answer, not by silence.
    pub(crate) fn is_refused(&self, to: &str, port: u16) -> bool {
        let to = SocketAddr::new(to.parse().unwrap(), port);
        let error = connect(&self.netns, to, LIMIT).unwrap_err();
        !matches!(error.kind(), std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock)
    }

    /// A service of the pod's.
    pub(crate) fn listen(&self) -> TcpListener {
        self.netns.run(|| TcpListener::bind("[::]:7000")).unwrap().unwrap()
    }

    /// Asks the resolver for an IPv4 address: the response code, and the first address.
    pub(crate) fn resolve(&self, name: &str) -> (u8, Option<Ipv4Addr>) {
        let mut question = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            question.push(u8::try_from(label.len()).unwrap());
            question.extend(label.bytes());
        }
        question.extend([0, 0, 1, 0, 1]);
        let socket = self.netns.run(|| UdpSocket::bind("127.0.0.1:0")).unwrap().unwrap();
        socket.set_read_timeout(Some(patience(LIMIT))).unwrap();
        socket.send_to(&question, "127.0.0.1:53").unwrap();
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer).unwrap();
        let address = (answer[7] > 0).then(|| *answer[..length].last_chunk::<4>().unwrap());
        (answer[3] & 15, address.map(Ipv4Addr::from))
    }

    /// The tables of nftables in it.
    pub(crate) fn tables(&self) -> String {
        let mut nft = command(&self.netns.path(), Path::new("nft"));
        let out = nft.args(["list", "tables"]).output().unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    pub(crate) fn links(&self) -> Vec<String> {
        lattice_overlay::link::links(&self.netns).unwrap().into_iter().map(|link| link.name).collect()
    }
}

pub(crate) fn connect(from: &Netns, to: SocketAddr, limit: Duration) -> std::io::Result<TcpStream> {
    from.run(|| TcpStream::connect_timeout(&to, patience(limit))).unwrap()
}

pub(crate) fn run(netns: &Netns, line: &str) {
    let mut words = line.split_whitespace();
    let program = PathBuf::from(words.next().unwrap());
    let out = command(&netns.path(), &program).args(words).output().unwrap();
    assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Everything of pods that is left on the node.
pub(crate) fn left(world: &World) -> Vec<String> {
    let mut left = lattice_tests::remains::of(&world.node);
    let keys = fs::read_dir(world.dir().join("pods")).into_iter().flatten().flatten();
    left.extend(keys.map(|entry| entry.path().display().to_string()));
    left.retain(|line| !line.contains("/run/shim/"));
    left
}

pub(crate) fn wait_for(what: &str, done: impl FnMut() -> bool) {
    wait_until(LIMIT, what, done);
}
