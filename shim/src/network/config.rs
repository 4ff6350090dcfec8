//! The section `[lattice]` of `shim.toml`: what the operator of a node permits its pods. A pod's annotations can only narrow it.

use std::{
    fmt::Display,
    io::Read as _,
    net::IpAddr,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::PathBuf,
    str::FromStr,
};

use ipnet::IpNet;
use lattice_bootstrap::{EnforcerChoice, Failure, Kind, ServerUrl, failure::chain};
use lattice_overlay::BackendChoice;
use lattice_policy::{PrivateNames, RuleSpec, parse_rule};
use lattice_wire::Token;
use serde::{Deserialize, Deserializer, de::Error as _};
use zeroize::Zeroizing;

/// More than any token file holds, in bytes.
const MAX_TOKEN_FILE: u64 = 4096;

/// What pods of this node are given.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeNetwork {
    /// The control plane, as `--server-url` takes it.
    pub server: String,
    /// The PEM file of the authority that its certificate comes from.
    pub server_ca: Option<PathBuf>,
    /// A file with the token of pods that bring none: readable by its owner alone, and read when a pod needs it.
    pub token_file: Option<PathBuf>,
    /// Where the credentials of pods are kept.
    pub credentials_dir: PathBuf,
    /// Whether a pod's peer stays when the pod is deleted, for the next pod of that name on this node. Otherwise its keys are
    /// deleted, and a pod's uid is part of its peer's name, so that names never meet.
    pub keep: bool,
    /// The name of a pod's peer; `{namespace}` and `{pod}` are replaced.
    pub name: String,
    /// The most that pods may reach. Names of the cluster are permitted by name, such as `*.svc.cluster.local`.
    #[serde(deserialize_with = "rules")]
    pub egress_allow: Vec<RuleSpec>,
    /// What a pod without an annotation may reach of it.
    #[serde(deserialize_with = "rules")]
    pub egress_default: Vec<RuleSpec>,
    /// Which WireGuard.
    #[serde(deserialize_with = "parsed")]
    pub wireguard: BackendChoice,
    /// What enforces the policy.
    #[serde(deserialize_with = "parsed")]
    pub enforcer: EnforcerChoice,
    /// Bytes of a packet on `wg0`.
    pub mtu: u16,
    /// Where flow records go, a file for each peer.
    pub audit_dir: PathBuf,
    /// Whether the node may open TCP connections to its pods, for kubelet's probes.
    pub probes: bool,
    /// Domains of which the cluster's nameserver decides.
    pub cluster_domains: Vec<String>,
    /// Private networks in which names of those domains may open addresses.
    pub service_cidrs: Vec<IpNet>,
    /// Whom the resolver asks instead of the nameservers of the pod's own resolv.conf. Whoever writes a pod's spec chooses the
    /// latter, and so which addresses the names have that the node permits.
    pub nameservers: Vec<IpAddr>,
}

impl Default for NodeNetwork {
    fn default() -> Self {
        Self {
            server: String::new(),
            server_ca: None,
            token_file: None,
            credentials_dir: "/var/lib/lattice/pods".into(),
            keep: false,
            name: "{namespace}-{pod}".into(),
            egress_allow: Vec::new(),
            egress_default: Vec::new(),
            wireguard: BackendChoice::default(),
            enforcer: EnforcerChoice::default(),
            mtu: 1420,
            audit_dir: "/var/log/lattice".into(),
            probes: true,
            cluster_domains: Vec::new(),
            service_cidrs: Vec::new(),
            nameservers: Vec::new(),
        }
    }
}

impl NodeNetwork {
    /// The control plane.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub(super) fn server(&self) -> Result<ServerUrl, Failure> {
        if self.server.is_empty() {
            let text = "shim.toml: [lattice] names no server: add server = \"https://...\" as latticed prints it, or network = \"plain\"";
            return Err(Failure::new(Kind::Usage, text));
        }
        ServerUrl::parse(&self.server, self.server_ca.as_deref()).map_err(|failure| {
            Failure::new(failure.kind, format!("shim.toml: [lattice] server: {}", failure.message))
        })
    }

    /// What names of the cluster may open.
    pub(super) fn private(&self) -> Result<PrivateNames, Failure> {
        PrivateNames::new(&self.cluster_domains, &self.service_cidrs).map_err(|error| {
            let text = format!("shim.toml: [lattice] cluster_domains, service_cidrs: {error}");
            Failure::new(Kind::Usage, text)
        })
    }

    /// The node's token, if it has one.
    ///
    /// # Errors
    /// When it cannot be read, others can, or it is none.
    pub(super) fn token(&self) -> Result<Option<Token>, Failure> {
        let Some(path) = &self.token_file else { return Ok(None) };
        let shown = path.display();
        let fail = |text: String| Failure::new(Kind::Token, format!("token_file {shown}: {text}"));
        // O_NONBLOCK: a FIFO in its place must not make us wait.
        let mut options = std::fs::File::options();
        let file = options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path);
        let file = file.map_err(|error| fail(error.to_string()))?;
        let meta = file.metadata().map_err(|error| fail(error.to_string()))?;
        if !meta.is_file() || meta.uid() != nix::unistd::geteuid().as_raw() || meta.mode() & 0o077 != 0 {
            return Err(fail("may be read by others, or is no file: chown it to root and chmod 600".into()));
        }
        let mut text = Zeroizing::new(String::new());
        file.take(MAX_TOKEN_FILE).read_to_string(&mut text).map_err(|error| fail(error.to_string()))?;
        token(&text).map(Some).map_err(|failure| fail(failure.message))
    }
}

/// Reads a token.
pub(super) fn token(text: &str) -> Result<Token, Failure> {
    text.trim().parse().map_err(|error| Failure::new(Kind::Token, format!("{error}")))
}

fn rules<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<RuleSpec>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| parse_rule(text).map_err(|error| D::Error::custom(chain(&error)))).collect()
}

fn parsed<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(deserializer: D) -> Result<T, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::config::Config;

    #[test]
    fn the_section_is_read_whole_and_refused_by_name() {
        let text = "[lattice]\nserver = \"http://192.0.2.1:8080\"\negress_allow = [\"10.42.0.0/16:80\", \"*.svc.cluster.local\"]\n\
                    enforcer = \"ebpf\"\nwireguard = \"userspace\"\nservice_cidrs = [\"10.96.0.0/12\"]\ncluster_domains = [\"cluster.local\"]\n";
        let lattice = Config::parse(text).unwrap().lattice;
        assert_eq!(lattice.egress_allow.len(), 2);
        assert!(lattice.probes && !lattice.keep);
        lattice.server().unwrap();
        assert_eq!(lattice.private().unwrap().nets().len(), 1);
        for (bad, word) in [
            ("egress_alow = []", "egress_alow"),
            ("egress_allow = [\"tcp\"]", "tcp"),
            ("enforcer = \"none\"", "ebpf"),
            ("service_cidrs = [\"x\"]", "service_cidrs"),
        ] {
            let error = Config::parse(&format!("[lattice]\n{bad}")).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        assert!(NodeNetwork::default().server().unwrap_err().message.contains("shim.toml"));
    }

    #[test]
    fn a_token_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "not a token").unwrap();
        let lattice = NodeNetwork { token_file: Some(path.clone()), ..NodeNetwork::default() };
        for (mode, word) in [(0o644, "chmod 600"), (0o640, "chmod 600"), (0o600, "token")] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let failure = lattice.token().unwrap_err();
            assert!(failure.message.contains(word) && !failure.message.contains("not a token"), "{failure}");
        }
    }
}
