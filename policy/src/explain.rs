//! Why a packet, or a flow to a name, passes or not: what each layer and the flags say about it.

mod name;

use std::borrow::Borrow;

use crate::{
    Action, Direction, Layer, LayerRule, Overlay, Packet, Reason, RuleId, RuleSpec, evaluate, layer,
};
pub use name::{NamedFlow, explain_name};

/// What one layer, or the flags, say about a packet. It passes when all opinions are [`Action::Allow`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opinion {
    /// The layer's name; `flags` for the sandbox's own; `default` where no layer says anything about ingress; `resolver` for
    /// what all of them make of a name.
    pub layer: String,
    /// Allow or deny.
    pub action: Action,
    /// Why.
    pub reason: Reason,
    /// The text of the rule that decided; none when the default did.
    pub rule: Option<String>,
    /// The named policy that the rule comes from.
    pub policy: Option<String>,
}

/// The opinions that [`effective`](crate::effective) combines for `packet`, layers first.
pub fn explain<L: Borrow<Layer>>(
    layers: &[L],
    flags: &[RuleSpec],
    overlay: &Overlay,
    packet: &Packet,
) -> Vec<Opinion> {
    let mut opinions: Vec<Opinion> =
        layers.iter().map(|layer| opinion(layer.borrow(), overlay, packet)).collect();
    match packet.direction {
        Direction::Egress => opinions.push(opinion(&of_flags(flags), overlay, packet)),
        Direction::Ingress if layers.is_empty() => {
            let ingress = vec![LayerRule::allow(layer::echo(overlay.pool()))];
            let echo = Layer { ingress, ..Layer::closed("default") };
            opinions.push(opinion(&echo, overlay, packet));
        }
        Direction::Ingress => {}
    }
    opinions
}

/// The flags as a layer.
fn of_flags(flags: &[RuleSpec]) -> Layer {
    let egress = flags.iter().cloned().map(LayerRule::allow).collect();
    Layer { egress, ..Layer::closed("flags") }
}

fn opinion(layer: &Layer, overlay: &Overlay, packet: &Packet) -> Opinion {
    let policy = layer.policy(1, overlay);
    let verdict = evaluate(&policy, packet);
    Opinion {
        layer: layer.name.clone(),
        action: verdict.action,
        reason: verdict.reason,
        rule: policy.rule(verdict.rule).map(|rule| rule.text.clone()),
        policy: source(layer, overlay, verdict.rule).and_then(|rule| rule.policy.clone()),
    }
}

/// The rule of a layer that became the rule `id` of its [`Layer::policy`]: ids count through egress, then ingress.
fn source<'a>(layer: &'a Layer, overlay: &Overlay, id: RuleId) -> Option<&'a LayerRule> {
    let place = usize::try_from(id.0).ok()?.checked_sub(1)?;
    let rules = layer.egress.iter().chain(&layer.ingress);
    let count = |rule: &LayerRule| overlay.with_twins(rule.spec.scopes()).len();
    rules.flat_map(|rule| std::iter::repeat_n(rule, count(rule))).nth(place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse_rule;

    fn rule(action: Action, text: &str, policy: Option<&str>) -> LayerRule {
        LayerRule { action, spec: parse_rule(text).unwrap(), policy: policy.map(str::to_owned) }
    }

    fn overlay() -> Overlay {
        Overlay::new("10.42.0.0/16".parse().unwrap(), "fd12:3456:789a::/48".parse().unwrap()).unwrap()
    }

    #[test]
    fn every_layer_and_the_flags_speak() {
        let layers = [
            Layer {
                egress: vec![
                    rule(Action::Allow, "10.42.0.0/16", Some("wide")),
                    rule(Action::Deny, "10.42.0.5:22", Some("no-ssh")),
                ],
                ingress: vec![rule(Action::Allow, "10.42.0.5", Some("in"))],
                ..Layer::closed("policies")
            },
            Layer {
                egress: vec![rule(Action::Allow, "10.42.0.5", None)],
                ..Layer::closed("preset sandboxed")
            },
        ];
        let flags = [parse_rule("10.42.0.5:80").unwrap()];
        let overlay = overlay();
        let say_of = |remote: &str, direction, port| {
            let packet = Packet { direction, proto: 6, remote: remote.parse().unwrap(), port: Some(port) };
            let opinions = explain(&layers, &flags, &overlay, &packet).into_iter();
            let words = |o: Opinion| {
                let (rule, policy) = (o.rule.unwrap_or_default(), o.policy.unwrap_or_default());
                format!("{} {:?} {rule} {policy}", o.layer, o.action).trim().to_owned()
            };
            opinions.map(words).collect::<Vec<_>>()
        };
        let say = |direction, port| {
            let by_ipv6 = say_of("fd12:3456:789a::a2a:5", direction, port);
            let said = say_of("10.42.0.5", direction, port);
            assert_eq!(by_ipv6, said, "the same rules, by IPv6");
            said
        };
        assert_eq!(
            say(Direction::Egress, 22),
            ["policies Deny 10.42.0.5:22 no-ssh", "preset sandboxed Allow 10.42.0.5", "flags Deny"]
        );
        assert_eq!(say(Direction::Egress, 80)[2], "flags Allow 10.42.0.5:80");
        assert_eq!(
            say(Direction::Ingress, 80),
            ["policies Allow 10.42.0.5 in", "preset sandboxed Deny"],
            "flags say nothing about ingress"
        );
    }

    #[test]
    fn without_layers_the_pool_may_send_icmp() {
        let overlay = overlay();
        let remote = "10.42.0.5".parse().unwrap();
        let packet = Packet { direction: Direction::Ingress, proto: 1, remote, port: None };
        let opinions = explain::<Layer>(&[], &[], &overlay, &packet);
        assert_eq!((opinions[0].layer.as_str(), opinions[0].action), ("default", Action::Allow));
    }
}
