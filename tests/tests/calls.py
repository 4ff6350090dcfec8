"""Calls of an agent. argv: what to call, `how:address:port`. One line for each: the word and its result."""
import errno, socket, sys, time


def family(host):
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def tcp(host, port):
    with socket.socket(family(host)) as s:
        s.settimeout(10)
        s.connect((host, port))


def send(host, port):
    with socket.socket(family(host), socket.SOCK_DGRAM) as s:
        s.sendto(b"x", (host, port))


def ask(host, port):
    """The usual way to find one's own address."""
    with socket.socket(family(host), socket.SOCK_DGRAM) as s:
        s.connect((host, port))
        assert s.getsockname()[0] != "0.0.0.0"


def answer(_, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("0.0.0.0", port))
        print("listens", flush=True)
        _, whom = s.recvfrom(16)
        s.sendto(b"answer", whom)


def until_refused(host, port):
    for _ in range(3000):
        try:
            tcp(host, port)
            print("reached", flush=True)
        except OSError as e:
            if e.errno == errno.EPERM:
                raise
        time.sleep(0.02)


def times(host, port):
    took = []
    for _ in range(300):
        begun = time.perf_counter()
        try:
            tcp(host, port)
        except OSError:
            took.append((time.perf_counter() - begun) * 1e6)
    took.sort()
    print(f"refused {len(took)} times: p50 {took[150]:.0f} us, p99 {took[297]:.0f} us", flush=True)


for word in sys.argv[1:]:
    how, rest = word.split(":", 1)
    host, _, port = rest.rpartition(":")
    try:
        globals()[how.replace("-", "_")](host, int(port))
        result = "ok"
    except OSError as e:
        result = errno.errorcode.get(e.errno, str(e))
    print(word, result, flush=True)
