"""Attempts to get past a policy. The same program runs in a sandbox and, as its native twin, on a bare host.

argv: the names of the attempts, some with what they are about behind a colon. One line of JSON for each: name, result, ms.
`ok` is what the attempt wanted; otherwise the error, or `silence` when nobody said no within the patience.
"""
import ctypes, errno, fcntl, json, os, socket, struct, subprocess, sys, time

PATIENCE = 5
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
    route.connect(("203.0.113.1", 9))
    own = route.getsockname()[0]
libc = ctypes.CDLL(None, use_errno=True)


def tcp(host, port, family=socket.AF_INET, prepare=lambda s: None):
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.settimeout(PATIENCE)
        prepare(s)
        s.connect((host, port))


def udp(host, port, family=socket.AF_INET, data=b"x", prepare=lambda s: None):
    """A datagram that nobody answers: it counts as sent when it was not refused while one waits a little."""
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        prepare(s)
        s.connect((host, port))
        s.send(data)
        s.settimeout(1)
        try:
            s.recv(1)
        except TimeoutError:
            pass


def v4(proto, to, source=None, payload=bytes(24), fragment=0, options=b""):
    words = 5 + len(options) // 4
    return struct.pack(
        "!BBHHHBBH4s4s", 0x40 | words, 0, words * 4 + len(payload), 7, fragment, 64, proto, 0,
        socket.inet_aton(source or own), socket.inet_aton(to),
    ) + options + payload


def raw(proto, to, **how):
    """With a header of our own. The kernel sums it."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as s:
        s.sendto(v4(proto, to, **how), (to, 0))


def datagram(port):
    return struct.pack("!HHHH", 1111, port, 16, 0) + b"payload!"


def raw6(to, next_header, payload):
    """Behind a header of our own (IPPROTO_RAW includes it)."""
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW) as s:
        head = struct.pack("!IHBB", 6 << 28, len(payload), next_header, 64)
        source = socket.inet_pton(socket.AF_INET6, "2001:db8:5::5")
        s.sendto(head + source + socket.inet_pton(socket.AF_INET6, to) + payload, (to, 0))


def protocol(kind, proto, to, port=443):
    with socket.socket(socket.AF_INET, kind, proto) as s:
        s.settimeout(PATIENCE)
        s.connect((to, port))
        s.send(b"x" * 16)


def frame(to):
    """Past routing and sockets, straight into the link, under a false protocol."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as s:
        s.sendto(v4(17, to, payload=datagram(53)), ("eth0", 0x0806, 0, 0, b"\xff" * 6))


def ping(to):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as s:
        s.connect((to, 0))
        s.send(struct.pack("!BBHHH", 8, 0, 0, 0, 1))
        s.settimeout(PATIENCE)
        s.recv(64)


def broadcast(to, port, family=socket.AF_INET):
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        if family == socket.AF_INET:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        link = next(index for index, name in socket.if_nameindex() if name != "lo")
        s.sendto(b"x", (to, port) if family == socket.AF_INET else (to, port, 0, link))


def fast_open(to, port):
    with socket.socket() as s:
        s.settimeout(PATIENCE)
        s.sendto(b"data on SYN", 0x20000000, (to, port))


def bound(to, port):
    tcp(to, port, prepare=lambda s: s.bind((own, 0)))


def to_device(to, port):
    tcp(to, port, prepare=lambda s: s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0\0"))


def marked(to, port):
    tcp(to, port, prepare=lambda s: s.setsockopt(socket.SOL_SOCKET, 36, 0x4C545243))


def source_routed(to, port):
    route = b"\x83\x07\x04" + socket.inet_aton(to) + b"\0"
    tcp(to, port, prepare=lambda s: s.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, route))


def spoofed(source, to, port):
    def prepare(s):
        s.setsockopt(socket.IPPROTO_IP, 19, 1)  # IP_TRANSPARENT
        s.bind((source, 0))
    udp(to, port, prepare=prepare)


def call(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "")


def netlink(family, kind, flags, body):
    """One request, and the kernel's word on it."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, family) as s:
        s.send(struct.pack("=IHHII", 16 + len(body), kind, flags | 5, 1, 0) + body)
        reply = s.recv(4096)
    (code,) = struct.unpack_from("=i", reply, 16)
    if code:
        raise OSError(-code, "")


def attach_queue():
    """A queueing discipline on loopback (RTM_NEWQDISC, `clsact`): where programs such as the policy's hang."""
    name = b"clsact\0"
    body = struct.pack("=BxxxiIII", 0, 1, 0xFFFF0000, 0xFFFFFFF1, 0)
    netlink(0, 36, 0x400, body + struct.pack("=HH", 4 + len(name), 1) + name + b"\0")


def delete_tables():
    """All tables of nftables (NFT_MSG_DELTABLE without a name, between the marks of a batch)."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as s:
        message = lambda kind, flags, resource: struct.pack("=IHHIIBBH", 20, kind, flags, 1, 0, 0, 0, resource)
        s.send(message(16, 1, 0x0A00) + message(0x0A02, 5, 0) + message(17, 1, 0x0A00))
        s.settimeout(PATIENCE)
        (code,) = struct.unpack_from("=i", s.recv(4096), 16)
        if code:
            raise OSError(-code, "")


def joined(group):
    """A group's member says so by IGMP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + socket.inet_aton(own))
        time.sleep(1)
    # That it has left is said twice, up to a second after each other (RFC 3376, 8.11): the last of it is this attempt's, too.
    time.sleep(2.5)


def as_other_root(to):
    """Who makes a user namespace has every capability in it."""
    if libc.unshare(0x10000000) < 0:
        raise OSError(ctypes.get_errno(), "")
    raw(17, to, payload=datagram(53))


def connected(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        s.connect("\0" + path[1:] if path.startswith("@") else path)


def target(text):
    host, port = text.rsplit(":", 1)
    tcp(host, int(port), socket.AF_INET6 if ":" in host else socket.AF_INET)


def read(path):
    with open(path, "rb") as f:
        f.read(1)


def rewritten(path):
    """With what is in it: it is about the right to."""
    with open(path, "r+") as f:
        text = f.read()
        f.seek(0)
        f.write(text)


def opened(path):
    os.close(os.open(path, os.O_WRONLY))


def seen(needle):
    """In the command line of another process."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                if pid != str(os.getpid()) and needle.encode() in f.read():
                    return
        except (FileNotFoundError, ProcessLookupError):
            pass
    raise OSError(errno.ESRCH, "")


def command(*words):
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise OSError(errno.EPERM, done.stderr)


def tun():
    device = "/dev/net/tun"
    if not os.path.exists(device):
        device = "/tmp/tun"
        os.mknod(device, 0o20600, os.makedev(10, 200))
    with open(device, "r+b", buffering=0) as f:
        fcntl.ioctl(f, 0x400454CA, struct.pack("16sH22x", b"tunnel", 0x1001))


def write(path, text):
    with open(path, "w") as f:
        f.write(text)


INET6, STREAM, DGRAM = socket.AF_INET6, socket.SOCK_STREAM, socket.SOCK_DGRAM
ATTEMPTS = {
    "tcp": lambda: tcp("203.0.113.1", 443),
    "static": lambda: command("busybox", "nc", "-w", "5", "203.0.113.12", "443"),
    "udp": lambda: udp("203.0.113.2", 9999),
    "ping": lambda: ping("203.0.113.3"),
    "private": lambda: tcp("10.99.0.1", 443),
    "bound": lambda: bound("203.0.113.4", 443),
    "to-device": lambda: to_device("203.0.113.5", 443),
    "marked": lambda: marked("203.0.113.6", 443),
    "source-routed": lambda: source_routed("203.0.113.8", 443),
    "fast-open": lambda: fast_open("203.0.113.9", 443),
    "quic": lambda: udp("203.0.113.7", 443),
    "next-port": lambda: tcp("203.0.113.7", 444),
    "big": lambda: udp("203.0.113.10", 9999, data=bytes(3000)),
    "v6-global": lambda: tcp("2001:db8::1", 443, INET6),
    "v6-local": lambda: tcp("fd99::1", 443, INET6),
    "v6-nat64": lambda: tcp("64:ff9b::cb00:7101", 443, INET6),
    "v6-6to4": lambda: tcp("2002:cb00:7101::1", 443, INET6),
    "v6-teredo": lambda: tcp("2001:0:cb00:7101::1", 443, INET6),
    "v6-mapped": lambda: tcp("::ffff:203.0.113.11", 443, INET6),
    "v6-udp": lambda: udp("2001:db8::2", 9999, INET6),
    "dns-udp": lambda: udp("198.51.100.53", 53),
    "dns-tcp": lambda: tcp("198.51.100.54", 53),
    "dot": lambda: tcp("198.51.100.55", 853),
    "doq": lambda: udp("198.51.100.56", 853),
    "odd-port": lambda: udp("198.51.100.57", 5300),
    "metadata": lambda: tcp("169.254.169.254", 80),
    "metadata-number": lambda: tcp("2852039166", 80),
    "metadata-v6": lambda: tcp("fd00:ec2::254", 80, INET6),
    "metadata-mapped": lambda: tcp("::ffff:169.254.169.254", 80, INET6),
    "metadata-alibaba": lambda: tcp("100.100.100.200", 80),
    "mdns": lambda: broadcast("224.0.0.251", 5353),
    "llmnr": lambda: broadcast("224.0.0.252", 5355),
    "ssdp": lambda: broadcast("239.255.255.250", 1900),
    "mdns-v6": lambda: broadcast("ff02::fb", 5353, INET6),
    "broadcast": lambda: broadcast("255.255.255.255", 9999),
    "raw-udp": lambda: raw(17, "203.0.113.20", payload=datagram(53)),
    "raw-sctp": lambda: raw(132, "203.0.113.21"),
    "raw-gre": lambda: raw(47, "203.0.113.22"),
    "raw-ipip": lambda: raw(4, "203.0.113.23", payload=v4(17, "203.0.113.23", payload=datagram(53))),
    "raw-igmp": lambda: raw(2, "203.0.113.24"),
    "raw-lite": lambda: raw(136, "203.0.113.25"),
    "raw-dccp": lambda: raw(33, "203.0.113.26"),
    "raw-esp": lambda: raw(50, "203.0.113.27"),
    "raw-first": lambda: raw(17, "203.0.113.28", payload=datagram(53)[:8], fragment=0x2000),
    "raw-later": lambda: raw(17, "203.0.113.29", fragment=0x0010),
    "raw-options": lambda: raw(17, "203.0.113.30", payload=datagram(53), options=b"\x94\x04\0\0"),
    "raw-v6-chain": lambda: raw6("2001:db8::30", 60, b"\x11\0" + bytes(6) + datagram(53)),
    "raw-spoofed": lambda: raw(17, "203.0.113.31", source="10.42.0.77", payload=datagram(53)),
    "spoofed": lambda: spoofed("10.42.0.78", "203.0.113.32", 53),
    "frame": lambda: frame("203.0.113.34"),
    "sctp": lambda: protocol(STREAM, 132, "203.0.113.35"),
    "udp-lite": lambda: protocol(DGRAM, 136, "203.0.113.36"),
    "mptcp": lambda: protocol(STREAM, 262, "203.0.113.37"),
    "joined": lambda: joined("224.0.0.99"),
    # A socket that whoever started the program left open: connected to 203.0.113.38.
    "inherited": lambda: os.write(9, b"x"),
    # Not a packet: the policy itself, the routes, the way around.
    "delete-route": lambda: command("ip", "route", "del", "default"),
    "add-route": lambda: command("ip", "route", "add", "203.0.113.40/32", "dev", "lo"),
    "link-down": lambda: command("ip", "link", "set", "lo", "down"),
    "add-link": lambda: command("ip", "link", "add", "way-out", "type", "bridge"),
    "forwarding": lambda: write("/proc/sys/net/ipv4/ip_forward", "1"),
    "ping-range": lambda: write("/proc/sys/net/ipv4/ping_group_range", "0 0"),
    "bpf": lambda: call(321, 0, struct.pack("IIII", 2, 4, 8, 1) + bytes(56), 72),
    "tun": tun,
    "queue": attach_queue,
    "tables": delete_tables,
    "other-root": lambda: as_other_root("203.0.113.41"),
    "new-netns": lambda: call(308, os.open("/proc/1/ns/net", os.O_RDONLY), 0x40000000),
}

ABOUT = {"tcp": target, "unix": connected, "read": read, "rewrite": rewritten, "open": opened, "seen": seen}


def run(name):
    begun = time.monotonic()
    try:
        kind, _, about = name.partition(":")
        ABOUT[kind](about) if about else ATTEMPTS[name]()
        result = "ok"
    except TimeoutError:
        result = "silence"
    except OSError as e:
        result = errno.errorcode.get(e.errno, str(e))
    except Exception as e:
        result = repr(e)
    print(json.dumps({"name": name, "result": result, "ms": (time.monotonic() - begun) * 1e3}), flush=True)


for name in sys.argv[1:]:
    run(name)
