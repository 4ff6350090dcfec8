//! What `deploy/` and `tests/kubernetes/` hold for other people's clusters, as far as it can be tried without one.

#![allow(clippy::unwrap_used)] // its helpers are no tests

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use lattice_tests::{containerd::Release, tools};

/// k3s puts what it would write by itself where the template says "base".
const BASE: &str = "{{ template \"base\" . }}\n";

fn said(command: &mut Command) -> Result<String, String> {
    let out = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    if out.status.success() { Ok(text(&out.stdout)) } else { Err(text(&out.stderr) + &text(&out.stdout)) }
}

/// `containerd config dump` of the template, rendered: the runtime is there, and what was there before.
#[test]
fn the_template_for_k3s_is_taken_by_containerd() {
    for name in ["installed", "trixie", "sid"] {
        let Some(release) = Release::named(name) else {
            println!("SKIPPED: the template for k3s on containerd of {name}: it could not be fetched");
            continue;
        };
        for version in 2..=if release.version() >= (2, 0) { 3 } else { 2 } {
            let script = tools::top().join("tests/kubernetes/k3d");
            let template = said(Command::new(script).args(["template", &version.to_string()])).unwrap();
            let plugin = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"][version - 2];
            let base = format!(
                "version = {version}\nroot = \"/var/lib/k3s\"\n[plugins.'{plugin}'.containerd]\n  snapshotter = \"native\"\n\
                 [plugins.'{plugin}'.containerd.runtimes.runc]\n  runtime_type = \"io.containerd.runc.v2\"\n"
            );
            assert!(template.starts_with(BASE), "{template}");
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("config.toml");
            fs::write(&file, template.replace(BASE, &base)).unwrap();
            let mut dump = Command::new(release.dir.join("containerd"));
            let dump = said(dump.arg("--config").arg(&file).args(["config", "dump"])).unwrap();
            let words = [
                "/var/lib/k3s",
                "runtimes.runc]",
                "runtimes.lattice]",
                "io.containerd.lattice.v1",
                "lattice.io/*",
            ];
            for word in words {
                assert!(dump.contains(word), "no {word} with {name} and version {version}: {dump}");
            }
        }
    }
}

/// The Helm that `tests/setup` built, or the system's.
fn helm() -> Option<PathBuf> {
    let system = ["/usr/bin/helm", "/usr/local/bin/helm"].map(PathBuf::from);
    std::iter::once(tools::fetched("helm")).chain(system).find(|path| path.is_file())
}

fn chart() -> PathBuf {
    tools::top().join("deploy/helm/lattice")
}

fn render(helm: &Path, values: &[&str]) -> Result<String, String> {
    let mut command = Command::new(helm);
    command.args(["template", "lattice", "--namespace", "control"]).arg(chart());
    for value in values {
        command.args(["--set", value]);
    }
    said(&mut command)
}

#[test]
fn the_chart_is_rendered_as_its_values_say() {
    let Some(helm) = helm() else {
        println!("SKIPPED: the Helm chart: there is no helm, and no Go to build it");
        return;
    };
    said(Command::new(&helm).args(["lint", "--strict"]).arg(chart())).unwrap();
    let usual = render(&helm, &[]).unwrap();
    for line in [
        "kind: StatefulSet",
        "kind: RuntimeClass",
        "- --tls=self-signed",
        "- --tls-san=lattice-control,lattice-control.control,lattice-control.control.svc",
        "scheme: HTTPS",
        "readOnlyRootFilesystem: true",
        "fsGroupChangePolicy: OnRootMismatch",
        "memory: 64Mi",
    ] {
        assert!(usual.contains(line), "no {line:?} in {usual}");
    }
    for word in ["privileged", "hostPath", "kind: Secret", "database", "nodePort", "advertise"] {
        assert!(!usual.contains(word), "{word} in {usual}");
    }

    let off = render(&helm, &["tls=off", "runtimeClass.enabled=false"]).unwrap();
    assert!(
        !off.contains("--tls") && off.contains("scheme: HTTP ") && !off.contains("RuntimeClass"),
        "{off}"
    );
    let all = [
        "tls=secret",
        "tlsSecret=our-tls",
        "databaseSecret=our-db",
        "hosts={control.example}",
        "stun={a.example:3478,b.example:3478}",
        "relays={lrp://r.example?tcp=6266#sha256=00}",
        "args={--keep-removed=7}",
        "storage.className=",
        "service.clusterIP=10.43.0.99",
        "service.type=NodePort",
        "service.natsNodePort=30422",
        "advertiseNatsUrl=nats://node.example:30422",
        "runtimeClass.nodeSelector.lattice=yes",
    ];
    let all = render(&helm, &all).unwrap();
    for line in [
        "--tls-cert=/tls/tls.crt",
        "secretName: our-tls",
        "--database-url-file=/database/url",
        "secretName: our-db",
        "--stun=a.example:3478,b.example:3478",
        "\"--relay=lrp://r.example?tcp=6266#sha256=00\"",
        "\"--keep-removed=7\"",
        "storageClassName: \"\"",
        "clusterIP: 10.43.0.99",
        "nodePort: 30422",
        "\"--advertise-nats-url=nats://node.example:30422\"",
        "lattice: \"yes\"",
    ] {
        assert!(all.contains(line), "no {line:?} in {all}");
    }
    let nameless = render(&helm, &["tls=secret"]).unwrap_err();
    assert!(nameless.contains("name it by tlsSecret"), "{nameless}");
    let unreachable = render(&helm, &["service.type=NodePort", "service.natsNodePort=30422"]).unwrap_err();
    assert!(unreachable.contains("name it in advertiseNatsUrl"), "{unreachable}");
}
