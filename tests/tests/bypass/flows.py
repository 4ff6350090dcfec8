"""Holds flows open. argv: `tcp:HOST:PORT` or `udp:HOST:PORT`, each of which echoes.

Lines: `<target> holds` for each echo, once `<target> ended <error>`, from then on `<target> new <ok or error>` for each other one.
"""
import errno, socket, sys, threading, time

PATIENCE = 20


def dial(target):
    kind, host, port = target.split(":")
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    s.settimeout(PATIENCE)
    s.connect((host, int(port)))
    s.settimeout(1)
    return s


def echo(s):
    """An answer that was on its way when the flow ended does not come: who only waits for it is told nothing."""
    for _ in range(PATIENCE):
        s.send(b"x")
        try:
            if s.recv(1) != b"x":
                raise ConnectionAbortedError(errno.ECONNABORTED, "an end")
            return
        except TimeoutError:
            pass
    raise TimeoutError


def why(error):
    return "silence" if isinstance(error, TimeoutError) else errno.errorcode.get(error.errno, str(error))


def hold(target):
    try:
        s = dial(target)
        while True:
            echo(s)
            print(target, "holds", flush=True)
            time.sleep(0.2)
    except OSError as e:
        print(target, "ended", why(e), flush=True)
    while True:
        try:
            with dial(target) as s:
                echo(s)
            print(target, "new ok", flush=True)
        except OSError as e:
            print(target, "new", why(e), flush=True)
        time.sleep(0.2)


for target in sys.argv[1:]:
    threading.Thread(target=hold, args=(target,)).start()
