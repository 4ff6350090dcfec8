"""A WebSocket (RFC 6455) by hand. argv: `serve PORT`, or `call PORT HOST PROXY_PORT`, by SOCKS5 on loopback."""
import base64, hashlib, os, socket, struct, sys

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
BINARY, CLOSE = 2, 8


def accepted(key):
    return base64.b64encode(hashlib.sha1(key + GUID).digest())


def head(stream):
    fields = {}
    first = stream.readline()
    while line := stream.readline().strip():
        name, value = line.split(b":", 1)
        fields[name.lower()] = value.strip()
    return first, fields


def send(stream, opcode, payload, mask=b""):
    size, flag = len(payload), 0x80 if mask else 0
    if size < 126:
        length = bytes([flag | size])
    elif size < 1 << 16:
        length = bytes([flag | 126]) + struct.pack("!H", size)
    else:
        length = bytes([flag | 127]) + struct.pack("!Q", size)
    stream.write(bytes([0x80 | opcode]) + length + mask + masked(payload, mask))
    stream.flush()


def masked(payload, mask):
    if not mask:
        return payload
    whole = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(whole, "big")).to_bytes(len(payload), "big")


def receive(stream):
    first, second = stream.read(2)
    size = second & 0x7F
    if size >= 126:
        (size,) = struct.unpack("!H", stream.read(2)) if size == 126 else struct.unpack("!Q", stream.read(8))
    mask = stream.read(4) if second & 0x80 else b""
    return first & 0xF, masked(stream.read(size), mask)


def serve(port):
    with socket.create_server(("", int(port))) as listening:
        print("listens", flush=True)
        connection, _ = listening.accept()
    with connection.makefile("rwb") as stream:
        _, fields = head(stream)
        stream.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
        stream.write(b"Sec-WebSocket-Accept: " + accepted(fields[b"sec-websocket-key"]) + b"\r\n\r\n")
        stream.flush()
        opcode = None
        while opcode != CLOSE:
            opcode, payload = receive(stream)
            send(stream, opcode, payload)


def call(port, host, proxy):
    with socket.create_connection(("127.0.0.1", int(proxy)), 30) as connection, connection.makefile("rwb") as stream:
        stream.write(b"\5\1\0" + b"\5\1\0\3" + bytes([len(host)]) + host.encode() + struct.pack("!H", int(port)))
        stream.flush()
        assert stream.read(2) == b"\5\0" and stream.read(10)[:2] == b"\5\0"
        key = base64.b64encode(os.urandom(16))
        stream.write(b"GET / HTTP/1.1\r\nHost: " + host.encode() + b"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
        stream.write(b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n")
        stream.flush()
        first, fields = head(stream)
        assert first.split()[1] == b"101" and fields[b"sec-websocket-accept"] == accepted(key), first
        print("upgraded")
        for size in (5, 1000, 300_000):
            message = os.urandom(size)
            send(stream, BINARY, message, os.urandom(4))
            assert receive(stream) == (BINARY, message), size
        print("3 messages")
        send(stream, CLOSE, struct.pack("!H", 1000), os.urandom(4))
        assert receive(stream) == (CLOSE, struct.pack("!H", 1000)) and stream.read() == b""
        print("closed")


globals()[sys.argv[1]](*sys.argv[2:])
