//! The `resolv.conf(5)` of a pod's containers: our resolver, and of kubelet's file what says how names are searched.

use std::{fmt::Write as _, fs, io, io::Read as _, net::IpAddr, path::Path};

/// More than any such file holds, in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// Most domains of a search list, as in Kubernetes.
const MAX_SEARCH: usize = 32;

/// What of a file is kept.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Searching {
    /// Domains in lower case, without a dot at the end.
    pub(super) search: Vec<String>,
    options: Vec<String>,
}

impl Searching {
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let mut bytes = Vec::new();
        fs::File::open(path)?.take(MAX_FILE).read_to_end(&mut bytes)?;
        Ok(Self::parse(&String::from_utf8_lossy(&bytes)))
    }

    fn parse(text: &str) -> Self {
        let mut kept = Self::default();
        let is_plain = |word: &&str| {
            word.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.' | b':'))
        };
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                // The last of such lines counts.
                Some("search" | "domain") => {
                    let domains =
                        words.filter(is_plain).map(|word| word.trim_matches('.').to_ascii_lowercase());
                    kept.search = domains.filter(|domain| !domain.is_empty()).take(MAX_SEARCH).collect();
                }
                Some("options") => kept.options.extend(words.filter(is_plain).map(str::to_owned)),
                _ => {}
            }
        }
        kept
    }

    /// The file of the containers.
    pub(super) fn for_containers(&self) -> String {
        let mut text = "nameserver 127.0.0.1\n".to_owned();
        for (key, words) in [("search", &self.search), ("options", &self.options)] {
            if !words.is_empty() {
                let _ = writeln!(text, "{key} {}", words.join(" "));
            }
        }
        text
    }
}

/// The file that names these nameservers.
pub(super) fn of_nameservers(nameservers: &[IpAddr]) -> String {
    nameservers.iter().map(|address| format!("nameserver {address}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_and_options_are_kept_and_nameservers_are_not() {
        let kubelet = "nameserver 10.96.0.10\nsearch old.example\nsearch default.svc.cluster.local svc.Cluster.local. cluster.local\noptions ndots:5 trust-ad\n# nameserver 1\n";
        let kept = Searching::parse(kubelet);
        assert_eq!(kept.search, ["default.svc.cluster.local", "svc.cluster.local", "cluster.local"]);
        assert_eq!(
            kept.for_containers(),
            "nameserver 127.0.0.1\nsearch default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5 trust-ad\n"
        );
        assert_eq!(Searching::parse("search a\u{7}b .").for_containers(), "nameserver 127.0.0.1\n");
    }
}
