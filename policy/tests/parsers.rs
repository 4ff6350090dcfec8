//! No text makes a parser panic, and what it accepts is written as it is read.

#![allow(missing_docs, clippy::unwrap_used)]

use std::{fmt::Display, str::FromStr};

use lattice_policy::{Labels, NamePattern, NamedPolicy, NamedRule, Preset, Selector};
use proptest::prelude::*;

/// Texts made of what the grammars are made of, so that many are nearly right.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "{",
        "}",
        ",",
        "=",
        "==",
        "!",
        "!=",
        ":",
        "/",
        "[",
        "]",
        "-",
        "+",
        " ",
        "role",
        "tool",
        "name",
        "kind",
        "tcp:",
        "udp:",
        "icmp:",
        "10.42.0.5",
        "/32",
        "fd00::1",
        "80",
        "8000-8100",
        "a.b/c_d",
        "*.",
        "example",
        ".com",
        "xn--4ca",
        "_tcp.",
        "0x7f",
        "sandboxed",
        "\u{e9}",
        "\0",
    ]);
    prop::collection::vec(piece, 0..10).prop_map(|pieces| pieces.concat())
}

fn reads<T: FromStr<Err: Display> + Display + PartialEq>(text: &str) -> Result<(), TestCaseError> {
    match text.parse::<T>() {
        Ok(value) => {
            let again = value.to_string().parse::<T>();
            prop_assert!(again.is_ok_and(|again| again == value), "{:?} is written as {}", text, value);
        }
        Err(error) => prop_assert!(error.to_string().len() < 1000, "{}", error),
    }
    Ok(())
}

fn all_read(text: &str) -> Result<(), TestCaseError> {
    reads::<Labels>(text)?;
    reads::<Selector>(text)?;
    reads::<NamedRule>(text)?;
    reads::<Preset>(text)?;
    reads::<NamePattern>(text)?;
    let _ = serde_json::from_str::<NamedPolicy>(text);
    let policy = serde_json::json!({ "name": text, "rules": [], "selector": text });
    let _ = serde_json::from_value::<NamedPolicy>(policy);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn nearly_right_texts(text in pieces()) {
        all_read(&text)?;
    }

    #[test]
    fn any_text(text in "\\PC{0,200}") {
        all_read(&text)?;
    }

    #[test]
    fn right_texts(
        selector in "[a-z./_-]{1,9}(=|!=)[a-z0-9+]{1,9}(,!?[a-z]{1,3}){0,4}",
        proto in prop::sample::select(vec!["", "tcp:", "udp:"]),
        ports in prop::sample::select(vec!["", ":80", ":80,443-500"]),
    ) {
        prop_assert!(selector.parse::<Selector>().is_ok());
        let rule = format!("{proto}{{{selector}}}{ports}");
        prop_assert!(rule.parse::<NamedRule>().is_ok(), "{}", rule);
        reads::<NamedRule>(&rule)?;
    }
}
