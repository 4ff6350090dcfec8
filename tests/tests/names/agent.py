"""An agent that uses names. argv: what to try; one line of JSON for each attempt.

    curl:URL             curl, to its end: `ok`, or its exit code (6: no such name, 7: no connection)
    tcp:ADDRESS:PORT     a connection
    name:NAME            getaddrinfo(3)
    udp:TYPE:NAME        a query of our own to the resolver, by UDP without EDNS; the result is the response code
    dns-tcp:TYPE:NAME    the same by TCP
"""
import errno, json, socket, struct, subprocess, sys

PATIENCE = 30
KINDS = {"A": 1, "NS": 2, "CNAME": 5, "MX": 15, "TXT": 16, "AAAA": 28, "SRV": 33, "HTTPS": 65, "ANY": 255}
CODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}


def curl(url):
    done = subprocess.run(["curl", "-sS", "-m", str(PATIENCE), url], capture_output=True, text=True)
    return "ok" if done.returncode == 0 else f"curl {done.returncode}", (done.stdout + done.stderr).strip()


def tcp(target):
    host, port = target.rsplit(":", 1)
    socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
    return "ok", ""


def name(target):
    found = socket.getaddrinfo(target, 80, type=socket.SOCK_STREAM)
    return "ok", sorted(entry[4][0] for entry in found)


def message(target):
    kind, host = target.split(":", 1)
    labels = b"".join(bytes([len(label)]) + label.encode() for label in host.split("."))
    return struct.pack("!HHHHHH", 77, 0x0100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, KINDS[kind], 1)


def told(reply):
    (flags, _, answers) = struct.unpack_from("!HHH", reply, 2)
    truncated = " truncated" if flags & 0x200 else ""
    return CODES[flags & 15] + truncated, answers


def udp(target):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(PATIENCE)
        s.connect(("127.0.0.1", 53))
        s.send(message(target))
        return told(s.recv(65535))


def dns_tcp(target):
    with socket.create_connection(("127.0.0.1", 53), PATIENCE) as s, s.makefile("rb") as replies:
        query = message(target)
        s.sendall(struct.pack("!H", len(query)) + query)
        return told(replies.read(struct.unpack("!H", replies.read(2))[0]))


PROBES = {"curl": curl, "tcp": tcp, "name": name, "udp": udp, "dns-tcp": dns_tcp}
for probe in sys.argv[1:]:
    kind, target = probe.split(":", 1)
    try:
        result, detail = PROBES[kind](target)
    except socket.gaierror as e:
        result, detail = "no name", str(e)
    except TimeoutError:
        result, detail = "silence", ""
    except OSError as e:
        result, detail = errno.errorcode.get(e.errno, str(e)), ""
    print(json.dumps({"probe": probe, "result": result, "detail": detail}), flush=True)
