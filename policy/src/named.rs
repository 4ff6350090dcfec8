//! Named policies: what an operator writes down once for all peers that fit a selector.

mod rule;

use serde::{Deserialize, Serialize};

use crate::{Action, Direction, Selector};
pub use rule::NamedRule;
pub(crate) use rule::NamedTarget;

/// Longest name, in bytes.
pub const MAX_NAME: usize = 63;

/// Most rules of one policy.
pub const MAX_RULES: usize = 256;

/// Longest description, in bytes.
pub const MAX_DESCRIPTION: usize = 1024;

/// Rules for the peers that a selector chooses. JSON is checked when it is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct NamedPolicy {
    /// Unique in its workspace; 1 to 63 of `a-z`, `0-9` and `-`.
    pub name: String,
    /// Whom it is for; text.
    pub selector: Selector,
    /// What it says. A deny rule wins over every allow rule, of any policy.
    pub rules: Vec<PolicyRule>,
    /// For people.
    pub description: String,
}

/// One rule of a [`NamedPolicy`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyRule {
    /// Which way.
    pub direction: Direction,
    /// What happens.
    pub action: Action,
    /// To what; text.
    pub rule: NamedRule,
}

/// Why something is no named policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// A bad name.
    #[error(
        "invalid policy name {0:?}: use 1 to {MAX_NAME} of a-z, 0-9 and '-', beginning and ending with a letter or digit"
    )]
    Name(String),
    /// More than [`MAX_RULES`].
    #[error("the policy {0:?} has more than {MAX_RULES} rules; split it into several policies")]
    TooManyRules(String),
    /// A description that is too long or has control characters.
    #[error(
        "the description of the policy {0:?} is longer than {MAX_DESCRIPTION} bytes or holds control characters"
    )]
    Description(String),
    /// A rule by name for ingress.
    #[error(
        "the policy {0:?} has the ingress rule {1:?}: rules by name are for egress only, because nothing proves the name of who \
         comes in; write an address or {{selector}}"
    )]
    IngressName(String, String),
}

// === impl NamedPolicy ===

impl NamedPolicy {
    /// Checks name, description and rules as a whole; reading one from JSON does so too.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), PolicyError> {
        let name = &self.name;
        let letters = name.bytes().all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if !letters || !(1..=MAX_NAME).contains(&name.len()) || name.starts_with('-') || name.ends_with('-') {
            return Err(PolicyError::Name(name.chars().take(80).collect()));
        }
        if self.rules.len() > MAX_RULES {
            return Err(PolicyError::TooManyRules(name.clone()));
        }
        let by_name = |rule: &&PolicyRule| rule.direction == Direction::Ingress && rule.rule.is_by_name();
        if let Some(rule) = self.rules.iter().find(by_name) {
            return Err(PolicyError::IngressName(name.clone(), rule.rule.to_string()));
        }
        if self.description.len() > MAX_DESCRIPTION || self.description.contains(char::is_control) {
            return Err(PolicyError::Description(name.clone()));
        }
        Ok(())
    }
}

/// The JSON form, before it is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    name: String,
    #[serde(default)]
    selector: Selector,
    rules: Vec<PolicyRule>,
    #[serde(default)]
    description: String,
}

impl TryFrom<Unchecked> for NamedPolicy {
    type Error = PolicyError;
    fn try_from(Unchecked { name, selector, rules, description }: Unchecked) -> Result<Self, PolicyError> {
        let policy = Self { name, selector, rules, description };
        policy.check().map(|()| policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOLS: &str = r#"{"name":"tools","selector":"role=agent","rules":[
        {"direction":"egress","action":"allow","rule":"tcp:{role=tool}:8080"}],"description":"what agents use"}"#;

    #[test]
    fn json_round_trips() {
        let policy: NamedPolicy = serde_json::from_str(TOOLS).unwrap();
        assert_eq!(policy.rules[0].rule.to_string(), "tcp:{role=tool}:8080");
        let again = serde_json::to_string(&policy).unwrap();
        assert_eq!(serde_json::from_str::<NamedPolicy>(&again).unwrap(), policy);
    }

    #[test]
    fn bad_json_is_refused_with_its_reason() {
        for (from, to, says) in [
            ("\"tools\"", "\"Tools\"", "invalid policy name"),
            ("\"tools\"", "\"\"", "invalid policy name"),
            ("role=agent", "role=", "invalid value"),
            ("{role=tool}", "{role=tool", "braces"),
            ("egress", "outward", "unknown variant"),
            (
                "egress\",\"action\":\"allow\",\"rule\":\"tcp:{role=tool}:",
                "ingress\",\"action\":\"deny\",\"rule\":\"a.example:",
                "egress only",
            ),
            ("\"description\"", "\"descripton\"", "unknown field"),
            ("what agents use", "\\u0007", "control characters"),
        ] {
            let error =
                serde_json::from_str::<NamedPolicy>(&TOOLS.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let mut policy: NamedPolicy = serde_json::from_str(TOOLS).unwrap();
        policy.rules = vec![policy.rules[0].clone(); MAX_RULES + 1];
        assert!(matches!(policy.check(), Err(PolicyError::TooManyRules(_))));
    }
}
