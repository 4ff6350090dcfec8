//! The examples of docs/policy.md are what they say.

use std::sync::LazyLock;

use lattice_policy::{NamedPolicy, NamedRule, Selector, parse_rule};

const PAGE: &str = include_str!("../../docs/policy.md");

static BLOCKS: LazyLock<Vec<&str>> = LazyLock::new(|| PAGE.split("```").skip(1).step_by(2).collect());

/// The lines of the table that begins with `head`.
fn table(head: &str) -> Vec<&'static str> {
    let lines = PAGE.lines().skip_while(|line| *line != head).skip(2);
    lines.take_while(|line| line.starts_with('|')).collect()
}

/// What stands between backquotes.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// What follows `flag` in commands, without quotes.
fn values(flag: &str) -> Vec<String> {
    let words = BLOCKS.iter().flat_map(|block| block.split_whitespace());
    let mut previous = "";
    let mut found = Vec::new();
    for word in words {
        if std::mem::replace(&mut previous, word) == flag {
            found.push(word.trim_matches('\'').to_owned());
        }
    }
    found
}

#[test]
fn every_rule_is_read_and_what_is_called_refused_is_refused() {
    let rules: Vec<&str> = table("| rule | means |").into_iter().map(|line| quoted(line)[0]).collect();
    assert_eq!(rules.len(), 8, "{rules:?}");
    for rule in
        rules.into_iter().map(str::to_owned).chain(values("--allow-egress")).chain(values("--deny-egress"))
    {
        let named: NamedRule = rule.parse().unwrap_or_else(|error| panic!("{rule}: {error}"));
        assert_eq!(named.to_string().parse::<NamedRule>().as_ref(), Ok(&named), "{rule}");
        assert_eq!(parse_rule(&rule).is_ok(), !rule.contains('{'), "{rule}");
    }
    let flags = values("--egress-allow");
    assert_eq!(flags.len(), 3, "{flags:?}");
    for rule in flags {
        parse_rule(&rule).unwrap_or_else(|error| panic!("{rule}: {error}"));
    }
    let refused = PAGE.lines().find(|line| line.starts_with("An address has one spelling:")).unwrap();
    let (refused, _) = refused.split_once("are refused").unwrap();
    for text in quoted(refused).into_iter().chain(["10.42.0.1/16", "*.com"]) {
        assert!(text.parse::<NamedRule>().is_err(), "{text}");
    }
}

#[test]
fn the_policy_in_json_is_one() {
    let block = BLOCKS.iter().find_map(|block| block.strip_prefix("json")).unwrap();
    let policy: NamedPolicy = serde_json::from_str(block).unwrap();
    policy.check().unwrap();
    assert_eq!((policy.name.as_str(), policy.rules.len()), ("tools", 3));
    for selector in values("--selector") {
        selector.parse::<Selector>().unwrap_or_else(|error| panic!("{selector}: {error}"));
    }
}
