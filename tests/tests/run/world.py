# The world outside, for outside.rs: TCP services on every address, UDP on the given one. Prints `serves`.
import hashlib, socket, sys, threading

def listen(port, serve):
    def run():
        with socket.create_server(('::', port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64) as server:
            while True:
                client, _ = server.accept()
                threading.Thread(target=serve, args=(client,), daemon=True).start()
    threading.Thread(target=run, daemon=True).start()

def digest(client):
    """The hash of all that came, told after its end."""
    sum = hashlib.sha256()
    while chunk := client.recv(1 << 16):
        sum.update(chunk)
    client.sendall(sum.hexdigest().encode())
    client.close()

def source(client):
    """Data, for as long as it is taken; the end of it is told."""
    try:
        while True:
            client.sendall(bytes(1 << 16))
    except OSError:
        print('cut', flush=True)

def hello(client):
    client.sendall(b'hello from outside')
    client.close()

def reset(client):
    client.recv(1)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\1\0\0\0\0\0\0\0')
    client.close()

def refusal(client):
    """The answer of a server that does not want the rest: what it has not read makes its end a reset."""
    client.recv(1)
    client.sendall(b'HTTP/1.1 413 Content Too Large\r\n\r\n')
    client.close()

def echo():
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    # It answers from the address that was asked.
    server.bind((sys.argv[1], 7004))
    while True:
        data, client = server.recvfrom(65535)
        # Also longer than any link on the way to an agent.
        server.sendto(data * 3 if data == b'x' * 1000 else data, client)

listen(7001, digest)
listen(7002, source)
listen(7003, hello)
listen(7005, reset)
listen(7006, refusal)
threading.Thread(target=echo, daemon=True).start()
print('serves', flush=True)
threading.Event().wait()
