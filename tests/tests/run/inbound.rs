//! What peers reach of a command that has a network of its own.

use lattice_tests::{Process, tools};

use crate::place::{LIMIT, Place};

/// On 127.0.0.1 alone: 8081 TCP, which says who asks, and UDP, which sends back five times as much. On all addresses: 8082, and 8083.
const SERVE: &str = r#"
import http.server, socket, threading
class Who(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = self.client_address[0].encode() + b' ' + bytes(1 << 20)
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
for at in (('127.0.0.1', 8081), ('', 8082), ('', 8083)):
    threading.Thread(target=http.server.ThreadingHTTPServer(at, Who).serve_forever, daemon=True).start()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(('127.0.0.1', 8081))
def echo():
    while True:
        data, sender = udp.recvfrom(2000)
        # Longer than a packet.
        udp.sendto(data * 5, sender)
threading.Thread(target=echo, daemon=True).start()
print('serving', flush=True)
input()
"#;

const ASK: &str = r#"
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.settimeout(20)
    s.connect((sys.argv[1], 8081)); s.send(b'x' * 999)
    print(s.recv(9000) == b'x' * 4995)
    s.connect((sys.argv[1], 8084)); s.send(b'x')
    try:
        print(s.recv(9000))
    except ConnectionRefusedError:
        print('refused')
"#;

#[test]
fn peers_reach_the_ports_that_were_named_and_no_other() {
    let place = Place::new();
    for isolate in ["netns", "gvisor"] {
        // Nobody listens at UDP 8084.
        let udp = ["udp:8081:127.0.0.1:8081", "udp:8084:127.0.0.1:8084"];
        let forwards = ["8081:127.0.0.1:8081", udp[0], udp[1], "8083:127.0.0.1:8083"];
        let mut flags = vec!["--isolate", isolate];
        flags.extend(forwards.iter().flat_map(|forward| ["--forward", forward]));
        let command = ["sh", "-c", "sleep 1000 | exec python3 -c \"$0\"", SERVE];
        let mut run = place.run(true, &flags, &command);
        if let Some(runsc) = tools::runsc() {
            run.env("LATTICE_RUNSC", runsc);
        }
        let mut run = Process::spawn(run, "run", place.lab.dir.path());
        run.wait_for("serving", LIMIT);
        let said = run.output().1;
        let own =
            said.split("overlay IP=").nth(1).and_then(|rest| rest.split(',').next()).expect("an address");
        let get = |port: u16| {
            let url = format!("http://{own}:{port}/");
            place.lab.on(&place.peer, "curl", &["-sS", "-m", "20", &url])
        };
        for port in [8081, 8083] {
            let out = get(port);
            assert_eq!(out.code, 0, "{isolate} {port}: {}", out.stderr);
            let who = format!("{} ", place.tool);
            assert!(out.stdout.starts_with(&who), "{isolate} {port}: {:?}", out.stdout.get(..20));
            assert_eq!(out.stdout.len(), who.len() + (1 << 20), "{isolate} {port}");
        }
        let out = place.lab.on(&place.peer, "python3", &["-c", ASK, own]);
        assert_eq!((out.code, out.stdout.as_str()), (0, "True\nrefused\n"), "{isolate}: {}", out.stderr);
        // It is silence or a refusal, and nothing that the command would have served.
        let url = format!("http://{own}:8082/");
        assert_ne!(place.lab.on(&place.peer, "curl", &["-s", "-m", "5", &url]).code, 0);
        run.signal(nix::sys::signal::Signal::SIGTERM);
        run.finish(LIMIT);
        place.assert_clean();
        let records = place.records();
        assert!(!records.iter().any(|r| r["reason"] == "spoofed"), "{records:#?}");
        let denied = |r: &serde_json::Value| r["dstPort"] == 8082 && r["direction"] == "ingress";
        assert!(records.iter().any(|r| denied(r) && r["action"] == "deny"), "{records:#?}");
    }
}
