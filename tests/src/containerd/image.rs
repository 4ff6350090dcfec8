//! The one image of the tests: busybox, as an OCI image archive that needs no registry.
//!
//! Layout: <https://github.com/opencontainers/image-spec/blob/main/image-layout.md>.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Its name, for pods and for their pause containers. Without a command of its own a container sleeps.
pub const NAME: &str = "lattice.test/busybox:1";

const APPLETS: &str = "sh cat echo sleep true false dd seq env id pwd ls mkdir touch rm head tail wc grep kill ps stty tty sync \
                       printf sha256sum mount hostname ip od tr yes date test expr seq usleep chmod";

/// Writes the archive into `dir`; returns its path.
///
/// # Panics
/// Without a static busybox or without tar.
pub fn write(dir: &Path) -> PathBuf {
    let stage = dir.join("image");
    let layer = layer(&stage);
    let layout = stage.join("layout");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("a directory");
    let blob = |bytes: &[u8], kind: &str| -> Value {
        let digest = hex::encode(Sha256::digest(bytes));
        fs::write(blobs.join(&digest), bytes).expect("a blob");
        json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": format!("sha256:{digest}"), "size": bytes.len() })
    };
    let layer = blob(&layer, "layer.v1.tar");
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({
        "architecture": architecture, "os": "linux",
        "config": { "Env": ["PATH=/bin"], "Cmd": ["/bin/sleep", "inf"], "WorkingDir": "/" },
        "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
        "history": [{ "created": "2026-01-01T00:00:00Z", "created_by": "tests" }],
    });
    let config = blob(config.to_string().as_bytes(), "config.v1+json");
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [layer] });
    let mut manifest = blob(manifest.to_string().as_bytes(), "manifest.v1+json");
    manifest["annotations"] =
        json!({ "io.containerd.image.name": NAME, "org.opencontainers.image.ref.name": "1" });
    manifest["platform"] = json!({ "architecture": architecture, "os": "linux" });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(layout.join("index.json"), index.to_string()).expect("the index");
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("the layout");
    let archive = dir.join("image.tar");
    tar(&layout, &archive);
    fs::remove_dir_all(&stage).expect("the stage");
    archive
}

/// A root file system of busybox and what a program expects beside it, in a directory; for runtimes without images.
///
/// # Panics
/// Without a static busybox.
pub fn root(root: &Path) {
    for dir in ["bin", "etc", "proc", "sys", "dev", "tmp", "root", "home/agent"] {
        fs::create_dir_all(root.join(dir)).expect("a directory");
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    fs::copy(busybox.expect("busybox-static"), root.join("bin/busybox")).expect("busybox copied");
    for applet in APPLETS.split_whitespace().filter(|name| !root.join("bin").join(name).exists()) {
        symlink("busybox", root.join("bin").join(applet)).expect("a link");
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nagent:x:1000:1000::/home/agent:/bin/sh\n")
        .expect("passwd");
    fs::write(root.join("etc/group"), "root:x:0:\nagent:x:1000:\n").expect("group");
}

fn layer(stage: &Path) -> Vec<u8> {
    let tree = stage.join("root");
    root(&tree);
    let file = stage.join("layer.tar");
    tar(&tree, &file);
    fs::read(file).expect("the layer")
}

fn tar(dir: &Path, archive: &Path) {
    let mut tar = Command::new("tar");
    tar.args(["--owner=0", "--group=0", "--numeric-owner", "--sort=name", "--mtime=@0", "-cf"]);
    let status = tar.arg(archive).arg("-C").arg(dir).arg(".").status().expect("tar");
    assert!(status.success(), "tar of {}: {status}", dir.display());
}
