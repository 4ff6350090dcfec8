//! Much at once: hundreds of connections, and hundreds of megabytes with their checksum.

use crate::{
    services::ECHO,
    world::{LIMIT, PAGE, PYTHON, World},
};

const DOWNLOADS: usize = 200;
/// Of one download, in bytes: more than a window at first.
const SIZE: usize = 100_000;
/// Of the stream, in MiB, where `LATTICE_STREAM_MIB` does not say.
const STREAM: u32 = 256;

/// Sends a stream by SOCKS to a service that sends it back, and compares checksums. argv: proxy port, host, port, MiB.
const STREAMER: &str = r#"
import hashlib, os, socket, struct, sys, threading
proxy, host, port, size = int(sys.argv[1]), sys.argv[2].encode(), int(sys.argv[3]), int(sys.argv[4])
s = socket.create_connection(("127.0.0.1", proxy), 30)
s.sendall(b"\5\1\0" + b"\5\1\0\3" + bytes([len(host)]) + host + struct.pack("!H", port))
answer = b""
while len(answer) < 12:
    more = s.recv(12 - len(answer))
    assert more, answer
    answer += more
assert answer[:4] == b"\5\0\5\0", answer
sent, got, total = hashlib.sha256(), hashlib.sha256(), 0
def send():
    block = bytearray(os.urandom(1 << 20))
    for i in range(size):
        block[:8] = struct.pack("!Q", i)
        sent.update(block)
        s.sendall(block)
    s.shutdown(socket.SHUT_WR)
thread = threading.Thread(target=send)
thread.start()
while chunk := s.recv(1 << 18):
    got.update(chunk)
    total += len(chunk)
thread.join()
print(total >> 20, sent.digest() == got.digest())
"#;

#[test]
fn hundreds_of_downloads_at_once_are_all_whole() {
    let world = World::new();
    let user = world.user("agent");
    let pod = world.pod(&user, "agent", &[]);
    let url = format!("http://far.lattice:{PAGE}/bytes/{SIZE}?[1-{DOWNLOADS}]");
    let proxy = format!("socks5h://{}", pod.proxy());
    let at_once = ["-Z", "--parallel-immediate", "--parallel-max", "200"];
    let common = ["-sS", "-f", "-m", "50", "-x", &proxy, "-o", "/dev/null", "-w", "%{size_download}\n", &url];
    let out = world.agent(&user, "curl", &[&at_once[..], &common].concat());
    let whole = out.stdout.lines().filter(|line| **line == SIZE.to_string()).count();
    assert_eq!((out.code, whole), (0, DOWNLOADS), "{}", out.stderr);
    pod.end();
}

#[test]
fn a_long_stream_comes_back_as_it_went() {
    let world = World::new();
    let user = world.user("agent");
    let pod = world.pod(&user, "agent", &[]);
    let (proxy, port) = (pod.proxy().port().to_string(), ECHO.to_string());
    let size: u32 = std::env::var("LATTICE_STREAM_MIB").map_or(STREAM, |size| size.parse().unwrap());
    let (limit, size) = (LIMIT * size.div_ceil(STREAM), size.to_string());
    let args: [&str; 6] = ["-c", STREAMER, &proxy, "far.lattice", &port, &size];
    let out = world.agent_within(limit, &user, PYTHON, &args);
    assert_eq!((out.code, out.stdout.trim()), (0, format!("{size} True").as_str()), "{}", out.stderr);
    pod.end();
}
