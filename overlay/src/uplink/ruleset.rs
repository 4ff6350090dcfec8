//! The nftables rules around an uplink, as text for nft(8), and what is read back of those in force.

use std::{collections::BTreeMap, fmt::Write as _};

use ipnet::IpNet;

use super::{PREFIX, TABLE_PREFIX, UplinkId, forwarding::Version};

/// What one uplink's rules are made of.
#[derive(Debug)]
pub(super) struct Rules<'a> {
    pub(super) id: UplinkId,
    /// The agent's addresses, one for each IP version that has a way out.
    pub(super) inside: &'a [IpNet],
    /// The links that forward only because of uplinks.
    pub(super) opened: &'a Opened,
    /// For people who list the rules.
    pub(super) owner: &'a str,
}

/// Links that forward only because of an uplink, for each IP version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) v4: Vec<String>,
    pub(super) v6: Vec<String>,
}

impl Opened {
    pub(super) fn of(&self, version: Version) -> &[String] {
        match version {
            Version::V4 => &self.v4,
            Version::V6 => &self.v6,
        }
    }

    pub(super) fn of_mut(&mut self, version: Version) -> &mut Vec<String> {
        match version {
            Version::V4 => &mut self.v4,
            Version::V6 => &mut self.v6,
        }
    }
}

/// How many connections of one agent the host remembers at most: its table is shared by all. Counting takes time by their
/// number, at each new one (`nf_conncount`).
pub(super) const MAX_CONNECTIONS: u32 = 4096;

impl Rules<'_> {
    /// One transaction: the table is there as a whole, or not at all.
    pub(super) fn text(&self) -> String {
        let (table, veth) = (self.id.table(), self.id.link());
        let mut spoofed = String::new();
        let mut masquerade = String::new();
        for (version, family) in [("ipv4", "ip"), ("ipv6", "ip6")] {
            let is_v4 = family == "ip";
            match self.inside.iter().find(|net| matches!(net, IpNet::V4(_)) == is_v4) {
                Some(net) => {
                    let ip = net.addr();
                    let _ = writeln!(spoofed, "    {family} saddr != {ip} counter drop");
                    let _ = writeln!(masquerade, "    {family} saddr {ip} masquerade");
                }
                None => {
                    let _ = writeln!(spoofed, "    meta nfproto {version} counter drop");
                }
            }
        }
        format!(
            r#"add table inet {table}
delete table inet {table}
table inet {table} {{
  comment "lattice: the way out of {owner}"
  {opened4}
  {opened6}
  chain prerouting {{
    type filter hook prerouting priority mangle; policy accept;
    iifname != "{veth}" accept
{spoofed}    fib daddr type != unicast goto refuse
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname "{veth}" goto refuse
  }}
  chain output {{
    type filter hook output priority filter; policy accept;
    oifname "{veth}" fib daddr type != unicast drop
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname "{veth}" goto out
    oifname "{veth}" goto back
    meta nfproto ipv4 iifname @opened4 oifname != "{PREFIX}*" counter drop
    meta nfproto ipv6 iifname @opened6 oifname != "{PREFIX}*" counter drop
  }}
  chain out {{
    ct state {{ invalid, untracked }} counter drop
    ct state new ct count over {MAX_CONNECTIONS} goto refuse
    accept
  }}
  chain back {{
    iifname "{PREFIX}*" goto refuse
    ct state {{ established, related }} accept
    counter drop
  }}
  chain refuse {{
    meta l4proto tcp counter reject with tcp reset
    counter reject with icmpx admin-prohibited
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
{masquerade}  }}
}}
"#,
            owner = self.owner,
            opened4 = set("opened4", &self.opened.v4),
            opened6 = set("opened6", &self.opened.v6),
        )
    }
}

fn set(name: &str, links: &[String]) -> String {
    let mut text = format!("set {name} {{ type ifname; ");
    if !links.is_empty() {
        let quoted: Vec<String> = links.iter().map(|link| format!("\"{link}\"")).collect();
        let _ = write!(text, "elements = {{ {} }}; ", quoted.join(", "));
    }
    text + "}"
}

/// Whether a link's name can stand in rules. The kernel allows more than nft's grammar does.
pub(super) fn can_name(link: &str) -> bool {
    !link.is_empty() && link.bytes().all(|c| c.is_ascii_alphanumeric() || b"._-@+".contains(&c))
}

/// Removes a table, whether it is there or not.
pub(super) fn removal(id: UplinkId) -> String {
    let table = id.table();
    format!("add table inet {table}\ndelete table inet {table}\n")
}

/// The uplinks in what `nft list sets inet` says.
pub(super) fn parse(listing: &str) -> BTreeMap<UplinkId, Opened> {
    let mut all = BTreeMap::new();
    let mut table = None;
    let mut set = "";
    for line in listing.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some("table"), Some("inet"), Some(name)) => {
                table = name.strip_prefix(TABLE_PREFIX).and_then(UplinkId::parse);
                if let Some(id) = table {
                    all.entry(id).or_insert_with(Opened::default);
                }
                set = "";
            }
            (Some("set"), Some(name), _) => set = name,
            _ => {
                let Some(opened) = table.and_then(|id| all.get_mut(&id)) else { continue };
                let links = line.split('"').skip(1).step_by(2).map(str::to_owned);
                match set {
                    "opened4" => opened.v4.extend(links),
                    "opened6" => opened.v6.extend(links),
                    _ => {}
                }
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> UplinkId {
        UplinkId::new(number)
    }

    fn opened(v4: &[&str], v6: &[&str]) -> Opened {
        let owned = |links: &[&str]| links.iter().map(|link| (*link).to_owned()).collect();
        Opened { v4: owned(v4), v6: owned(v6) }
    }

    #[test]
    fn the_text_for_ipv4_alone() {
        let inside = ["198.19.0.3/31".parse().unwrap()];
        let opened = opened(&["eth0", "br-1"], &[]);
        let text = Rules { id: id(0xabc), inside: &inside, opened: &opened, owner: "sandbox a" }.text();
        for line in [
            "delete table inet lattice-up-0000abc",
            "comment \"lattice: the way out of sandbox a\"",
            "set opened4 { type ifname; elements = { \"eth0\", \"br-1\" }; }",
            "set opened6 { type ifname; }",
            "iifname != \"lattice-0000abc\" accept",
            "ip saddr != 198.19.0.3 counter drop",
            "meta nfproto ipv6 counter drop",
            "ip saddr 198.19.0.3 masquerade",
        ] {
            assert!(text.lines().any(|found| found.trim() == line), "{line:?} is not in\n{text}");
        }
        assert!(!text.contains("ip6 saddr"), "{text}");
    }

    #[test]
    fn what_is_listed_is_read_back() {
        let listing = "table inet other {\n\tset opened4 {\n\t\ttype ifname\n\t\telements = { \"eth9\" }\n\t}\n}\n\
            table inet lattice-up-0000abc {\n\tset opened4 {\n\t\ttype ifname\n\t\telements = { \"eth0\",\n\t\t\t     \"br-1\" }\n\t}\n\
            \tset opened6 {\n\t\ttype ifname\n\t}\n}\n\
            table inet lattice-up-x {\n\tset opened4 {\n\t\telements = { \"eth8\" }\n\t}\n}\n\
            table inet lattice-up-fffffff {\n\tset opened6 {\n\t\ttype ifname\n\t\telements = { \"eth1\" }\n\t}\n}\n";
        let expected =
            [(id(0xabc), opened(&["eth0", "br-1"], &[])), (id(0x0fff_ffff), opened(&[], &["eth1"]))];
        assert_eq!(parse(listing), expected.into());
        assert_eq!(parse(""), BTreeMap::new());
    }

    #[test]
    fn no_name_of_a_link_breaks_out_of_the_text() {
        for good in ["eth0", "eth0.100", "br-0a1b2c", "ppp0", "wl_p3s0", "a@b"] {
            assert!(can_name(good), "{good}");
        }
        for bad in ["", "a\"b", "a*", "a b", "a\\", "a;b", "a{b", "\u{e9}th0"] {
            assert!(!can_name(bad), "{bad}");
        }
    }
}
