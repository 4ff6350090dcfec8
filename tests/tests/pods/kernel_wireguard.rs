//! Pods by the kernel's WireGuard. `tests/vm.rs` runs this where the kernel has it.

use lattice_shim::{config::Config, network};
use lattice_tests::process::command;
use nix::sys::signal::Signal;

use crate::{
    killable,
    world::{LIMIT, Made, World, left},
};

/// Where the kernel has WireGuard, pods have it by default: a link that outlives its shim, with a socket of the node's.
#[test]
fn by_the_kernels_wireguard_a_pod_is_policed_resumes_and_is_cleaned_up_after() {
    if !lattice_overlay::kernel_has_wireguard() {
        return println!("SKIPPED: pods by the kernel's WireGuard: this kernel has none");
    }
    let mut world = World::new();
    let rules = world.to_tool(8080);
    let config = world
        .config(&format!("keep = true\negress_allow = [\"10.42.0.0/16\"]\negress_default = [\"{rules}\"]"))
        .replace("\"userspace\"", "\"auto\"");
    let tool = world.tool.to_string();
    let works = |pod: &Made| {
        let mut ip = command(&pod.netns.path(), "ip".as_ref());
        let out = ip.args(["-d", "link", "show", "wg0"]).output().unwrap();
        let kind = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(kind.contains("wireguard"), "{kind}{}", String::from_utf8_lossy(&out.stderr));
        assert!(pod.fetches(&format!("http://{tool}:8080/")), "by wg0");
        assert!(pod.is_refused(&tool, 9090), "the rule is for another port");
        assert!(pod.is_refused("192.168.50.1", 8080), "by eth0");
    };
    for round in 0..2 {
        let pod = world.pod();
        let spec = world.spec(&pod, "agent", &[]);
        // The token has one use.
        assert_eq!(
            network::Network::needs_token(
                &Config::parse(&config.replace("token_file", "# token_file")).unwrap(),
                &spec
            )
            .unwrap(),
            round == 0
        );
        let network = world.start(&config, &spec).unwrap();
        works(&pod);
        assert_eq!(network.stop(), Vec::<String>::new());
        assert_eq!(pod.links(), ["lo", "eth0"]);
    }

    let pod = world.pod();
    std::fs::write(world.dir().join("shim.toml"), &config).unwrap();
    let (shim, peer) = killable(&world, &pod);
    works(&pod);
    shim.signal(Signal::SIGKILL);
    shim.finish(LIMIT);
    assert!(pod.links().contains(&"wg0".to_owned()), "it is the kernel's");
    assert!(pod.is_refused(&tool, 9090), "the pinned policy is in force");
    let parsed = Config::parse(&config).unwrap();
    world.node.netns.run(|| network::clean_up(&parsed, &peer)).unwrap().unwrap();
    assert_eq!(pod.links(), ["lo", "eth0"]);
    world.end_control_plane();
    std::fs::remove_dir_all(world.dir().join("pods")).unwrap();
    assert_eq!(left(&world), Vec::<String>::new());
}
