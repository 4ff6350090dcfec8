//! The grammars of rules, selectors, labels and named policies.

use std::{fmt::Display, str::FromStr};

use lattice_policy::{Labels, NamedPolicy, NamedRule, Preset, RuleSpec, Selector, Target, parse_rule};

use crate::json::read;

/// Longest message about a text, in characters. The text is the operator's, or a server's.
const MAX_MESSAGE: usize = 1000;

/// A rule of flags, and the same text as a rule of a named policy.
pub(crate) fn rule(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let named = round_trip::<NamedRule>(text);
    match parse_rule(text) {
        Ok(spec) => {
            assert!(named.is_some(), "a flag that a named policy does not know");
            sound(text, &spec);
            true
        }
        Err(error) => {
            fit(&error);
            false
        }
    }
}

fn sound(text: &str, spec: &RuleSpec) {
    assert_eq!(spec.text, text);
    assert!(!matches!(spec.target, Target::Net(net) if net != net.trunc()));
    assert!(spec.ports.iter().all(|range| 0 < range.lo && range.lo <= range.hi));
    assert!(spec.ports.windows(2).all(|pair| u32::from(pair[0].hi) + 1 < u32::from(pair[1].lo)));
    let written = spec.to_string();
    let again = parse_rule(&written).expect("what was written is read");
    assert_eq!((again.proto, &again.target, &again.ports), (spec.proto, &spec.target, &spec.ports));
    assert_eq!(again.to_string(), written);
}

/// Whom a policy is for; and a rule with that selector.
pub(crate) fn selector(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let _ = round_trip::<NamedRule>(&format!("tcp:{{{text}}}:80"));
    round_trip::<Selector>(text).is_some()
}

/// What an operator says of a peer.
pub(crate) fn labels(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let _ = round_trip::<Preset>(text);
    let as_json = read::<Labels>(bytes);
    let as_text = round_trip::<Labels>(text);
    if let Some(labels) = &as_json {
        assert_eq!(labels.to_string().parse::<Labels>().as_ref(), Ok(labels));
    }
    as_text.or(as_json).is_some()
}

/// A named policy, as the API takes it and the store keeps it.
pub(crate) fn named_policy(bytes: &[u8]) -> bool {
    let Some(policy) = read::<NamedPolicy>(bytes) else { return false };
    policy.check().expect("what was read is sound");
    true
}

fn round_trip<T>(text: &str) -> Option<T>
where
    T: FromStr<Err: Display> + Display + PartialEq + std::fmt::Debug,
{
    match text.parse::<T>() {
        Ok(value) => {
            let written = value.to_string();
            match written.parse::<T>() {
                Ok(again) => assert_eq!(again, value, "written as {written:?}"),
                Err(error) => panic!("{value:?} is written as {written:?}, which is not read: {error}"),
            }
            Some(value)
        }
        Err(error) => {
            fit(&error);
            None
        }
    }
}

/// A message is for a terminal and a log.
fn fit(error: &impl Display) {
    let message = error.to_string();
    assert!(message.chars().count() <= MAX_MESSAGE, "{} characters", message.chars().count());
    assert!(!message.contains(char::is_control), "{message:?}");
}
