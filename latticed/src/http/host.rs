//! The `Host` header, of which only the host is used, and only when it is one.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The host of an authority `host[:port]`, in the form that URLs want: a DNS name, an IPv4 address, or an IPv6 address in brackets.
pub(super) fn host_of(authority: &str) -> Option<String> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            let address: Ipv6Addr = address.parse().ok()?;
            (format!("[{address}]"), port)
        }
        None => {
            let (host, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
            (is_host(host).then(|| host.to_ascii_lowercase())?, port)
        }
    };
    let port_is_fine = port.is_empty() || port.strip_prefix(':')?.parse::<u16>().is_ok();
    port_is_fine.then_some(host)
}

fn is_host(host: &str) -> bool {
    // A name whose last label is a number would be read as an IPv4 address by some.
    let numeric = host.rsplit('.').next().is_some_and(|label| label.bytes().all(|c| c.is_ascii_digit()));
    if numeric {
        return host.parse::<Ipv4Addr>().is_ok();
    }
    (1..=253).contains(&host.len()) && host.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever the header, the URL that is made of it names a host and a port of ours and nothing else.
        #[test]
        fn what_is_accepted_makes_a_url_of_one_host(
            authority in prop_oneof!["\\PC{0,80}", "[a-zA-Z0-9.:\\[\\]@/%_-]{0,80}", "[0-9.]{1,20}(:[0-9]{0,6})?"],
        ) {
            if let Some(host) = host_of(&authority) {
                prop_assert!(host.len() <= 253 && host.is_ascii());
                prop_assert!(!host.contains(['@', '/', '?', '#', '%', '\\', ' ', '"']));
                let url = format!("nats://{host}:4222");
                let address: async_nats::ServerAddr = url.parse().unwrap();
                prop_assert_eq!(address.port(), 4222);
                prop_assert!(!address.has_user_pass());
                prop_assert_eq!(host_of(&format!("{host}:1")), Some(host));
            }
        }
    }

    #[test]
    fn accepts_hosts() {
        for (authority, host) in [
            ("lattice.example.com", "lattice.example.com"),
            ("Lattice:8080", "lattice"),
            ("192.0.2.1:8080", "192.0.2.1"),
            ("[2001:db8::1]:8080", "[2001:db8::1]"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(host_of(authority).as_deref(), Some(host), "{authority}");
        }
    }

    #[test]
    fn refuses_what_could_change_a_url() {
        for bad in [
            "",
            ":8080",
            "a@b",
            "user:pw@host:1",
            "a/b",
            "a:99999",
            "a:",
            "a:b",
            "a b",
            "a\n",
            "[::1",
            "[x]:1",
            "[::1]x",
            "::1",
            "300.1.1.1",
            "127.1",
            "0x7f.1",
            "-a",
            "a-",
            "a..b",
            "ä",
            "a?b",
            "a#b",
        ] {
            assert_eq!(host_of(bad), None, "{bad:?}");
        }
    }
}
