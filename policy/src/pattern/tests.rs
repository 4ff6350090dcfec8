use proptest::prelude::*;

use super::*;

fn pattern(text: &str) -> NamePattern {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn patterns_have_one_form() {
    for (text, canonical) in [
        ("api.example.com", "api.example.com"),
        ("API.Example.COM.", "api.example.com"),
        ("*.Example.com.", "*.example.com"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("_dmarc._tcp.example.com", "_dmarc._tcp.example.com"),
        ("r3---sn-4g5e.example.com", "r3---sn-4g5e.example.com"),
        ("1.2.3.4.example", "1.2.3.4.example"),
        ("7.com", "7.com"),
        ("lattice.example.com", "lattice.example.com"),
        ("0x7f.0x1g", "0x7f.0x1g"),
    ] {
        assert_eq!(pattern(text).to_string(), canonical);
        let json = serde_json::to_string(&pattern(text)).unwrap();
        assert_eq!(serde_json::from_str::<NamePattern>(&json).unwrap(), pattern(canonical));
    }
}

#[test]
fn refuses() {
    let (label, long) = ("a".repeat(MAX_LABEL + 1), vec!["a"; 128].join("."));
    for (text, says) in [
        ("", "label of the name is empty"),
        (".", "label of the name is empty"),
        ("..", "label of the name is empty"),
        (".example.com", "label of the name is empty"),
        ("api..example.com", "label of the name is empty"),
        ("example.com..", "label of the name is empty"),
        ("*..com", "label of the name is empty"),
        ("_.example.com", "label of the name is empty"),
        ("localhost", "one label"),
        ("com.", "one label"),
        ("*", "first label"),
        ("**.example.com", "first label"),
        ("*.*.example.com", "first label"),
        ("a.*.example.com", "first label"),
        ("a*.example.com", "first label"),
        ("*example.com", "first label"),
        ("example.*", "first label"),
        ("*.com", "*.example.com"),
        ("-a.example.com", "'-'"),
        ("a-.example.com", "'-'"),
        ("_-a.example.com", "'-'"),
        ("a_b.example.com", "character '_'"),
        ("__a.example.com", "character '_'"),
        ("a b.example.com", "character ' '"),
        ("a\0.example.com", r"character '\0'"),
        ("b\u{fc}cher.example", "punycode"),
        ("api\u{3002}example\u{3002}com", "punycode"),
        ("api\u{ff0e}example.com", "punycode"),
        ("\u{ff11}.example.com", "punycode"),
        ("e\u{301}.example.com", "punycode"),
        ("example.com\u{200b}", "punycode"),
        ("1.2.3.4", "ends in a number"),
        ("1.2.3.4.", "ends in a number"),
        ("127.1", "ends in a number"),
        ("0x7f.1", "ends in a number"),
        ("0177.0.0.01", "ends in a number"),
        ("example.0x7F", "ends in a number"),
        ("example.0x", "ends in a number"),
        ("2130706433", "ends in a number"),
        ("*.1", "ends in a number"),
        ("tool.lattice", ".lattice"),
        ("tool.demo.LATTICE.", ".lattice"),
        ("*.demo.lattice", ".lattice"),
        ("*.lattice", ".lattice"),
        ("lattice", ".lattice"),
        (&format!("{label}.example"), "longer than 63"),
        (&long, "longer than 253"),
    ] {
        let error = text.parse::<NamePattern>().expect_err(text).to_string();
        assert!(error.contains(says), "{text:?}: {error}");
        assert!(!error.contains('\0') && error.len() < 400, "{error:?}");
    }
    assert!(format!("{}.example", &label[1..]).parse::<NamePattern>().is_ok(), "63 bytes are a label");
    assert!(format!("{}a", &long[..252]).parse::<NamePattern>().is_ok(), "253 bytes are a name");
}

#[test]
fn fits_names_and_nothing_that_looks_like_them() {
    let (exact, below) = (pattern("api.example.com"), pattern("*.example.com"));
    for name in ["api.example.com", "API.EXAMPLE.com", "api.example.com.", "aPi.eXample.cOm."] {
        assert!(exact.fits(name) && below.fits(name), "{name}");
    }
    for name in ["a.b.example.com", "_dmarc.example.com", "xn--4ca.example.com."] {
        assert!(below.fits(name) && !exact.fits(name), "{name}");
    }
    let long = format!("{}.example.com", vec!["a"; 125].join("."));
    for name in [
        "example.com",
        "example.com.",
        ".example.com",
        "..example.com",
        "evilexample.com",
        "a.evilexample.com",
        "api.example.com.evil.org",
        "api.example.com..",
        "api.example.com\0",
        "api.example.com\0.evil.org",
        "evil.org\0.example.com",
        "\0.example.com",
        "evil.org/.example.com",
        "evil.org .example.com",
        "api\u{3002}example.com",
        "\u{ff41}pi.example.com",
        "*.example.com",
        "-.example.com",
        "api.example.com:443",
        "com",
        "",
        ".",
        &long,
    ] {
        assert!(!exact.fits(name) && !below.fits(name), "{name:?}");
    }
}

#[test]
fn patterns_nest_or_are_disjoint() {
    let common = |a: &str, b: &str| pattern(a).common(&pattern(b)).map(NamePattern::to_string);
    for (a, b, both) in [
        ("a.example.com", "a.example.com", Some("a.example.com")),
        ("*.example.com", "a.example.com", Some("a.example.com")),
        ("*.example.com", "*.a.example.com", Some("*.a.example.com")),
        ("*.example.com", "*.example.com", Some("*.example.com")),
        ("*.example.com", "example.com", None),
        ("*.example.com", "*.evilexample.com", None),
        ("*.a.example.com", "a.example.com", None),
        ("a.example.com", "b.example.com", None),
    ] {
        assert_eq!(common(a, b).as_deref(), both, "{a} {b}");
        assert_eq!(common(b, a).as_deref(), both, "{b} {a}");
    }
}

/// Names and patterns of few labels, so that they meet.
fn few(most: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "ab"]), 2..most)
        .prop_map(|labels| labels.join("."))
}

fn few_patterns() -> impl Strategy<Value = NamePattern> {
    (few(4), any::<bool>())
        .prop_map(|(name, below)| pattern(&format!("{}{name}", if below { "*." } else { "" })))
}

proptest! {
    #[test]
    fn what_is_common_is_what_both_fit(a in few_patterns(), b in few_patterns(), names in prop::collection::vec(few(7), 40)) {
        let common = a.common(&b);
        for name in names {
            prop_assert_eq!(common.is_some_and(|both| both.fits(&name)), a.fits(&name) && b.fits(&name), "{}", name);
            prop_assert!(!b.fits(&name) || !a.covers(&b) || a.fits(&name));
        }
    }

    #[test]
    fn any_text_is_a_pattern_of_one_form_or_none(text in "\\PC{0,40}|[a-z0-9_*.\\-]{0,40}|[*a-z.]{1,8}\\.[A-Z]{2}") {
        if let Ok(pattern) = text.parse::<NamePattern>() {
            prop_assert_eq!(pattern.to_string().parse(), Ok(pattern.clone()));
            prop_assert!(pattern.is_wildcard() || pattern.fits(&text));
        }
    }
}
