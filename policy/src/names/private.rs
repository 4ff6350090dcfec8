//! Names whose private addresses the operator of a host trusts: those of a cluster's services.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{NamePattern, builtin};

/// Names below some domains, which may open addresses of some networks although these are private.
///
/// Whoever answers for the domains decides what is reached in the networks, so both belong to one authority: a cluster's
/// nameserver and its services.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrivateNames {
    domains: Vec<NamePattern>,
    nets: Vec<IpNet>,
}

/// Why there are no such names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrivateNamesError {
    /// Not the name of a domain.
    #[error("{0:?} is not a domain such as cluster.local")]
    Domain(String),
    /// Cloud metadata, link-local or multicast addresses, or a network that holds some of them or of loopback.
    #[error("{0} holds addresses that no name may open: name the cluster's own networks")]
    Guarded(IpNet),
}

impl PrivateNames {
    /// The names below `domains` may open addresses in `nets`.
    ///
    /// # Errors
    /// When one is no domain, or a network holds guarded addresses or loopback's.
    pub fn new(domains: &[String], nets: &[IpNet]) -> Result<Self, PrivateNamesError> {
        let below = |domain: &String| {
            let domain = domain.trim_matches('.');
            let pattern: Result<NamePattern, _> = format!("*.{domain}").parse();
            pattern.map_err(|_| PrivateNamesError::Domain(domain.to_owned()))
        };
        let loopback = [IpNet::from(IpAddr::from([127, 0, 0, 0])), IpNet::from(IpAddr::from([0, 0, 0, 0]))];
        let is_bad = |net: &&IpNet| {
            builtin::rules().iter().any(|guarded| net.contains(&guarded.net) || guarded.net.contains(*net))
                || loopback.iter().any(|at| net.contains(at))
                || matches!(net.addr(), IpAddr::V4(at) if at.is_loopback())
                || net.contains(&IpAddr::from(std::net::Ipv6Addr::LOCALHOST))
        };
        match nets.iter().find(is_bad) {
            Some(net) => Err(PrivateNamesError::Guarded(*net)),
            None => Ok(Self {
                domains: domains.iter().map(below).collect::<Result<_, _>>()?,
                nets: nets.to_vec(),
            }),
        }
    }

    /// The networks.
    pub fn nets(&self) -> &[IpNet] {
        &self.nets
    }

    /// Whether `name` may open `address`.
    pub(super) fn open(&self, name: &str, address: IpAddr) -> bool {
        self.nets.iter().any(|net| net.contains(&address))
            && self.domains.iter().any(|domain| domain.fits(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Action, Names, Policy, Refused, parse_rule};

    fn cluster(domains: &[&str], nets: &[&str]) -> Result<PrivateNames, PrivateNamesError> {
        let domains: Vec<String> = domains.iter().map(|text| (*text).to_owned()).collect();
        let nets: Vec<IpNet> = nets.iter().map(|text| text.parse().unwrap()).collect();
        PrivateNames::new(&domains, &nets)
    }

    #[test]
    fn a_service_of_the_cluster_is_opened_by_its_name_and_nothing_else_is() {
        let rules = ["web.default.svc.cluster.local:80", "evil.example.com:80"];
        let add = |policy: Policy, rule: &&str| policy.egress(Action::Allow, parse_rule(rule).unwrap());
        let policy = rules.iter().fold(Policy::new(1), add);
        // The service network is the host's own where kube-proxy puts its addresses on a link.
        let names = Names::new(&policy, &["10.42.0.0/16".parse().unwrap(), "10.96.0.9/32".parse().unwrap()]);
        let pin = |names: &Names, name: &str, address: &str| names.pin(name, address.parse().unwrap(), 1);
        let web = "web.default.svc.cluster.local";
        assert_eq!(pin(&names, web, "10.96.0.9"), Err(Refused::Closed("private")));

        let names = names.with_private(&cluster(&["cluster.local."], &["10.96.0.0/12"]).unwrap());
        assert!(pin(&names, web, "10.96.0.9").unwrap().is_some());
        assert_eq!(pin(&names, web, "10.0.0.1"), Err(Refused::Closed("private")), "outside the services");
        assert!(pin(&names, web, "169.254.169.254").is_err());
        assert_eq!(pin(&names, "evil.example.com", "10.96.0.9"), Err(Refused::Closed("private")));
        assert_eq!(pin(&names, "db.default.svc.cluster.local", "10.96.0.9"), Err(Refused::Unknown));
    }

    #[test]
    fn what_no_name_may_open_is_refused() {
        for net in
            ["0.0.0.0/0", "169.254.0.0/16", "127.0.0.0/8", "127.1.0.0/16", "::/0", "fe80::/64", "224.0.0.0/8"]
        {
            assert!(matches!(cluster(&[], &[net]), Err(PrivateNamesError::Guarded(_))), "{net}");
        }
        for domain in ["", ".", "local", "*.cluster.local", "lattice", "a b.c"] {
            assert!(matches!(cluster(&[domain], &[]), Err(PrivateNamesError::Domain(_))), "{domain}");
        }
        cluster(&["cluster.local"], &["10.96.0.0/12", "fd00:96::/112"]).unwrap();
    }
}
