use super::*;
use crate::{Proto, parse_rule};

const PUBLIC: &str = "93.184.216.34";

/// `+` allows, `-` denies; egress.
fn policy(rules: &str) -> Policy {
    rules.split_whitespace().fold(Policy::new(1), |policy, rule| {
        let action = if rule.starts_with('-') { Action::Deny } else { Action::Allow };
        policy.egress(action, parse_rule(&rule[1..]).unwrap())
    })
}

fn names(rules: &str) -> Names {
    Names::new(&policy(rules), &["10.42.0.0/16".parse().unwrap(), "8.8.4.4/32".parse().unwrap()])
}

/// The lines of the pin of an answer, as text; `rules` when address rules decide.
fn pinned(rules: &str, name: &str, address: &str) -> Result<String, Refused> {
    let pin = names(rules).pin(name, address.parse().unwrap(), 7)?;
    let line = |line: &Match| {
        let ports = line.ports.map(|ports| ports.to_string()).unwrap_or_default();
        format!("{}:{:?}:{ports}", line.rule.0, line.proto)
    };
    Ok(pin.map_or("rules".into(), |pin| pin.matches.iter().map(line).collect::<Vec<_>>().join(" ")))
}

#[test]
fn a_name_is_resolved_when_a_rule_allows_it_and_none_denies_it() {
    let names =
        names("+10.0.0.1 +*.example.com:443 +api.example.com -secret.example.com -*.deep.example.com");
    for (name, verdict) in [
        ("www.example.com", NameVerdict::Allowed(RuleId(2))),
        ("API.example.COM.", NameVerdict::Allowed(RuleId(2))),
        ("secret.example.com", NameVerdict::Denied(RuleId(6))),
        ("a.b.deep.example.com", NameVerdict::Denied(RuleId(8))),
        ("deep.example.com", NameVerdict::Allowed(RuleId(2))),
        ("example.com", NameVerdict::Unknown),
        ("evilexample.com", NameVerdict::Unknown),
        ("www.example.com.evil.org", NameVerdict::Unknown),
        ("www.example.com\0", NameVerdict::Unknown),
        ("10.0.0.1", NameVerdict::Unknown),
        ("", NameVerdict::Unknown),
    ] {
        assert_eq!(names.query(name), verdict, "{name:?}");
    }
}

#[test]
fn an_answer_opens_what_the_rules_by_its_name_allow() {
    let rules = "+*.example.com:443 +tcp:api.example.com:80,443 +icmp:api.example.com +api.example.org";
    assert_eq!(pinned(rules, "www.example.com", PUBLIC).unwrap(), "1:Any:443");
    assert_eq!(pinned(rules, "api.example.com", PUBLIC).unwrap(), "1:Any:443 3:Tcp:80 5:Icmp:");
    assert_eq!(pinned(rules, "api.example.com", "2606:4700::1").unwrap(), "2:Any:443 4:Tcp:80 6:Icmp:");
    assert_eq!(pinned(rules, "api.example.org", PUBLIC).unwrap(), "7:Any:");
    assert_eq!(pinned(rules, "example.com", PUBLIC), Err(Refused::Unknown));
    assert_eq!(
        pinned("+*.example.com -a.example.com", "a.example.com", PUBLIC),
        Err(Refused::Denied(RuleId(3)))
    );
}

#[test]
fn an_answer_that_no_name_opens_is_refused() {
    let closed = |address| match pinned("+a.example.com", "a.example.com", address) {
        Err(refused @ Refused::Closed(_)) => refused,
        other => panic!("{address}: {other:?}"),
    };
    for address in [
        "10.1.2.3",
        "127.0.0.1",
        "169.254.169.254",
        "168.63.129.16",
        "::ffff:93.184.216.34",
        "10.42.0.9",
        "8.8.4.4",
    ] {
        assert_eq!(closed(address).reason(), Reason::Answer);
    }
    assert_eq!(
        closed("8.8.4.4").to_string(),
        "it is a peer's or the host's own address, which no name opens; allow it by its address"
    );
    assert_eq!(Refused::Unknown.reason(), Reason::Name);
}

#[test]
fn an_answer_that_address_rules_allow_needs_no_pin() {
    let told = |rules: &str, address| pinned(&format!("+a.example.com {rules}"), "a.example.com", address);
    assert_eq!(told("+10.0.0.0/8:443", "10.1.2.3").unwrap(), "rules");
    assert_eq!(told("+10.42.0.9:443", "10.42.0.9").unwrap(), "rules");
    assert_eq!(told("+8.8.4.0/24", "8.8.4.4").unwrap(), "rules");
    assert_eq!(told("+10.0.0.0/8:443 -10.1.0.0/16:22", "10.1.2.3").unwrap(), "rules");
    assert!(told("+10.0.0.0/8:443 -10.1.0.0/16", "10.1.2.3").is_err(), "denied whole");
    assert!(told("+10.0.0.0/8:443 -10.1.0.0/16:443", "10.1.2.3").is_err(), "nothing is left");
    assert!(told("+0.0.0.0/0", "169.254.169.254").is_err(), "guarded");
    assert_eq!(told("+169.254.169.254:80", "169.254.169.254").unwrap(), "rules");
    assert_eq!(
        told("+0.0.0.0/0:443", PUBLIC).unwrap(),
        "1:Any:",
        "a public address is pinned for what rules leave"
    );
    assert_eq!(told("+10.0.0.0/8", "::ffff:10.0.0.1").unwrap(), "rules", "packets to it are judged as IPv4");
    assert!(told("+::/0", "::ffff:10.0.0.1").is_err());
}

#[test]
fn lines_that_find_no_room_are_the_narrowest() {
    let many = |rules: &str| lines(policy(rules).rules().iter().filter(|rule| rule.net.addr().is_ipv4()));
    let (kept, left_out) = many("+a.example.com:1,3,5,7,9,11 +*.example.com:2-12");
    assert_eq!(
        kept.iter().map(|line| line.rule.0).collect::<Vec<_>>(),
        [1, 3],
        "1 is not in 2-12, the others are"
    );
    assert_eq!(left_out, []);
    let (kept, left_out) = many("+a.example.com:1,3,5,7,9,11 +*.example.com:20-29,40 +tcp:a.example.com");
    assert_eq!(kept.len(), Pin::MAX_LINES);
    assert_eq!(kept.iter().filter(|line| line.ports.is_none() && line.proto == Proto::Tcp).count(), 1);
    assert_eq!(left_out, [RuleId(1), RuleId(3)]);
}

#[test]
fn ten_thousand_rules_are_asked_by_index() {
    let rules = (0..10_000).fold(Policy::new(1), |policy, n| {
        policy.egress(Action::Allow, parse_rule(&format!("*.h{n}.example.com:443")).unwrap())
    });
    let names = Names::new(&rules, &[]);
    assert_eq!(names.query("a.b.c.h9999.example.com"), NameVerdict::Allowed(RuleId(19_999)));
    assert_eq!(names.fitting("a.h77.example.com").len(), 2);
    let deep = format!("{}h1.example.com", "a.".repeat(100));
    assert_eq!(names.query(&deep), NameVerdict::Allowed(RuleId(3)));
}
