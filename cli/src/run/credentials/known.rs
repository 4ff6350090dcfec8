//! Where other programs keep secrets.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

/// Files and directories of a home, by the programs whose they are.
const SECRET: [&str; 50] = [
    // Shells on other hosts, signatures, stores of passwords.
    ".ssh",
    ".gnupg",
    ".netrc",
    ".password-store",
    ".local/share/keyrings",
    ".local/share/kwalletd",
    ".config/op",
    ".config/Bitwarden",
    ".config/sops/age",
    ".vault-token",
    // Repositories and registries.
    ".git-credentials",
    ".config/git/credentials",
    ".config/gh",
    ".config/glab-cli",
    ".config/hub",
    ".npmrc",
    ".yarnrc.yml",
    ".pypirc",
    ".config/pip",
    ".cargo/credentials",
    ".cargo/credentials.toml",
    ".gem/credentials",
    ".m2/settings.xml",
    ".gradle/gradle.properties",
    // Clouds and clusters.
    ".aws",
    ".azure",
    ".config/gcloud",
    ".config/doctl",
    ".oci",
    ".boto",
    ".s3cfg",
    ".config/rclone",
    ".fly",
    ".terraform.d",
    ".kube",
    ".docker",
    ".config/containers",
    // Databases.
    ".pgpass",
    ".my.cnf",
    // Browsers and mail.
    ".mozilla",
    ".thunderbird",
    ".config/google-chrome",
    ".config/chromium",
    ".config/BraveSoftware",
    ".config/microsoft-edge",
    ".config/vivaldi",
    ".config/opera",
    "snap/firefox",
    "snap/chromium",
    ".var/app",
];

/// Variables that say where a program keeps such a file or directory.
const MOVED: [&str; 11] = [
    "GNUPGHOME",
    "PASSWORD_STORE_DIR",
    "NETRC",
    "GH_CONFIG_DIR",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CONFIG_FILE",
    "AZURE_CONFIG_DIR",
    "CLOUDSDK_CONFIG",
    "DOCKER_CONFIG",
    "REGISTRY_AUTH_FILE",
    "PGPASSFILE",
];

/// Variables that name another directory than that of a home (XDG Base Directory Specification).
const BASES: [(&str, &str); 2] = [("XDG_CONFIG_HOME", ".config"), ("XDG_DATA_HOME", ".local/share")];

/// Where such things may be: in `homes`, and where `variable` says.
pub(super) fn places(homes: &[PathBuf], variable: &dyn Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let named = |name: &str| variable(name).filter(|value| !value.is_empty());
    let mut all: Vec<PathBuf> =
        homes.iter().flat_map(|home| SECRET.iter().map(move |name| home.join(name))).collect();
    for (name, dir) in BASES {
        let Some(base) = named(name).map(PathBuf::from) else { continue };
        all.extend(
            SECRET.iter().filter_map(|secret| Some(base.join(Path::new(secret).strip_prefix(dir).ok()?))),
        );
    }
    for name in MOVED {
        all.extend(named(name).map(PathBuf::from));
    }
    if let Some(cargo) = named("CARGO_HOME").map(PathBuf::from) {
        all.extend(["credentials", "credentials.toml"].map(|file| cargo.join(file)));
    }
    if let Some(several) = named("KUBECONFIG") {
        all.extend(env::split_paths(&several).filter(|file| !file.as_os_str().is_empty()));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_moved_is_known() {
        let variable = |name: &str| match name {
            "XDG_CONFIG_HOME" => Some("/moved/config".into()),
            "KUBECONFIG" => Some("/moved/one::/moved/two".into()),
            "CARGO_HOME" => Some("/moved/cargo".into()),
            "GNUPGHOME" => Some("/moved/gnupg".into()),
            "DOCKER_CONFIG" => Some(OsString::new()),
            _ => None,
        };
        let all = places(&["/home/me".into()], &variable);
        for path in [
            "/home/me/.ssh",
            "/home/me/.config/gh",
            "/moved/config/gh",
            "/moved/config/git/credentials",
            "/moved/one",
            "/moved/two",
            "/moved/cargo/credentials.toml",
            "/moved/gnupg",
        ] {
            assert!(all.iter().any(|known| known.as_os_str() == path), "{path}: {all:?}");
        }
        assert!(all.iter().all(|path| path.is_absolute()), "{all:?}");
        let moved = places(&[], &variable);
        assert!(moved.iter().all(|path| path.starts_with("/moved")), "{moved:?}");
        assert_eq!(places(&[], &|_| None), [""; 0].map(PathBuf::from));
    }
}
