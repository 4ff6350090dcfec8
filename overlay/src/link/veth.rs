//! Virtual Ethernet pairs (`veth(4)`) that join two namespaces.

use std::os::fd::{AsFd, AsRawFd};

use rtnetlink::{
    LinkMessageBuilder, LinkUnspec, LinkVeth,
    packet_route::link::{InfoData, InfoVeth},
};

use super::{LinkError, request::failed, run};
use crate::Netns;

/// Adds a veth pair with one end in each namespace, both down and without address.
///
/// # Errors
/// When either name is taken (`EEXIST`).
pub fn add_veth(a: &Netns, a_name: &str, b: &Netns, b_name: &str) -> Result<(), LinkError> {
    let b_fd = b.as_fd().as_raw_fd();
    run(a, async |handle| {
        let peer = LinkUnspec::new_with_name(b_name).setns_by_fd(b_fd).build();
        let pair = LinkMessageBuilder::<LinkVeth>::new(a_name, b_name)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        let action = format!("add the veth pair {a_name}, {b_name}");
        handle.link().add(pair).execute().await.map_err(failed(action))
    })
}
