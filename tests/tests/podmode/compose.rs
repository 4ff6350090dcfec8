//! The topology of the Compose example: agents that share a namespace with their own sandbox each, and talk to one another by these.

use std::path::Path;

use lattice_overlay::Netns;
use lattice_tests::{Host, Lab, Pod, Process, User};

use crate::{
    services::{HELLO, Services},
    world::{LIMIT, UID},
};

/// What an agent offers to others.
const SERVICE: u16 = 8000;

/// A container's namespace with an agent and its sandbox.
struct Member {
    host: Host,
    user: User,
    service: Services,
    pod: Pod,
}

impl Member {
    fn start(lab: &mut Lab, name: &str, rules: &[&str]) -> Self {
        let host = lab.host();
        let user = User::new(lab, &host, UID, name);
        let service = Services::page(&host.netns, SERVICE);
        let forward = format!("80:127.0.0.1:{SERVICE}");
        let flags = ["--proxy-addr", "127.0.0.1:1080", "--forward", &forward];
        let allow = rules.iter().flat_map(|rule| ["--egress-allow", rule]);
        let pod = user.pod(lab, &host, name, &flags.into_iter().chain(allow).collect::<Vec<_>>());
        assert_eq!(pod.proxy().port(), 1080, "as asked for");
        Self { host, user, service, pod }
    }

    /// An agent that knows of the proxy from its environment alone, as another user than the sandbox.
    fn fetch(&self, lab: &Lab, url: &str) -> (i32, String) {
        let agent = User { id: UID + 7, dir: self.user.dir.clone() };
        let mut curl = agent.command(&self.host.netns, Path::new("curl"));
        curl.args(["-sS", "-m", "20", url]).env("ALL_PROXY", "socks5h://127.0.0.1:1080");
        let out = Process::spawn(curl, "curl", lab.dir.path()).finish(LIMIT);
        (out.code, out.stdout)
    }
}

#[test]
fn two_agents_with_two_sandboxes_talk_as_far_as_their_policies_go() {
    let mut lab = Lab::start();
    let planner = Member::start(&mut lab, "planner", &["10.42.0.0/16:80"]);
    let worker = Member::start(&mut lab, "worker", &[]);
    let at_worker = planner.fetch(&lab, "http://worker.lattice/");
    assert_eq!(at_worker, (0, HELLO.into()), "{}", lattice_tests::unprivileged::said(&worker.pod.process));
    assert_eq!(planner.fetch(&lab, &format!("http://{}/", worker.pod.address)), (0, HELLO.into()));
    // The other way round there is no rule.
    assert_eq!(worker.fetch(&lab, "http://planner.lattice/").0, 97);
    assert_eq!(
        planner.fetch(&lab, &format!("http://worker.lattice:{SERVICE}/")).0,
        97,
        "no rule for that port"
    );
    let count = |member: &Member| member.service.seen.connections.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!((count(&planner), count(&worker)), (0, 2));
    // Both have it on record: who asked, and who was asked.
    let at = worker.pod.address.to_string();
    planner.pod.record("the way out", |r| {
        r["direction"] == "egress" && r["dstIP"] == at.as_str() && r["action"] == "allow"
    });
    worker.pod.record("the way in", |r| {
        r["direction"] == "ingress" && r["dstPort"] == 80 && r["action"] == "allow"
    });
    for member in [planner, worker] {
        member.pod.end();
    }
}

/// Two sandboxes of one user beside one another in one namespace: two identities, two policies, two proxies.
#[test]
fn two_sandboxes_on_one_host_are_two_identities() {
    let mut lab = Lab::start();
    let (near, far) = (lab.host(), lab.host());
    let (_node, far_ip) = lab.up(&far, "far");
    let _services = Services::page(&far.netns, SERVICE);
    let rule = format!("{far_ip}/32:{SERVICE}");
    let [(_, open), (_, closed)] =
        [("open", &["--egress-allow", rule.as_str()][..]), ("closed", &[])].map(|(name, rules)| {
            let user = User::new(&lab, &near, UID, name);
            let pod = user.pod(&lab, &near, name, &[&["--proxy-addr", "127.0.0.1:0"], rules].concat());
            (user, pod)
        });
    assert_ne!((open.address, open.proxy), (closed.address, closed.proxy));
    let reply = |netns: &Netns, pod: &Pod| {
        crate::client::Client { netns, proxy: pod.proxy(), credentials: None, limit: crate::client::PATIENCE }
            .reply(far_ip, SERVICE)
    };
    assert_eq!((reply(&near.netns, &open), reply(&near.netns, &closed)), (0, 2));
    closed.end();
    assert_eq!(reply(&near.netns, &open), 0, "the one's end is not the other's");
    open.end();
}
