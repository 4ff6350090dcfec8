//! Finds firewalls of others that may drop forwarded packets, in what `nft list ruleset` says.
//!
//! Docker, ufw and firewalld drop what they were not told to forward, and no accept elsewhere overrules that. A table
//! in which a rule already names our links or addresses is taken to be in order.

use super::{NET_V4, PREFIX, TABLE_PREFIX};

/// A chain that may drop what an uplink forwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objection {
    /// `ip filter FORWARD`, as nft names it.
    pub chain: String,
    /// The command that makes an exception.
    pub remedy: String,
}

struct Table<'a> {
    family: &'a str,
    name: &'a str,
    lines: Vec<&'a str>,
}

/// The chains that matter when (IPv4, IPv6) packets are forwarded.
pub(super) fn objections(listing: &str, (v4, v6): (bool, bool)) -> Vec<Objection> {
    let matters = |table: &&Table<'_>| match table.family {
        "ip" => v4,
        "ip6" => v6,
        family => family == "inet",
    };
    let others = tables(listing).into_iter().filter(|table| !table.name.starts_with(TABLE_PREFIX));
    let others: Vec<Table<'_>> = others.collect();
    others.iter().filter(matters).filter(|table| !knows_us(table)).filter_map(objection).collect()
}

fn tables(listing: &str) -> Vec<Table<'_>> {
    let mut all: Vec<Table<'_>> = Vec::new();
    for line in listing.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match (words.as_slice(), all.last_mut()) {
            (["table", family, name, "{"], _) if line.starts_with("table") => {
                all.push(Table { family, name, lines: Vec::new() });
            }
            (_, Some(table)) => table.lines.push(line.trim()),
            _ => {}
        }
    }
    all
}

fn knows_us(table: &Table<'_>) -> bool {
    let (link, net) = (format!("\"{PREFIX}"), NET_V4.to_string());
    table.lines.iter().any(|line| line.contains(&link) || line.contains(&net))
}

fn objection(table: &Table<'_>) -> Option<Objection> {
    let mut chain = "";
    for line in &table.lines {
        if let Some(rest) = line.strip_prefix("chain ") {
            chain = rest.trim_end_matches(" {");
        }
        // firewalld accepts by policy and rejects by a last rule.
        let refuses = line.contains("policy drop") || table.name == "firewalld";
        if line.contains("hook forward") && refuses {
            let Table { family, name, .. } = table;
            let chain = format!("{family} {name} {chain}");
            return Some(Objection { remedy: remedy(table, &chain), chain });
        }
    }
    None
}

fn remedy(table: &Table<'_>, chain: &str) -> String {
    if table.name == "firewalld" {
        return format!("firewall-cmd --zone=trusted --add-source={NET_V4}");
    }
    let iptables = match (table.family, table.name) {
        ("ip", "filter") => "iptables",
        ("ip6", "filter") => "ip6tables",
        _ => {
            return format!(
                "nft insert rule {chain} iifname \"{PREFIX}*\" accept; nft insert rule {chain} oifname \"{PREFIX}*\" ct state established,related accept"
            );
        }
    };
    let docker = table.lines.iter().any(|line| line.starts_with("chain DOCKER-USER"));
    let chain = if docker { "DOCKER-USER" } else { "FORWARD" };
    format!(
        "{iptables} -I {chain} -i {PREFIX}+ -j ACCEPT; {iptables} -I {chain} -o {PREFIX}+ -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCKER: &str = "table ip filter {\n\tchain DOCKER-USER {\n\t\tcounter packets 0 bytes 0 return\n\t}\n\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy drop;\n\t\tcounter jump DOCKER-USER\n\t}\n}\n";
    const OWN: &str = "table ip lattice-up-0000abc {\n\tchain forward {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n}\n";

    fn chains(listing: &str, versions: (bool, bool)) -> Vec<String> {
        objections(listing, versions).into_iter().map(|objection| objection.chain).collect()
    }

    #[test]
    fn docker_is_found_with_its_remedy() {
        let found = objections(&format!("{OWN}{DOCKER}"), (true, true));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].chain, "ip filter FORWARD");
        assert!(found[0].remedy.starts_with("iptables -I DOCKER-USER -i lattice-+ -j ACCEPT; "), "{found:?}");
        assert!(chains(DOCKER, (false, true)).is_empty(), "IPv6 is not its business");
    }

    #[test]
    fn who_forwards_or_knows_us_is_not_named() {
        assert!(chains(&DOCKER.replace("policy drop", "policy accept"), (true, true)).is_empty());
        let told = DOCKER.replace("counter packets 0 bytes 0 return", "iifname \"lattice-*\" counter accept");
        assert!(chains(&told, (true, true)).is_empty());
        let input = DOCKER.replace("hook forward", "hook input");
        assert!(chains(&input, (true, true)).is_empty());
        assert!(chains("", (true, true)).is_empty());
    }

    #[test]
    fn others_are_told_in_their_own_words() {
        let own = "table inet mine {\n\tchain onward {\n\t\ttype filter hook forward priority 0; policy drop;\n\t}\n}\n";
        assert_eq!(chains(own, (true, false)), ["inet mine onward"]);
        let remedy = &objections(own, (true, false))[0].remedy;
        assert!(
            remedy.starts_with("nft insert rule inet mine onward iifname \"lattice-*\" accept"),
            "{remedy}"
        );
        let firewalld = "table inet firewalld {\n\tchain filter_FORWARD {\n\t\ttype filter hook forward priority filter + 10; policy accept;\n\t\treject with icmpx admin-prohibited\n\t}\n}\n";
        let found = objections(firewalld, (true, false));
        assert_eq!(found[0].remedy, "firewall-cmd --zone=trusted --add-source=198.19.0.0/16");
        let ip6 = DOCKER.replace("table ip ", "table ip6 ").replace("DOCKER-USER", "ufw6-before");
        assert!(objections(&ip6, (true, true))[0].remedy.starts_with("ip6tables -I FORWARD -i lattice-+"));
    }
}
