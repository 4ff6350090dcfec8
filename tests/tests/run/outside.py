# What a command reaches outside the overlay, for outside.rs: prints what came of each attempt as `name: result`.
import hashlib, os, socket, subprocess, sys, urllib.request
server, server6, own, tool = sys.argv[1:5]
socket.setdefaulttimeout(30)
def attempt(name, f):
    try: result = f()
    except OSError as e: result = type(e.__cause__ or getattr(e, 'reason', None) or e).__name__ + ' ' + str(getattr(getattr(e, 'reason', e), 'errno', ''))
    except Exception as e: result = repr(e)
    print(name + ': ' + str(result), flush=True)
def told(address, port):
    with socket.create_connection((address, port)) as s: return s.makefile('rb').read().decode()
def page(url): return urllib.request.urlopen(url).read().decode().strip()
def upload():
    data = os.urandom(8 << 20)
    with socket.create_connection((server, 7001)) as s:
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
        return s.makefile('rb').read().decode() == hashlib.sha256(data).hexdigest()
def download():
    got = 0
    with socket.create_connection((server, 7002)) as s:
        while got < 16 << 20: got += len(s.recv(1 << 16))
    return 'ok'
def was_reset():
    with socket.create_connection((server, 7005)) as s:
        s.sendall(b'x')
        return s.recv(1)
def refused():
    """Uploads until it is refused, and then looks for the reason."""
    got = b''
    with socket.create_connection((server, 7006)) as s:
        try:
            while True: s.sendall(bytes(1 << 16))
        except OSError: pass
        try:
            # To whom a send has told of the reset, the kernel shows an end in order.
            while chunk := s.recv(1 << 16): got += chunk
        except ConnectionResetError: pass
    return got.split(b'\r\n')[0].decode()
def echo(data, times=1):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(data, (server, 7004))
        got, sender = s.recvfrom(65535)
        return got == data * times and sender == (server, 7004)
def many():
    all = [socket.create_connection((server, 7003)) for _ in range(200)]
    return sum(s.makefile('rb').read() == b'hello from outside' for s in all)
def flows():
    return sum(echo(b'%d' % n) for n in range(300))
def no_echo(address, port):
    with socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect((address, port)); s.send(b'x')
        return s.recv(100)
def ping(address, kind=8):
    family, protocol = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if ':' in address else (socket.AF_INET, socket.IPPROTO_ICMP)
    with socket.socket(family, socket.SOCK_DGRAM, protocol) as s:
        s.connect((address, 0)); s.send(bytes([kind]) + b'\0\0\0\0\0\0\1hello')
        reply = s.recv(100)
        return reply[0], reply[6:]
attempt('by name', lambda: page('http://api.example.com:8080/'))
attempt('other name', lambda: page('http://other.example.com:8080/'))
attempt('by address', lambda: told(server, 7003))
attempt('by IPv6', lambda: told(server6, 7003))
attempt('upload', upload)
attempt('download', download)
attempt('reset', was_reset)
attempt('refused upload', refused)
attempt('datagram', lambda: echo(b'hello'))
attempt('long answer', lambda: echo(b'x' * 1000, 3))
attempt('many', many)
attempt('many flows', flows)
attempt('nobody listens', lambda: told(server, 7099))
attempt('denied port', lambda: told(server, 9090))
attempt('denied datagram', lambda: no_echo(server, 9090))
attempt('no route', lambda: told('198.51.100.1', 7003))
attempt('the host', lambda: told(own, 7070))
attempt('the host by a datagram', lambda: no_echo(own, 7071))
attempt('the overlay', lambda: page('http://tool.lattice:8080/'))
attempt('the overlay, nobody', lambda: told('10.42.99.99', 7003))
attempt('ping', lambda: ping(server))
attempt('ping by IPv6', lambda: ping(server6, 128))
attempt('ping the host', lambda: ping(own))
attempt('nobody takes it', lambda: no_echo(server, 7098))
attempt('nobody takes it by IPv6', lambda: no_echo(server6, 7003))
