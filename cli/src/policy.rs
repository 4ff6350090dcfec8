//! `lattice policy`.

use std::{net::IpAddr, process::ExitCode};

use lattice_bootstrap::{Failure, Kind};
use lattice_policy::{Action, Direction, NamePattern, NamedPolicy, NamedRule, PolicyRule};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    admin::{Client, segment},
    args::{Admin, Format, PolicyAdd, PolicyCommand, PolicyExplain, Way},
    output,
};

const PATH: &str = "/api/v1/policies";
const HEADINGS: [&str; 5] = ["NAME", "WORKSPACE", "SELECTOR", "RULES", "EXPIRES"];

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Policy {
    id: String,
    workspace: String,
    policy: NamedPolicy,
    created_at: String,
    expires_at: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Answer {
    action: Action,
    reason: String,
    rule: Option<String>,
    generation: u64,
    opinions: Vec<Opinion>,
}

#[derive(Serialize, Deserialize)]
struct Opinion {
    layer: String,
    action: Action,
    reason: String,
    rule: Option<String>,
    policy: Option<String>,
}

pub(crate) fn run(command: PolicyCommand) -> Result<ExitCode, Failure> {
    match command {
        PolicyCommand::Add(args) => add(*args)?,
        PolicyCommand::List { workspace, admin } => {
            Client::new(&admin)?.show_list(admin.output, PATH, workspace.as_deref(), &HEADINGS, row)?;
        }
        PolicyCommand::Show { name, workspace, admin } => {
            let policy: Policy = Client::new(&admin)?.get(&one(&name, &workspace)?)?;
            show(&admin, &policy);
        }
        PolicyCommand::Remove { name, workspace, admin } => {
            Client::new(&admin)?.delete(&one(&name, &workspace)?)?;
        }
        PolicyCommand::Explain(args) => explain(&args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn add(args: PolicyAdd) -> Result<(), Failure> {
    let PolicyAdd { name, workspace, selector, description, ttl, admin, .. } = args;
    let rules = [
        (Direction::Egress, Action::Allow, args.allow_egress),
        (Direction::Egress, Action::Deny, args.deny_egress),
        (Direction::Ingress, Action::Allow, args.allow_ingress),
        (Direction::Ingress, Action::Deny, args.deny_ingress),
    ];
    let rules = rules.into_iter().flat_map(|(direction, action, rules)| {
        rules.into_iter().map(move |rule: NamedRule| PolicyRule { direction, action, rule })
    });
    let policy = NamedPolicy { name, selector, rules: rules.collect(), description };
    policy.check().map_err(|error| Failure::new(Kind::Usage, error))?;
    if policy.rules.is_empty() {
        return Err(Failure::new(
            Kind::Usage,
            "a policy without a rule says nothing: give --allow-egress or another",
        ));
    }
    let body = json!({ "workspace": workspace, "policy": policy, "ttl": ttl });
    let made: Policy = Client::new(&admin)?.post(PATH, &body)?;
    show(&admin, &made);
    Ok(())
}

fn show(admin: &Admin, policy: &Policy) {
    match admin.output {
        Format::Json => output::print(&json!(policy).to_string()),
        Format::Table => {
            output::table(&HEADINGS, &[row(policy)]);
            let rule =
                |rule: &PolicyRule| vec![word(&rule.action), word(&rule.direction), rule.rule.to_string()];
            output::table(
                &["ACTION", "DIRECTION", "RULE"],
                &policy.policy.rules.iter().map(rule).collect::<Vec<_>>(),
            );
        }
    }
}

fn explain(args: &PolicyExplain) -> Result<(), Failure> {
    let (protocol, end, port) = flow(&args.flow)?;
    let direction = match args.way {
        Way::Egress => Direction::Egress,
        Way::Ingress => Direction::Ingress,
    };
    let (address, name) = match &end {
        End::Address(address) => (Some(address), None),
        End::Name(name) => (None, Some(name)),
    };
    let body = json!({
        "workspace": args.workspace,
        "peer": args.from,
        "egressAllow": args.egress_allow,
        "direction": direction,
        "protocol": protocol,
        "address": address,
        "name": name,
        "port": port,
    });
    let answer: Answer = Client::new(&args.admin)?.post(&format!("{PATH}/explain"), &body)?;
    match args.admin.output {
        Format::Json => output::print(&json!(answer).to_string()),
        Format::Table => {
            output::print(&sentence(&answer, direction, args));
            let dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
            let row = |o: &Opinion| {
                vec![o.layer.clone(), word(&o.action), o.reason.clone(), dash(&o.rule), dash(&o.policy)]
            };
            let rows: Vec<_> = answer.opinions.iter().map(row).collect();
            output::table(&["LAYER", "VERDICT", "REASON", "RULE", "POLICY"], &rows);
            if name.is_some() && answer.action == Action::Allow {
                output::print(
                    "public addresses of the name are pinned when the agent's resolver is asked for it",
                );
            }
            if direction == Direction::Egress && args.egress_allow.is_empty() {
                output::print(
                    "no --egress-allow was given, so the flags allow nothing: give those that the sandbox was started with",
                );
            }
        }
    }
    Ok(())
}

/// The answer in one line, in the words of the flow record.
fn sentence(answer: &Answer, direction: Direction, args: &PolicyExplain) -> String {
    let by = answer.rule.as_ref().map_or_else(|| "no rule".into(), |rule| format!("rule {rule}"));
    format!(
        "{} {}: {} by {by}, reason {}, generation {} of the map of {}",
        word(&direction),
        args.flow,
        word(&answer.action),
        answer.reason,
        answer.generation,
        args.from,
    )
}

/// The other end of a flow.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Address(IpAddr),
    Name(NamePattern),
}

/// `[proto:]address:port`, `[proto:]name:port`, `icmp:address`; an IPv6 address is in brackets. TCP unless said.
fn flow(text: &str) -> Result<(&str, End, Option<u16>), Failure> {
    let wrong = || {
        let text = format!(
            "{text:?} is no flow: write tcp:10.42.0.5:8080, tcp:api.example.com:443, udp:[fd00::1]:53 or icmp:10.42.0.5"
        );
        Failure::new(Kind::Usage, text)
    };
    let (proto, rest) = match text.split_once(':') {
        Some((proto @ ("tcp" | "udp" | "icmp"), rest)) => (proto, rest),
        _ => ("tcp", text),
    };
    let plain = |text: &str| match text.trim_start_matches('[').trim_end_matches(']').parse() {
        Ok(address) => Some(End::Address(address)),
        Err(_) => text.parse().ok().filter(|name: &NamePattern| !name.is_wildcard()).map(End::Name),
    };
    if proto == "icmp" {
        return Ok((proto, plain(rest).ok_or_else(wrong)?, None));
    }
    let (end, port) = rest.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().map_err(|_| wrong())?;
    Ok((proto, plain(end).ok_or_else(wrong)?, Some(port)))
}

fn one(name: &str, workspace: &str) -> Result<String, Failure> {
    Ok(format!("{PATH}/{}?workspace={}", segment(name)?, segment(workspace)?))
}

fn row(policy: &Policy) -> Vec<String> {
    let selector = policy.policy.selector.to_string();
    vec![
        policy.policy.name.clone(),
        policy.workspace.clone(),
        if selector.is_empty() { "(all)".into() } else { selector },
        policy.policy.rules.len().to_string(),
        policy.expires_at.clone().unwrap_or_else(|| "never".into()),
    ]
}

/// The word that JSON has for it.
fn word(value: &impl Serialize) -> String {
    json!(value).as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows() {
        let address = |text: &str| End::Address(text.parse().unwrap());
        let name = |text: &str| End::Name(text.parse().unwrap());
        assert_eq!(flow("tcp:10.42.0.5:8080").unwrap(), ("tcp", address("10.42.0.5"), Some(8080)));
        assert_eq!(flow("udp:[fd00::1]:53").unwrap(), ("udp", address("fd00::1"), Some(53)));
        assert_eq!(flow("icmp:10.42.0.5").unwrap(), ("icmp", address("10.42.0.5"), None));
        assert_eq!(flow("tcp:API.example.com:443").unwrap(), ("tcp", name("api.example.com"), Some(443)));
        assert_eq!(flow("10.42.0.5:8080").unwrap(), ("tcp", address("10.42.0.5"), Some(8080)));
        assert_eq!(flow("[fd00::1]:53").unwrap(), ("tcp", address("fd00::1"), Some(53)));
        assert_eq!(flow("api.example.com:443").unwrap(), ("tcp", name("api.example.com"), Some(443)));
        assert_eq!(flow("icmp:api.example.com").unwrap(), ("icmp", name("api.example.com"), None));
        for bad in [
            "",
            "tcp",
            "tcp:10.42.0.5",
            "tcp:10.42.0.5:x",
            "sctp:10.42.0.5:1",
            "icmp:10.42.0.5:1",
            "tcp:a:1",
            "tcp:127.1:80",
            "tcp:*.example.com:443",
            "tcp:api.example.com",
            "api.example.com",
            "10.42.0.5",
            "10.42.0.5:8080:1",
            "*.example.com:443",
        ] {
            assert!(flow(bad).is_err(), "{bad}");
        }
    }
}
