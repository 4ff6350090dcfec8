"""An internet in one process: a nameserver that prints what it is asked, and HTTP on every address.

argv: the zone, as JSON of `{name: [[type, data], …]}`; then the ports of HTTP.
"""
import http.server, json, socket, struct, sys, threading

ZONE = json.loads(sys.argv[1])
KINDS = {"A": 1, "CNAME": 5, "TXT": 16, "AAAA": 28}
NAMES = {number: kind for kind, number in KINDS.items()}
TTL = 300


def encoded(name):
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def data(kind, text):
    if kind == "CNAME":
        return encoded(text)
    return socket.inet_pton(socket.AF_INET if kind == "A" else socket.AF_INET6, text)


def answer(query):
    at, labels = 12, []
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode())
        at += 1 + query[at]
    name = owner = ".".join(labels).lower()
    (number,) = struct.unpack_from("!H", query, at + 1)
    print("query", name, NAMES.get(number, number), flush=True)
    records = b""
    count = 0
    for _ in range(12):
        alias = None
        for kind, text in ZONE.get(owner, []):
            if KINDS[kind] not in (number, 5):
                continue
            value = data(kind, text)
            ttl = 1 if owner.startswith("brief.") else TTL
            records += encoded(owner) + struct.pack("!HHIH", KINDS[kind], 1, ttl, len(value)) + value
            count += 1
            alias = text if kind == "CNAME" else alias
        if alias is None:
            break
        owner = alias
    code = 0 if name in ZONE else 3
    return query[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, count, 0, 0) + query[12 : at + 5] + records


class Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections last

    def do_GET(self):
        body = f"hello from {self.connection.getsockname()[0].removeprefix('::ffff:')}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6


for port in sys.argv[2:]:
    threading.Thread(target=Server(("::", int(port)), Page).serve_forever, daemon=True).start()
nameserver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
nameserver.bind(("0.0.0.0", 53))
print("serves", flush=True)
while True:
    message, client = nameserver.recvfrom(4096)
    nameserver.sendto(answer(message), client)
