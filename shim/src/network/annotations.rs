//! A pod's annotations `lattice.io/*`: what it asks for of that which the node permits.

use std::collections::HashMap;

use lattice_bootstrap::{Failure, Kind, failure::chain};
use lattice_policy::{Preset, RuleSpec, parse_rule};

const PREFIX: &str = "lattice.io/";

/// Longest value that is read, in bytes. Kubernetes permits 256 KiB for all of a pod's annotations together.
const MAX_VALUE: usize = 64 * 1024;

/// What was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// The rules; none when the pod says nothing, and then the node's default holds.
    pub(super) egress: Option<Vec<RuleSpec>>,
    /// Takes the place of the pod's name in the peer's.
    pub(super) name: Option<String>,
    /// A preset besides what the token says, one that only narrows.
    pub(super) preset: Option<Preset>,
}

/// Reads the annotations; those of others are passed over.
///
/// # Errors
/// One that is unknown, or cannot be read: an annotation with a typing error must not mean "no limit".
pub(super) fn read(annotations: &HashMap<String, String>) -> Result<Asked, Failure> {
    let mut asked = Asked::default();
    for (key, value) in annotations {
        let Some(name) = key.strip_prefix(PREFIX) else { continue };
        let refuse =
            |what: &str| Failure::new(Kind::Usage, format!("annotation {PREFIX}{}: {what}", shown(name)));
        if value.len() > MAX_VALUE {
            return Err(refuse("its value is longer than 64 KiB"));
        }
        match name {
            "egress-allow" => {
                let parse = |text: String| parse_rule(&text).map_err(|error| refuse(&chain(&error)));
                let words = value.split([' ', ',', '\n', '\t']).filter(|word| !word.is_empty());
                asked.egress = Some(rules(words).into_iter().map(parse).collect::<Result<_, _>>()?);
            }
            "name" if value.is_empty() => return Err(refuse("it is empty")),
            "name" => asked.name = Some(value.clone()),
            "preset" => {
                asked.preset = match value.parse() {
                    Ok(Preset::Coordinator) => {
                        return Err(refuse(
                            "coordinator lets other peers in: it comes with a token of the pod's own (LATTICE_TOKEN), made by `lattice token create --preset coordinator`",
                        ));
                    }
                    Ok(preset) => Some(preset),
                    Err(error) => return Err(refuse(&chain(&error))),
                };
            }
            _ => {
                return Err(refuse(
                    "is not known: use lattice.io/egress-allow, lattice.io/preset or lattice.io/name",
                ));
            }
        }
    }
    Ok(asked)
}

/// Commas separate rules, and ports within a rule: what is a number or a range belongs to the rule before it.
fn rules<'a>(words: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut rules: Vec<String> = Vec::new();
    for word in words {
        let is_ports = word.bytes().all(|c| c.is_ascii_digit() || c == b'-');
        match rules.last_mut() {
            Some(rule) if is_ports => {
                rule.push(',');
                rule.push_str(word);
            }
            _ => rules.push(word.to_owned()),
        }
    }
    rules
}

/// Whoever writes annotations must not write our log.
fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(key: &str, value: &str) -> Result<Asked, Failure> {
        read(&HashMap::from([(key.to_owned(), value.to_owned()), ("io.example/x".into(), "y".into())]))
    }

    #[test]
    fn rules_are_separated_by_commas_and_spaces() {
        let value = "tcp:10.42.0.9:80,443, api.example.com:443\n10.42.0.0/16";
        let asked = one("lattice.io/egress-allow", value).unwrap().egress.unwrap();
        let texts: Vec<&str> = asked.iter().map(|rule| rule.text.as_str()).collect();
        assert_eq!(texts, ["tcp:10.42.0.9:80,443", "api.example.com:443", "10.42.0.0/16"]);
        assert_eq!(
            one("lattice.io/egress-allow", " ").unwrap().egress,
            Some(vec![]),
            "nothing, not the default"
        );
        assert_eq!(one("lattice.io/preset", "isolated").unwrap().preset, Some(Preset::Isolated));
        assert_eq!(one("other.io/egress-allow", "x").unwrap(), Asked::default());
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        for (key, value, word) in [
            ("lattice.io/egres-allow", "", "egres-allow"),
            ("lattice.io/egress-allow", "tcp:", "egress-allow"),
            ("lattice.io/egress-allow", "443", "egress-allow"),
            ("lattice.io/preset", "coordinator", "token"),
            ("lattice.io/preset", "", "preset"),
            ("lattice.io/preset", "sandboxed,isolated", "unknown preset"),
            ("lattice.io/name", "", "name"),
            ("lattice.io/a\nb", "", "ab"),
        ] {
            let failure = one(key, value).unwrap_err();
            assert!(failure.message.contains(word) && !failure.message.contains('\n'), "{failure}");
        }
    }
}
