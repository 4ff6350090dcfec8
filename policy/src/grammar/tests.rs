use super::*;

#[test]
fn accepts() {
    // text, canonical text
    let cases = [
        ("10.42.0.10/32", "10.42.0.10/32"),
        ("10.42.0.10/32:8080", "10.42.0.10/32:8080"),
        ("10.42.0.10", "10.42.0.10/32"),
        ("10.42.0.10:1-65535", "10.42.0.10/32:1-65535"),
        ("0.0.0.0/0:443", "0.0.0.0/0:443"),
        ("tcp:10.0.0.0/8:80,8000-8100", "tcp:10.0.0.0/8:80,8000-8100"),
        ("tcp:10.0.0.0/8:8000-8100,80,81,8050-8200", "tcp:10.0.0.0/8:80-81,8000-8200"),
        ("10.0.0.1:65535,65535", "10.0.0.1/32:65535"),
        ("10.0.0.1:8000-8100,8010-8020", "10.0.0.1/32:8000-8100"),
        ("udp:[fd00::/8]:53", "udp:[fd00::/8]:53"),
        ("[fd00::/8]", "fd00::/8"),
        ("fd00::/8", "fd00::/8"),
        ("udp:fd00::/8", "udp:fd00::/8"),
        ("icmp:10.0.0.0/8", "icmp:10.0.0.0/8"),
        ("icmp:[::1]", "icmp:::1/128"),
        ("[2001:db8::1]", "2001:db8::1/128"),
        ("[2001:DB8:0::1]:80", "[2001:db8::1/128]:80"),
        ("dead:beef::/32", "dead:beef::/32"),
        ("64:ff9b::192.0.2.1", "64:ff9b::c000:201/128"),
        ("::/0", "::/0"),
        ("::", "::/128"),
        ("169.254.169.254/32:80", "169.254.169.254/32:80"),
        ("api.example.com", "api.example.com"),
        ("api.example.com:443", "api.example.com:443"),
        ("tcp:*.Example.COM:8443,443", "tcp:*.example.com:443,8443"),
        ("icmp:api.example.com.", "icmp:api.example.com"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("udp:_dns.example.com.:53", "udp:_dns.example.com:53"),
        ("tcp.example.com:80", "tcp.example.com:80"),
        ("dead.beef:443", "dead.beef:443"),
        ("10.0.0.1.example:80", "10.0.0.1.example:80"),
    ];
    for (text, canonical) in cases {
        let spec = parse_rule(text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(spec.to_string(), canonical, "{text}");
        assert_eq!(spec.text, text);
    }
}

#[test]
fn refuses() {
    // text, what the message must say
    let cases = [
        ("", "there is no address"),
        ("tcp:", "there is no address"),
        (":80", "there is no address"),
        ("/24", "there is no address"),
        ("10.0.0.0/8 ", "character ' '"),
        ("10.0.0.1\0", r"character '\0'"),
        ("10.0.0.1\n", r"character '\n'"),
        ("10.0.0.\u{661}", "character"),
        ("sctp:10.0.0.0/8", r#"unknown protocol "sctp""#),
        ("TCP:10.0.0.0/8:80", r#"unknown protocol "TCP""#),
        ("icmpv6:[fd00::/8]", r#"unknown protocol "icmpv6""#),
        ("any:10.0.0.0/8", r#"unknown protocol "any""#),
        ("tcp:udp:10.0.0.0/8", "\"udp\""),
        ("0x7f.1", "four decimal numbers"),
        ("0x7f000001", "four decimal numbers"),
        ("0x7f.0.0.0x1", "four decimal numbers"),
        ("0177.0.0.1", "four decimal numbers"),
        ("2130706433", "four decimal numbers"),
        ("127.1", "four decimal numbers"),
        ("127.0.0.1.", "four decimal numbers"),
        ("1.2.3.256", "four decimal numbers"),
        ("1.2.3.4.5", "four decimal numbers"),
        ("01.2.3.4/32", "four decimal numbers"),
        ("+1.2.3.4", "four decimal numbers"),
        ("10.0.0.0-10.0.0.9", "four decimal numbers"),
        ("fe80::1%eth0", "zone id"),
        ("[fe80::1%25eth0]:80", "zone id"),
        ("::ffff:10.0.0.1", "write it as IPv4"),
        ("[::ffff:a00:1]:80", "write it as IPv4"),
        ("::ffff:0:0/96", "write it as IPv4"),
        ("fd00:::1", "not an IPv6 address"),
        ("fd00::12345", "not an IPv6 address"),
        ("1:2:3", "not an IPv6 address"),
        ("10.42.0.10/24", "write 10.42.0.0/24 for the whole network or 10.42.0.10/32 for the one address"),
        ("fd00::1/8", "write fd00::/8 for the whole network or fd00::1/128 for the one address"),
        ("10.0.0.0/33", "from 0 to 32"),
        ("fd00::/129", "from 0 to 128"),
        ("10.0.0.0/", "prefix length"),
        ("10.0.0.0/08", "prefix length"),
        ("10.0.0.0/+8", "prefix length"),
        ("10.0.0.0/-1", "prefix length"),
        ("10.0.0.0/8/8", "prefix length"),
        ("10.0.0.0/255.0.0.0", "prefix length"),
        ("10.0.0.0/256", "prefix length"),
        ("10.0.0.0/99999999999999999999", "prefix length"),
        ("[10.0.0.1]:80", "brackets"),
        ("[fd00::1", "brackets"),
        ("[fd00::]/8:53", "brackets"),
        ("fd00::1]:53", "brackets"),
        ("[]:53", "brackets"),
        ("[[fd00::1]]", "brackets"),
        ("fd00::/8:53", "needs brackets"),
        ("10.0.0.1:80:90", "more than one ':'"),
        ("[fd00::1]:80:90", "more than one ':'"),
        ("10.0.0.1:", r#""" is not a port"#),
        ("10.0.0.1:80,", r#""" is not a port"#),
        ("10.0.0.1:,80", r#""" is not a port"#),
        ("10.0.0.1:80,,90", r#""" is not a port"#),
        ("10.0.0.1:-", r#""-" is not a port"#),
        ("10.0.0.1:80-", r#""80-" is not a port"#),
        ("10.0.0.1:1-2-3", r#""1-2-3" is not a port"#),
        ("10.0.0.1:0", r#""0" is not a port"#),
        ("10.0.0.1:0-80", r#""0-80" is not a port"#),
        ("10.0.0.1:080", r#""080" is not a port"#),
        ("10.0.0.1:+80", r#""+80" is not a port"#),
        ("10.0.0.1:65536", r#""65536" is not a port"#),
        ("10.0.0.1:http", r#""http" is not a port"#),
        ("10.0.0.1:*", r#""*" is not a port"#),
        ("10.0.0.1:90-80", "reversed"),
        ("icmp:10.0.0.0/8:80", "ICMP has no ports"),
        ("icmp:[fd00::/8]:", "ICMP has no ports"),
        ("*", "0.0.0.0/0"),
        ("*:443", "0.0.0.0/0"),
        ("localhost:80", "one label"),
        ("*.com:443", "at least two labels"),
        ("a.*.example.com", "first label"),
        ("*.*.example.com:443", "first label"),
        ("example.com/24", "no prefix length"),
        ("*/0", "0.0.0.0/0"),
        ("tool.lattice:80", "stand for peers"),
        ("tool.demo.lattice.", "stand for peers"),
        ("api..example.com", "label of the name is empty"),
        ("a_b.example.com", "character '_'"),
        ("b\u{fc}cher.example:443", "punycode"),
        ("api\u{3002}example.com", "punycode"),
        ("api\u{ff0e}example.com", "punycode"),
        ("\u{ff11}\u{ff12}7.0.0.1", "ASCII"),
        ("api.example.com\0.evil.org", r"character '\0'"),
        ("api.example.com%eth0", "zone id"),
        ("[api.example.com]:443", "brackets"),
        ("api.example.com:443:80", "more than one ':'"),
        ("api.example.com:", r#""" is not a port"#),
        ("icmp:api.example.com:80", "ICMP has no ports"),
        ("https:api.example.com", r#"unknown protocol "https""#),
        ("https://api.example.com", r#"unknown protocol "https""#),
        ("api.example.com:1,3,5,7,9,11,13", "at most 6 ports"),
        ("api.0x7f", "four decimal numbers"),
        ("*.127.1", "four decimal numbers"),
        ("1.2.3.4.", "four decimal numbers"),
        ("::ffff:1.2.3.4.", "not an IPv6 address"),
    ];
    for (text, says) in cases {
        let error = parse_rule(text).expect_err(text).to_string();
        assert!(error.starts_with(&format!("invalid egress CIDR {text:?}: ")), "{error}");
        assert!(error.contains(says), "{text}: {error}");
        assert!(!error.contains('\n') && !error.contains('\0'), "{error:?}");
    }
}

#[test]
fn bounds() {
    let ports = |count: usize| (1..=count).map(|n| (2 * n).to_string()).collect::<Vec<_>>().join(",");
    let rule = |count| parse_rule(&format!("10.0.0.1:{}", ports(count)));
    assert_eq!(rule(MAX_PORTS).unwrap().ports.len(), MAX_PORTS);
    assert_eq!(*rule(MAX_PORTS + 1).unwrap_err().cause(), Cause::TooManyPorts);
    for filler in ["1", "a", ":", "[", "\0", "/", "ä"] {
        let error = parse_rule(&filler.repeat(MAX_TEXT + 1)).unwrap_err();
        assert_eq!(*error.cause(), Cause::TooLong);
        assert!(error.to_string().len() < 500, "{error}");
        let error = parse_rule(&filler.repeat(MAX_TEXT / 2)).unwrap_err();
        assert!(error.to_string().len() < 600, "{error}");
    }
}

#[test]
fn the_prefix_length_zero_names_a_family() {
    assert_eq!(parse_rule("0.0.0.0/0").unwrap().target, Target::Net("0.0.0.0/0".parse().unwrap()));
    assert!(parse_rule("1.0.0.0/0").unwrap_err().to_string().contains("write 0.0.0.0/0"));
}
