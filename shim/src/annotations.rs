//! What the CRI plugins of containerd and CRI-O say about a container by annotations of its OCI spec.

use std::collections::HashMap;

use crate::error::{Error, Result};

/// The annotations of one spec.
pub type Annotations = HashMap<String, String>;

/// containerd: `sandbox` or `container`.
pub const CONTAINER_TYPE: [&str; 2] =
    ["io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"];
/// The id of the pod's first container, by which all of its containers share one shim.
pub const SANDBOX_ID: [&str; 2] = ["io.kubernetes.cri.sandbox-id", "io.kubernetes.cri-o.SandboxID"];
/// The pod's name, its namespace and its unique id.
pub const SANDBOX_NAME: &str = "io.kubernetes.cri.sandbox-name";
/// See [`SANDBOX_NAME`].
pub const SANDBOX_NAMESPACE: &str = "io.kubernetes.cri.sandbox-namespace";
/// See [`SANDBOX_NAME`].
pub const SANDBOX_UID: &str = "io.kubernetes.cri.sandbox-uid";
/// Where kubelet collects a pod's logs.
pub const SANDBOX_LOG_DIRECTORY: &str = "io.kubernetes.cri.sandbox-log-directory";

/// What a container is in its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The first container, with which gVisor's kernel begins. So is one that names no pod: `ctr run`.
    Root,
    /// One that joins.
    Member,
}

/// Refuses what two CRI plugins say at once. Each overwrites its own keys; those of the other come from the pod, which could name another
/// pod's id, name and namespace by them.
///
/// # Errors
/// [`Error::Invalid`] with the key.
pub fn check(annotations: &Annotations) -> Result<()> {
    let theirs = [CONTAINER_TYPE[0], SANDBOX_ID[0], SANDBOX_NAME, SANDBOX_NAMESPACE, SANDBOX_UID];
    let is_crio = [CONTAINER_TYPE[1], SANDBOX_ID[1]].iter().any(|key| annotations.contains_key(*key));
    match theirs.iter().find(|key| is_crio && annotations.contains_key(**key)) {
        Some(key) => {
            Err(Error::Invalid(format!("annotation {key} beside those of CRI-O: a pod must not set it")))
        }
        None => Ok(()),
    }
}

/// What `annotations` make the container.
pub fn role(annotations: &Annotations) -> Role {
    match first(annotations, &CONTAINER_TYPE) {
        Some("container") => Role::Member,
        _ => Role::Root,
    }
}

/// Whether the container holds a pod's namespaces and runs nothing of its user's: the pause program.
pub fn is_pause(annotations: &Annotations) -> bool {
    first(annotations, &CONTAINER_TYPE) == Some("sandbox")
}

/// The pod's id: the annotation, else the container's own id.
pub fn sandbox_id<'a>(annotations: &'a Annotations, own: &'a str) -> &'a str {
    first(annotations, &SANDBOX_ID).unwrap_or(own)
}

fn first<'a>(annotations: &'a Annotations, keys: &[&str]) -> Option<&'a str> {
    keys.iter().find_map(|key| annotations.get(*key)).map(String::as_str).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Annotations {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn without_annotations_a_container_is_a_pod_of_its_own() {
        let none = of(&[]);
        assert_eq!(role(&none), Role::Root);
        assert_eq!(sandbox_id(&none, "a"), "a");
    }

    #[test]
    fn both_container_runtimes_of_kubernetes_are_understood() {
        for (kind, id) in [(CONTAINER_TYPE[0], SANDBOX_ID[0]), (CONTAINER_TYPE[1], SANDBOX_ID[1])] {
            let member = of(&[(kind, "container"), (id, "pod")]);
            assert_eq!(role(&member), Role::Member);
            assert_eq!(sandbox_id(&member, "a"), "pod");
            assert_eq!(role(&of(&[(kind, "sandbox")])), Role::Root);
            check(&member).unwrap();
        }
    }

    #[test]
    fn a_pod_cannot_speak_for_the_other_runtime() {
        for forged in [CONTAINER_TYPE[0], SANDBOX_ID[0], SANDBOX_NAME, SANDBOX_NAMESPACE, SANDBOX_UID] {
            let pod = of(&[(CONTAINER_TYPE[1], "sandbox"), (forged, "victim")]);
            let refused = check(&pod).unwrap_err().to_string();
            assert!(refused.contains(forged), "{refused}");
        }
        let with_containerd = of(&[(CONTAINER_TYPE[0], "sandbox"), (SANDBOX_ID[1], "victim")]);
        assert!(check(&with_containerd).is_err());
    }
}
