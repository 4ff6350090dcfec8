//! What is asked of nameservers, and nothing else: a host name and one of two types.

use std::net::IpAddr;

use hickory_proto::rr::{Name, RecordType};

/// Longest name in octets (RFC 1035 §2.3.4).
const MAX_NAME: usize = 255;

/// A question to nameservers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    /// As [`host_name`] returns it.
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

/// The types that are forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    A,
    Aaaa,
}

impl Kind {
    pub(crate) fn record_type(self) -> RecordType {
        match self {
            Self::A => RecordType::A,
            Self::Aaaa => RecordType::AAAA,
        }
    }

    pub(crate) fn fits(self, address: IpAddr) -> bool {
        address.is_ipv4() == (self == Self::A)
    }
}

/// `name` in lower case without the last dot; none when it has other characters than host names have (RFC 1123 §2.1, and the
/// underscore). A dot within a label would make two names look like one.
pub(crate) fn host_name(name: &Name) -> Option<String> {
    let mut text = String::with_capacity(name.len());
    for label in name.iter() {
        if !label.iter().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_')) {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.extend(label.iter().map(|c| char::from(c.to_ascii_lowercase())));
    }
    (!text.is_empty()).then_some(text)
}

/// Any name, for people: lower case, escaped, without the last dot.
pub(crate) fn printable(name: &Name) -> String {
    let mut text = name.to_ascii().to_ascii_lowercase();
    if name.is_fqdn() && text.ends_with('.') {
        text.pop();
    }
    text
}

/// Likewise of a text that no name can be made of, and no more of it than a name has.
pub(crate) fn printable_text(text: &str) -> String {
    let escaped = |byte: u8| match byte {
        b'\\' => "\\\\".to_owned(),
        byte if byte.is_ascii_graphic() => char::from(byte.to_ascii_lowercase()).to_string(),
        byte => format!("\\{byte:03}"),
    };
    text.bytes().take(MAX_NAME).map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(labels: &[&[u8]]) -> Name {
        Name::from_labels(labels.iter().copied()).unwrap()
    }

    #[test]
    fn host_names_are_lower_case_and_plain() {
        assert_eq!(host_name(&name(&[b"API", b"Example", b"com"])).unwrap(), "api.example.com");
        assert_eq!(host_name(&name(&[b"_x-1", b"xn--bcher-kva"])).unwrap(), "_x-1.xn--bcher-kva");
        for bad in
            [&[b"a.example".as_slice(), b"com"], &[b"*", b"com"], &[b"a\0", b"com"], &[b"\xff", b"com"]]
        {
            assert_eq!(host_name(&name(bad)), None, "{bad:?}");
        }
        assert_eq!(host_name(&Name::root()), None);
    }

    #[test]
    fn any_name_is_printable() {
        let text = printable(&name(&[b"A.b\n\xff", b"com"]));
        assert!(text.chars().all(|c| c.is_ascii_graphic()), "{text}");
        assert!(text.starts_with("a\\.b") && text.ends_with(".com"), "{text}");
        assert_eq!(printable_text("A..b \0\\é"), "a..b\\032\\000\\\\\\195\\169");
        assert_eq!(printable_text(&"a".repeat(1000)).len(), MAX_NAME);
    }
}
