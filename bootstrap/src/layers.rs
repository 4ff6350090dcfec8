//! Reads what the control plane allows this peer. Whatever cannot be read denies: an old or broken server must not open
//! what a policy was meant to close.

use lattice_policy::{Action, Layer, LayerRule, RuleError, parse_rule};
use lattice_wire::{
    MapPolicy,
    netmap::{self, MAX_LAYER_RULES, MAX_LAYERS, MapRule},
};

/// Longest name of a layer or policy that is shown, in characters.
const MAX_NAME: usize = 64;

/// The one layer of a policy that has too many.
const TOO_MANY: &str = "too many layers";

/// The layers of `policy`. Without one there are none, and the sandbox's flags decide.
pub fn read(policy: Option<&MapPolicy>) -> Vec<Layer> {
    let layers = policy.map_or(&[][..], |policy| &policy.layers);
    if layers.len() > MAX_LAYERS {
        tracing::warn!(
            layers = layers.len(),
            "latticed sent a policy of more than {MAX_LAYERS} layers: everything is denied"
        );
        return vec![Layer::closed(TOO_MANY)];
    }
    layers.iter().map(layer).collect()
}

/// The names of the layers that [`read`] gives, without reading their rules again.
pub(crate) fn names(policy: Option<&MapPolicy>) -> Vec<String> {
    let layers = policy.map_or(&[][..], |policy| &policy.layers);
    if layers.len() > MAX_LAYERS {
        return vec![TOO_MANY.into()];
    }
    layers.iter().map(|layer| shown(&layer.name)).collect()
}

fn layer(sent: &netmap::Layer) -> Layer {
    let name = shown(&sent.name);
    let most = sent.egress.len().max(sent.ingress.len());
    if most > MAX_LAYER_RULES {
        tracing::warn!(
            layer = name,
            rules = most,
            "a layer of the policy has too many rules: it denies everything"
        );
        return Layer::closed(name);
    }
    match (rules(&sent.egress), rules(&sent.ingress)) {
        (Ok(_), Ok(ingress)) if ingress.iter().any(|rule| rule.spec.is_by_name()) => {
            tracing::warn!(
                layer = name,
                "a layer of the policy has an ingress rule by name: it denies everything"
            );
            Layer::closed(name)
        }
        (Ok(egress), Ok(ingress)) => Layer { name, egress, ingress },
        (Err(error), _) | (_, Err(error)) => {
            tracing::warn!(layer = name, %error, "a layer of the policy cannot be read: it denies everything");
            Layer::closed(name)
        }
    }
}

fn rules(sent: &[MapRule]) -> Result<Vec<LayerRule>, RuleError> {
    let rule = |sent: &MapRule| {
        let action = if sent.allow { Action::Allow } else { Action::Deny };
        Ok(LayerRule { action, spec: parse_rule(&sent.rule)?, policy: sent.policy.as_deref().map(shown) })
    };
    sent.iter().map(rule).collect()
}

/// A server's words, as far as they are fit for logs and records.
fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> MapRule {
        MapRule { allow: true, rule: text.into(), policy: Some("p\n".repeat(100)) }
    }

    fn sent(egress: Vec<MapRule>, ingress: Vec<MapRule>) -> netmap::Layer {
        netmap::Layer { name: "policies".into(), egress, ingress }
    }

    fn read_one(layer: netmap::Layer) -> Layer {
        read(Some(&MapPolicy { layers: vec![layer] })).remove(0)
    }

    #[test]
    fn names_are_those_of_the_layers_that_are_read() {
        let odd = netmap::Layer { name: "p\n".repeat(100), ..sent(vec![rule("")], vec![]) };
        for layers in
            [vec![], vec![odd.clone()], vec![sent(vec![], vec![]), odd.clone()], vec![odd; MAX_LAYERS + 1]]
        {
            let policy = MapPolicy { layers };
            let read: Vec<String> = read(Some(&policy)).into_iter().map(|layer| layer.name).collect();
            assert_eq!(names(Some(&policy)), read);
        }
        assert!(names(None).is_empty());
    }

    #[test]
    fn layers_are_read() {
        let deny = MapRule { allow: false, policy: None, ..rule("tcp:10.42.0.5:22") };
        let layer = read_one(sent(vec![rule("10.42.0.0/16"), deny], vec![rule("icmp:10.42.0.0/16")]));
        let actions: Vec<Action> = layer.egress.iter().map(|rule| rule.action).collect();
        assert_eq!(actions, [Action::Allow, Action::Deny]);
        assert_eq!(layer.ingress[0].spec.text, "icmp:10.42.0.0/16");
        assert_eq!(layer.egress[0].policy.as_deref(), Some("p".repeat(MAX_NAME).as_str()));
        assert!(read(None).is_empty());
    }

    #[test]
    fn what_cannot_be_read_denies() {
        let closed = Layer::closed("policies");
        assert_eq!(read_one(sent(vec![rule("10.42.0.0/16"), rule("tcp:{role=tool}")], vec![])), closed);
        assert_eq!(read_one(sent(vec![rule("10.42.0.0/16")], vec![rule("")])), closed);
        assert_eq!(read_one(sent(vec![rule("a.example.com")], vec![rule("a.example.com")])), closed);
        assert_eq!(read_one(sent(vec![rule("10.42.0.0/16"); MAX_LAYER_RULES + 1], vec![])), closed);
        let many = MapPolicy { layers: vec![sent(vec![rule("10.42.0.0/16")], vec![]); MAX_LAYERS + 1] };
        assert_eq!(read(Some(&many)), [Layer::closed("too many layers")]);
    }
}
