//! The name of a pod's peer. Two pods never share one: where the text of one could be another's, a hash tells them apart.

use lattice_bootstrap::{Failure, Kind};
use lattice_wire::PeerName;
use sha2::{Digest as _, Sha256};

/// Longest name (RFC 1123).
const MAX: usize = 63;

/// Hexadecimal digits of the hash: nobody finds a pod's name whose hash is that of another one.
const HASH: usize = 16;

/// Whom a name is for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whose<'a> {
    pub(super) namespace: &'a str,
    /// The pod's own name, or the one that its annotation gives it.
    pub(super) pod: &'a str,
    /// Where the peer ends with the pod: its unique id.
    pub(super) uid: Option<&'a str>,
}

/// The peer's name by `template`.
///
/// # Errors
/// When nothing of the pod is in the template.
pub(super) fn peer_name(template: &str, whose: Whose<'_>) -> Result<PeerName, Failure> {
    let Whose { namespace, pod, uid } = whose;
    if !template.contains("{pod}") {
        let text = format!(
            "shim.toml: [lattice] name = {template:?} names no {{pod}}: all pods would share one name"
        );
        return Err(Failure::new(Kind::Usage, text));
    }
    let text = template.replace("{namespace}", namespace).replace("{pod}", pod);
    // Where a namespace has no hyphen, the first one of the text ends it.
    let is_plain = uid.is_none()
        && template == "{namespace}-{pod}"
        && !namespace.contains('-')
        && !namespace.is_empty()
        && !looks_hashed(&text);
    if is_plain && let Ok(name) = text.parse() {
        return Ok(name);
    }
    let hash = hex::encode(Sha256::digest(format!("{namespace}\0{pod}\0{}", uid.unwrap_or_default())));
    let readable: String = text
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(MAX - HASH - 1)
        .collect();
    let name = format!("{}-{}", readable.trim_matches('-'), &hash[..HASH]);
    name.trim_matches('-').parse().map_err(|error| Failure::new(Kind::Usage, error))
}

/// So that no plain name is one with a hash.
fn looks_hashed(text: &str) -> bool {
    let last = text.rsplit('-').next().unwrap_or_default();
    last.len() == HASH && last.bytes().all(|c| c.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const TEMPLATE: &str = "{namespace}-{pod}";

    fn name(template: &str, namespace: &str, pod: &str) -> String {
        peer_name(template, Whose { namespace, pod, uid: None }).unwrap().as_str().to_owned()
    }

    #[test]
    fn a_name_is_readable_where_it_can_be() {
        assert_eq!(name(TEMPLATE, "default", "agent-0"), "default-agent-0");
        let long = name(TEMPLATE, "default", &"a".repeat(253));
        assert!(long.len() == MAX && long.starts_with("default-aaaa"), "{long}");
        assert!(name(TEMPLATE, "kube-system", "dns").starts_with("kube-system-dns-"));
        assert!(name(TEMPLATE, "default", "a.b").starts_with("default-a-b-"));
        assert!(peer_name("agent", Whose { namespace: "a", pod: "b", uid: None }).is_err());
    }

    #[test]
    fn two_pods_never_share_a_name() {
        let crafted = name(TEMPLATE, "x-agent", "0");
        let crafted = crafted.strip_prefix("x-").unwrap();
        let pods = [
            ("a-b", "c"),
            ("a", "b-c"),
            ("x-agent", "0"),
            ("x", crafted),
            ("default", "a.b"),
            ("default", "a-b"),
            ("default", "A-b"),
            ("", "a"),
            ("", ""),
            ("-", "a"),
            ("default", &"a".repeat(253)),
            ("default", &"a".repeat(252)),
        ];
        for template in [TEMPLATE, "{pod}", "pod-{pod}-{namespace}"] {
            let mut seen = HashMap::new();
            for pod in pods {
                let name = name(template, pod.0, pod.1);
                assert_eq!(seen.insert(name.clone(), pod), None, "{template} {name}");
            }
        }
        let of = |uid| peer_name(TEMPLATE, Whose { namespace: "default", pod: "a", uid: Some(uid) }).unwrap();
        assert_ne!(of("1"), of("2"));
    }
}
