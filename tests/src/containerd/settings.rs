//! The configuration files of a daemon.

use std::{fs, path::Path};

use serde_json::json;

use super::{image, runtime::Runtime};

/// containerd's configuration; version 2 is what all releases from 1.6 to 2.x read.
///
/// FIFOs and sockets of shims go to `/run/containerd` in any case, so the state is there too. `restrict_oom_score_adj`: without
/// CAP_SYS_RESOURCE a pause container could not get the score that CRI gives it.
pub(super) fn containerd(dir: &Path, network: &Path) -> String {
    let runtimes: String = [Runtime::Runc, Runtime::Runsc, Runtime::Lattice]
        .into_iter()
        .map(|runtime| {
            let options = runtime.toml(dir).map_or(String::new(), |file| {
                let kind = match runtime {
                    Runtime::Runsc => "TypeUrl = \"io.containerd.runsc.v1.options\"\n",
                    _ => "",
                };
                format!(
                    "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.{}.options]\n{kind}ConfigPath = \"{}\"\n",
                    runtime.handler(),
                    file.display()
                )
            });
            format!(
                "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.{}]\nruntime_type = \"{}\"\n\
                 pod_annotations = [\"lattice.dev/*\", \"lattice.io/*\"]\n{options}",
                runtime.handler(),
                runtime.kind(),
            )
        })
        .collect();
    let (dir, network, image) = (dir.display(), network.display(), image::NAME);
    format!(
        r#"version = 2
root = "{dir}/root"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.zfs",
    "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs",
    "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing", "io.containerd.nri.v1.nri"]
[grpc]
address = "{dir}/c.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "{dir}/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{image}"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{network}"
[plugins."io.containerd.grpc.v1.cri".containerd]
default_runtime_name = "runc"
{runtimes}"#
    )
}

/// One veth pair per pod, and addresses out of one range.
pub(super) fn network(conf: &Path) {
    fs::create_dir_all(conf).expect("a directory");
    let list = json!({
        "cniVersion": "0.4.0", "name": "tests",
        "plugins": [{
            "type": "ptp",
            "ipam": { "type": "host-local", "ranges": [[{ "subnet": "10.89.0.0/16" }]], "routes": [{ "dst": "0.0.0.0/0" }] },
        }],
    });
    fs::write(conf.join("10-tests.conflist"), list.to_string()).expect("the network's configuration");
}
