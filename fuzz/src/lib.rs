//! Everything that reads what strangers send, as functions of bytes: what they must withstand, and what must hold of what they
//! accept.
//!
//! `make fuzz` looks for bytes that break a [`Target`], led by the coverage of the code; `tests/replay.rs` gives each what stands in
//! `corpus/`, in every run of the tests. A file there is called after what becomes of it (`accepted-…`, `refused-…`), or `found-…` when the
//! fuzzer found it.

#![forbid(unsafe_code)]

mod audit;
mod dns;
mod json;
mod layers;
mod netstack;
mod paths;
mod policy;
mod proxy;
mod relay;
mod secrets;
mod server;
mod vnet;
mod wire;
mod wireguard;

/// One reader of hostile bytes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its folder in `corpus/`.
    pub name: &'static str,
    /// Reads the bytes; says whether they were accepted. Panics when something does not hold that must.
    pub run: fn(&[u8]) -> bool,
}

/// Every target, by name.
pub const TARGETS: &[Target] = &[
    Target { name: "audit-file", run: audit::file },
    Target { name: "audit-line", run: audit::line },
    Target { name: "credentials", run: secrets::credentials },
    Target { name: "dns-answer", run: dns::answer },
    Target { name: "dns-query", run: dns::query },
    Target { name: "enrolment", run: wire::enrolment },
    Target { name: "heartbeat", run: wire::heartbeat },
    Target { name: "labels", run: policy::labels },
    Target { name: "layers", run: layers::layers },
    Target { name: "lrp-frames", run: relay::frames },
    Target { name: "map", run: wire::map },
    Target { name: "named-policy", run: policy::named_policy },
    Target { name: "netstack-packet", run: netstack::packet },
    Target { name: "netstack-session", run: netstack::session },
    Target { name: "paths-mux", run: paths::mux },
    Target { name: "paths-signal", run: paths::signal },
    Target { name: "paths-stun", run: paths::stun },
    Target { name: "proxy-datagram", run: proxy::datagram },
    Target { name: "proxy-forwards", run: proxy::forwards },
    Target { name: "proxy-handshake", run: proxy::handshake },
    Target { name: "relay-token", run: relay::token },
    Target { name: "replies", run: wire::replies },
    Target { name: "rule", run: policy::rule },
    Target { name: "selector", run: policy::selector },
    Target { name: "server-url", run: server::url },
    Target { name: "servers", run: server::servers },
    Target { name: "signal", run: secrets::signal },
    Target { name: "stun-request", run: relay::stun_request },
    Target { name: "subject", run: wire::subject },
    Target { name: "token", run: secrets::token },
    Target { name: "trust", run: server::trust },
    Target { name: "vnet", run: vnet::vnet },
    Target { name: "wireguard-datagram", run: wireguard::datagram },
    Target { name: "wireguard-packet", run: wireguard::packet },
    Target { name: "wireguard-session", run: wireguard::session },
];
