"""Uses up what a sandbox has, then tries the same as before. argv: the tool, which serves an echo at port 8080.

Allowed are TCP 8080 and UDP 10000 to 39999 of the tool. One line of JSON for each step: name, result, ms.
"""
import errno, json, resource, socket, sys, time

tool = sys.argv[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)


def step(name, work):
    begun = time.monotonic()
    try:
        result = work()
    except TimeoutError:
        result = "silence"
    except OSError as e:
        result = errno.errorcode.get(e.errno, str(e))
    print(json.dumps({"name": name, "result": str(result), "ms": (time.monotonic() - begun) * 1e3}), flush=True)


def dial(port=8080):
    return socket.create_connection((tool, port), 20)


def echo(s):
    s.sendall(b"x")
    return "ok" if s.recv(1) == b"x" else "end"


def datagrams(ports):
    """One to each. What comes back of an earlier one is told at a later call, which then has to be made again."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.setblocking(False)
        for port in ports:
            for _ in range(3):
                try:
                    s.sendto(b"x", (tool, port))
                    break
                except OSError:
                    pass
    return len(ports)


def connections(most):
    """As many as there may be."""
    for _ in range(most):
        try:
            crowd.append(dial())
        except OSError as e:
            return f"{len(crowd)}, then {errno.errorcode.get(e.errno, e)}"
    return len(crowd)


def sockets(most):
    """Every local port, as far as there are descriptors."""
    for _ in range(most):
        try:
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            s.bind(("", 0))
            crowd.append(s)
        except OSError as e:
            return f"{len(crowd)}, then {errno.errorcode.get(e.errno, e)}"
    return len(crowd)


def denied():
    dial(9090).close()
    return "ok"


def denied_datagram():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect((tool, 9090))
        s.send(b"x")
        s.settimeout(1)
        s.recv(1)
    return "ok"


def free():
    while crowd:
        crowd.pop().close()


crowd = []
held = dial()
step("before", lambda: echo(held))
step("denied-before", denied)
for name, work in (
    ("allowed-flows", lambda: datagrams(range(10000, 30000))),
    ("denied-flows", lambda: datagrams(range(40000, 60000))),
    ("connections", lambda: connections(1500)),
    ("ports", lambda: sockets(30000)),
):
    step(name, work)
    step(f"held-after-{name}", lambda: echo(held))
    # A place for one, where the last was taken.
    if crowd:
        crowd.pop().close()
    step(f"denied-after-{name}", denied)
    step(f"datagram-after-{name}", denied_datagram)
    free()
    step(f"allowed-after-{name}", lambda: echo(dial()))
