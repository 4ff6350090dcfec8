//! Whether a policy can be enforced here.

use std::{io, net::Ipv4Addr, sync::Arc, thread};

use ipnet::Ipv4Net;
use lattice_policy::{Overlay, Table};
use nix::sched::{CloneFlags, unshare};

use crate::{
    Enter, NftError,
    nflog::Socket,
    nft::Nft,
    ruleset::{self, Place},
    sets::{Classes, Serials},
};

/// Rules that each need one option of the kernel, most general first.
const FEATURES: [(&str, &str); 8] = [
    ("", "CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET"),
    (
        "set s { type mark . inet_service; flags interval; }",
        "sets of intervals of several fields (Linux 5.6)",
    ),
    ("set s { type mark; counter; elements = { 1 } }", "counters of elements (Linux 5.7)"),
    ("chain c { ct direction original accept; }", "CONFIG_NFT_CT"),
    ("chain c { ct mark set 1; }", "CONFIG_NF_CONNTRACK_MARK"),
    ("chain c { fib daddr type broadcast drop; }", "CONFIG_NFT_FIB_INET"),
    ("chain c { log prefix \"x\" group 1; }", "CONFIG_NFT_LOG and CONFIG_NETFILTER_NETLINK_LOG"),
    ("chain c { type filter hook output priority filter; reject with tcp reset; }", "CONFIG_NFT_REJECT_INET"),
];

/// Tries what the enforcer needs, in a network namespace of its own that ends with it.
///
/// # Errors
/// [`NftError::NoNft`], [`NftError::NotPermitted`] with the capability that is missing, or [`NftError::Unsupported`] with
/// what the kernel lacks.
pub fn probe() -> Result<(), NftError> {
    // On a thread that ends: a thread that has left its network namespace is of no use to others.
    match thread::Builder::new().spawn(tried) {
        Ok(thread) => thread.join().unwrap_or_else(|_| Err(run(io::Error::other("the probe panicked")))),
        Err(e) => Err(run(e)),
    }
}

fn tried() -> Result<(), NftError> {
    let nft = Nft::find(here())?;
    unshare(CloneFlags::CLONE_NEWNET)
        .map_err(|_| NftError::NotPermitted { doing: "a network namespace", missing: "CAP_SYS_ADMIN" })?;
    let any = Overlay::new(Ipv4Net::default(), Overlay::prefix_of([0; 5])).ok();
    let confined = any.map(|any| (any, "lo".to_owned()));
    let place = Place { table: "probe".into(), group: 1, is_tied: true, confined };
    match nft.apply("make a table", &whole(&place)) {
        Err(NftError::Nft { message, .. }) => return Err(lacking(&nft, message)),
        done => done?,
    }
    match Socket::bind(place.group) {
        Ok(_) => Ok(()),
        Err(e) if e.raw_os_error() == Some(libc::EPERM) => {
            Err(NftError::NotPermitted { doing: "the log of packets", missing: "CAP_NET_ADMIN" })
        }
        Err(e) => {
            Err(NftError::Unsupported { option: "CONFIG_NETFILTER_NETLINK_LOG", message: e.to_string() })
        }
    }
}

fn here() -> Enter {
    Arc::new(|work| {
        work();
        Ok(())
    })
}

/// Every kind of set and rule that there is.
fn whole(place: &Place) -> String {
    let mut classes = Classes::new(Serials::new(1));
    let elements = classes.table(&Table::default()).unwrap_or_default();
    let live = ruleset::live(place, 1, 1, true);
    ruleset::closed(place, &[], &[("lo".into(), Ipv4Addr::LOCALHOST.into())])
        + &ruleset::sets(place, 1, &elements, &[])
        + &live
}

fn lacking(nft: &Nft, message: String) -> NftError {
    let refused = |text: &str| nft.check(&format!("table inet lacks {{\n{text}\n}}\n")).is_err();
    match FEATURES.into_iter().find(|(text, _)| refused(text)) {
        Some((_, option)) => NftError::Unsupported { option, message },
        None => NftError::Nft { doing: "make a table", message },
    }
}

fn run(source: io::Error) -> NftError {
    NftError::Run { program: "the probe", source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_enforce() {
        probe().unwrap();
    }

    #[test]
    fn what_this_kernel_has_is_not_missed() {
        let checked = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let nft = Nft::find(here()).unwrap();
            assert!(matches!(lacking(&nft, "?".into()), NftError::Nft { .. }));
            nft.check("table inet lacks {\nchain c { nonsense; }\n}\n").unwrap_err();
        });
        checked.join().unwrap();
    }
}
