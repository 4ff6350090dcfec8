//! What peers reach of a command that has a network of its own.

use lattice_tests::Process;

use crate::place::{LIMIT, Place};

#[test]
fn peers_reach_the_ports_that_were_named_and_no_other() {
    let place = Place::new();
    let serve = "import http.server, threading\nfor port in (8081, 8082):\n s = http.server.ThreadingHTTPServer(('', port), http.server.SimpleHTTPRequestHandler)\n \
         threading.Thread(target=s.serve_forever, daemon=True).start()\nprint('serving', flush=True)\ninput()";
    let run = place.run(
        true,
        &["--isolate", "netns", "--forward", "8081:127.0.0.1:8081"],
        &["sh", "-c", "sleep 1000 | exec python3 -c \"$0\"", serve],
    );
    let mut run = Process::spawn(run, "run", place.lab.dir.path());
    run.wait_for("serving", LIMIT);
    let said = run.output().1;
    let own = said.split("overlay IP=").nth(1).and_then(|rest| rest.split(',').next()).expect("an address");
    let get = |port: u16| {
        let url = format!("http://{own}:{port}/");
        place.lab.on(&place.peer, "curl", &["-s", "-o", "/dev/null", "-w", "%{http_code}", "-m", "5", &url])
    };
    assert_eq!(get(8081).stdout, "200");
    // It is silence or a refusal, and nothing that the command would have served.
    assert_ne!(get(8082).code, 0);
    run.signal(nix::sys::signal::Signal::SIGKILL);
    let denied = |r: &serde_json::Value| r["dstPort"] == 8082 && r["direction"] == "ingress";
    assert!(place.records().iter().any(|r| denied(r) && r["action"] == "deny"), "{:#?}", place.records());
}
