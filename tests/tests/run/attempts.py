# Ways out of `lattice sandbox run`, for run.rs: prints what came of each attempt as `name: result`, `ok` where it worked.
import os, socket, subprocess, sys, ctypes, time
tool, host, path, bus, outer = sys.argv[1:6]
def attempt(name, f):
    begun = time.monotonic()
    try: result = f()
    except OSError as e: result = e.__class__.__name__ + ' ' + str(e.errno)
    except Exception as e: result = repr(e)
    late = ' late' if time.monotonic() - begun > 5 else ''
    print(name + ': ' + str(result) + late, flush=True)
def tcp(address, port):
    with socket.create_connection((address, port), timeout=10): return 'ok'
def unix(kind):
    with socket.socket(socket.AF_UNIX, kind) as s: s.connect(bus); return 'ok'
def sent():
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    a.sendto(b'x', bus); return 'ok'
def read(f):
    with open(f, 'rb') as file: return 'ok' if file.read(1) else 'empty'
def listed(d): return 'ok' if os.listdir(d) else 'empty'
def cmd(*a): return 'ok' if subprocess.run(a, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=20).returncode == 0 else 'failed'
def killed(): os.kill(int(outer), 0); return 'ok'
def traced(pid):
    libc = ctypes.CDLL(None, use_errno=True)
    return 'ok' if libc.ptrace(16, pid, 0, 0) == 0 else 'errno ' + str(ctypes.get_errno())
attempt('allowed', lambda: tcp(tool, 8080))
attempt('allowed by name', lambda: tcp('tool.lattice', 8080))
attempt('denied port', lambda: tcp(tool, 9090))
attempt('hub', lambda: tcp('192.168.50.1', 8080))
attempt('world', lambda: tcp('192.0.2.1', 443))
attempt('world by 6', lambda: tcp('2001:db8::1', 443))
attempt('metadata', lambda: tcp('169.254.169.254', 80))
attempt('host loopback', lambda: tcp('127.0.0.1', 7070))
attempt('host address', lambda: tcp(host, 7070))
attempt('other name', lambda: socket.getaddrinfo('example.com', 80) and 'ok')
attempt('bus', lambda: unix(socket.SOCK_STREAM))
attempt('bus by a pair', sent)
attempt('raw', lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1) and 'ok')
attempt('packet', lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3) and 'ok')
attempt('vsock', lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) and 'ok')
attempt('memory of 1', lambda: read('/proc/1/mem'))
attempt('environment of 1', lambda: read('/proc/1/environ'))
attempt('root of 1', lambda: listed('/proc/1/root/'))
attempt('descriptors of 1', lambda: listed('/proc/1/fd'))
attempt('trace 1', lambda: traced(1))
attempt('outer process', killed)
attempt('outer memory', lambda: read('/proc/%s/mem' % outer))
for d in ('etc', 'run'): attempt('list ' + d, lambda: listed(path + '/' + d))
attempt('credentials', lambda: read(path + '/etc/sandbox-credentials.json'))
attempt('records', lambda: read(path + '/home/audit.jsonl'))
attempt('forge records', lambda: open(path + '/home/audit.jsonl', 'a') and 'ok')
attempt('token', lambda: read(path + '/home/token'))
attempt('unhide', lambda: cmd('umount', path + '/etc'))
attempt('unhide in a namespace', lambda: cmd('unshare', '-Urm', 'umount', path + '/etc'))
attempt('show by binding', lambda: cmd('unshare', '-Urm', 'sh', '-c', 'mount --bind %s /mnt && cat /mnt/etc/*' % path))
attempt('link down', lambda: cmd('ip', 'link', 'set', 'wg0', 'down'))
attempt('new link', lambda: cmd('ip', 'link', 'add', 'x', 'type', 'veth'))
attempt('route', lambda: cmd('ip', 'route', 'del', 'default'))
attempt('own namespace', lambda: cmd('unshare', '-Urn', 'curl', '-s', '-m', '3', 'http://%s:7070/' % host))
attempt('group', lambda: os.kill(0, 0) or 'ok')
attempt('terminals', lambda: [f for f in os.listdir('/dev/pts') if f != 'ptmx'] or 'none')
attempt('cgroups', lambda: os.listdir('/sys/fs/cgroup') or 'none')
attempt('capabilities', lambda: [l.split()[1] for l in open('/proc/self/status') if l.startswith('Cap') and int(l.split()[1], 16)] or 'none')
attempt('descriptors', lambda: sorted(f for f in os.listdir('/proc/self/fd') if int(f) > 2 and os.path.exists('/proc/self/fd/' + f)) or 'none')
attempt('processes', lambda: len([p for p in os.listdir('/proc') if p.isdigit()]))
attempt('secrets', lambda: [k for k in os.environ if k.startswith('LATTICE_') and ('TOKEN' in k or 'AUTH' in k)] or 'none')
attempt('name', lambda: os.environ['LATTICE_SANDBOX_NAME'])
attempt('links', lambda: sorted(n for _, n in socket.if_nameindex()))
attempt('user', lambda: (os.getuid(), os.getgid()))
