//! The grammar against arbitrary and nearly right texts.

#![allow(missing_docs, clippy::unwrap_used)]

use lattice_policy::{RuleSpec, Target, parse_rule};
use proptest::prelude::*;

/// Pieces of rules and of attacks on them, so that random texts get past the first check.
const PIECES: [&str; 50] = [
    "tcp:",
    "udp:",
    "icmp:",
    "sctp:",
    "10.0.0.0",
    "10.42.0.10",
    "0.0.0.0",
    "255.255.255.255",
    "169.254.169.254",
    "0x7f",
    "0177",
    "2130706433",
    "::",
    "::1",
    "fd00::",
    "2001:db8::1",
    "::ffff:",
    "fe80::1%eth0",
    "[",
    "]",
    "/",
    "/0",
    "/8",
    "/32",
    "/128",
    "/129",
    ":",
    ":80",
    ":0",
    ":65535",
    ":65536",
    ",",
    "443",
    "-",
    "8000-8100",
    "9-1",
    ".",
    "a",
    "example.com",
    "*",
    "*.",
    "xn--4ca",
    "_a",
    "lattice",
    " ",
    "\0",
    "\n",
    "ä",
    "+",
    "%",
];

fn rule_like() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(&PIECES[..]), 0..8).prop_map(|pieces| pieces.concat())
}

fn well_formed() -> impl Strategy<Value = String> {
    let proto = prop::sample::select(&["", "tcp:", "udp:"][..]);
    let v4 = (any::<u32>(), 0u8..=32).prop_map(|(bits, len)| net(std::net::Ipv4Addr::from(bits).into(), len));
    let v6 =
        (any::<u128>(), 0u8..=128).prop_map(|(bits, len)| net(std::net::Ipv6Addr::from(bits).into(), len));
    let target = prop_oneof![v4, v6.prop_map(|net| format!("[{net}]"))];
    let range = prop_oneof![
        (1u16..).prop_map(|port| port.to_string()),
        (1u16.., 1u16..).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
    ];
    let ports = prop::collection::vec(range, 0..6)
        .prop_map(|ports| if ports.is_empty() { String::new() } else { format!(":{}", ports.join(",")) });
    (proto, target, ports).prop_map(|(proto, target, ports)| format!("{proto}{target}{ports}"))
}

fn net(address: std::net::IpAddr, len: u8) -> String {
    ipnet::IpNet::new(address, len).unwrap().trunc().to_string()
}

/// What must hold for whatever was accepted.
fn sound(text: &str, spec: &RuleSpec) -> Result<(), TestCaseError> {
    match &spec.target {
        Target::Net(net) => prop_assert_eq!(*net, net.trunc()),
        Target::Name(name) => prop_assert_eq!(name.to_string().parse(), Ok(name.clone())),
    }
    prop_assert!(spec.ports.iter().all(|range| 0 < range.lo && range.lo <= range.hi));
    for pair in spec.ports.windows(2) {
        prop_assert!(u32::from(pair[0].hi) + 1 < u32::from(pair[1].lo), "{:?}", pair);
    }
    prop_assert_eq!(&spec.text, text);

    let printed = spec.to_string();
    let again = parse_rule(&printed).map_err(|error| TestCaseError::fail(error.to_string()))?;
    prop_assert_eq!((again.proto, &again.target, &again.ports), (spec.proto, &spec.target, &spec.ports));
    prop_assert_eq!(again.to_string(), printed);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        if let Ok(spec) = parse_rule(&text) {
            sound(&text, &spec)?;
        }
    }

    #[test]
    fn nearly_right_text_is_sound_or_refused(text in rule_like()) {
        match parse_rule(&text) {
            Ok(spec) => sound(&text, &spec)?,
            Err(error) => {
                let message = error.to_string();
                prop_assert!(message.starts_with("invalid egress CIDR "));
                prop_assert!(!message.contains(char::is_control), "{:?}", message);
                prop_assert!(message.len() < 700);
            }
        }
    }

    #[test]
    fn well_formed_text_is_accepted(text in well_formed()) {
        // The one family of addresses that has another spelling.
        prop_assume!(!text.contains("::ffff:"));
        let spec = parse_rule(&text).map_err(|error| TestCaseError::fail(error.to_string()))?;
        sound(&text, &spec)?;
    }

    #[test]
    fn joined_ports_are_the_ports_as_written(written in prop::collection::vec((1u16..40, 0u16..10), 1..8)) {
        let list: Vec<String> = written.iter().map(|(lo, more)| format!("{lo}-{}", lo + more)).collect();
        let spec = parse_rule(&format!("10.0.0.1:{}", list.join(","))).unwrap();
        for port in 0..60 {
            let named = written.iter().any(|(lo, more)| (*lo..=lo + more).contains(&port));
            prop_assert_eq!(spec.ports.iter().any(|range| range.contains(port)), named, "{}", port);
        }
    }

    #[test]
    fn one_damaged_byte_is_sound_or_refused(text in well_formed(), at: prop::sample::Index, by in 0u8..128) {
        let mut bytes = text.into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = by;
        let text = String::from_utf8(bytes).unwrap();
        if let Ok(spec) = parse_rule(&text) {
            sound(&text, &spec)?;
        }
    }
}
