//! The command's environment.

use std::{net::SocketAddr, process::Command};

/// They begin the names of what is not the command's.
const SECRETS: [&str; 3] = ["LATTICE_TOKEN", "LATTICE_ADMIN_TOKEN", "LATTICE_PROXY_AUTH"];

/// In which the command finds its name.
const NAME: &str = "LATTICE_SANDBOX_NAME";

/// Takes from what `command` inherits the variables that hold secrets of ours.
pub(super) fn without_secrets(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if SECRETS.iter().any(|secret| name.as_encoded_bytes().starts_with(secret.as_bytes())) {
            command.env_remove(name);
        }
    }
}

/// What every command is told.
pub(super) fn of_sandbox(name: &str) -> Vec<(String, String)> {
    vec![(NAME.into(), name.into())]
}

/// Where it finds room for what it needs for a while: of the host's own places it sees none.
pub(super) fn of_files() -> Vec<(String, String)> {
    vec![("TMPDIR".into(), "/tmp".into())]
}

/// How a command finds the proxy at `address`, by the variables that curl, git, Python, Go and Node read. Names are resolved by the proxy.
pub(super) fn of_proxy(address: SocketAddr, credentials: &str) -> Vec<(String, String)> {
    let url = |scheme: &str| format!("{scheme}://{credentials}@{address}");
    let mut all = Vec::new();
    for (names, value) in [
        (&["ALL_PROXY", "all_proxy"][..], url("socks5h")),
        (&["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"], url("http")),
        (&["NO_PROXY", "no_proxy"], "localhost,127.0.0.1,::1".into()),
    ] {
        all.extend(names.iter().map(|name| ((*name).to_owned(), value.clone())));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_finds_the_proxy_and_its_credentials() {
        let all = of_proxy("127.0.0.1:4711".parse().unwrap(), "run:secret");
        let of = |name: &str| all.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
        assert_eq!(of("ALL_PROXY"), Some("socks5h://run:secret@127.0.0.1:4711"));
        assert_eq!(of("https_proxy"), Some("http://run:secret@127.0.0.1:4711"));
        assert_eq!(of("NO_PROXY"), Some("localhost,127.0.0.1,::1"));
        assert_eq!(of("http_proxy"), Some("http://run:secret@127.0.0.1:4711"));
    }
}
