//! Packets that no ordinary socket sends.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket},
    os::fd::{AsRawFd, OwnedFd},
};

use lattice_policy::{Action, Direction, Proto, Reason, Table};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, sendto, setsockopt,
    socket, sockopt,
};

use crate::lab::{AGENT4, AGENT6, Lab, NOWHERE4, Netns, PEER4, PEER6, entry, line, table};

/// A raw socket to which the caller gives the IP header too.
fn raw(netns: &Netns) -> OwnedFd {
    netns.run(|| {
        socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw).unwrap()
    })
}

fn send(raw: &OwnedFd, packet: &[u8], to: Ipv4Addr) {
    let [a, b, c, d] = to.octets();
    // A refusal of the send itself is as good as silence.
    let _ = sendto(raw.as_raw_fd(), packet, &SockaddrIn::new(a, b, c, d, 0), MsgFlags::empty());
}

/// UDP from port 4000 without a checksum; the kernel fills in that of the header.
fn datagram(source: Ipv4Addr, to: Ipv4Addr, port: u16, options: &[u8]) -> Vec<u8> {
    let header = 20 + options.len();
    let mut packet = vec![0x40 | (header / 4) as u8, 0, 0, (header + 9) as u8, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend([source.octets(), to.octets()].concat());
    packet.extend(options);
    packet.extend([4000u16.to_be_bytes(), port.to_be_bytes()].concat());
    packet.extend([0, 9, 0, 0, b'!']);
    packet
}

fn is_silent(socket: &UdpSocket) {
    socket.set_nonblocking(true).unwrap();
    assert_eq!(socket.recv(&mut [0; 9]).unwrap_err().kind(), ErrorKind::WouldBlock);
    socket.set_nonblocking(false).unwrap();
}

#[test]
fn raw_packets_are_policed_by_what_they_are() {
    let mut lab = Lab::new();
    lab.nftables.apply(&table(), &[], 3).unwrap();
    let server = lab.peer_binds(PEER4.into(), 53);
    let raw = raw(&lab.agent);
    let route = [0x83, 7, 4, 10, 42, 0, 1, 0]; // loose source route
    for (packet, reason) in [
        (datagram(NOWHERE4, PEER4, 53, &[]), Reason::Spoofed),
        (datagram(AGENT4, PEER4, 53, &route), Reason::Protocol),
        (datagram(AGENT4, PEER4, 54, &[]), Reason::DefaultDeny),
        (datagram(AGENT4, Ipv4Addr::new(224, 0, 0, 251), 53, &[]), Reason::Multicast),
    ] {
        send(&raw, &packet, PEER4);
        let told = lab.wait_for(|f| f.reason == reason);
        assert_eq!((told.direction, told.action, told.generation), (Direction::Egress, Action::Deny, 3));
    }
    let mut other = datagram(AGENT4, PEER4, 53, &[]);
    other[9] = 132; // SCTP
    send(&raw, &other, PEER4);
    assert_eq!(lab.wait_for(|f| f.proto == 132).reason, Reason::Protocol);
    is_silent(&server);
    // The packets are right: the same one, allowed, arrives.
    send(&raw, &datagram(AGENT4, PEER4, 53, &[]), PEER4);
    let (_, from) = server.recv_from(&mut [0; 9]).unwrap();
    assert_eq!(from, SocketAddr::new(AGENT4.into(), 4000));
}

/// Has conntrack leave the fragments of a raw socket alone.
#[derive(Clone, Debug)]
struct NoDefrag;
nix::setsockopt_impl!(NoDefrag, libc::IPPROTO_IP, libc::IP_NODEFRAG, bool, sockopt::SetBool);

#[test]
fn fragments_are_judged_as_a_whole_or_not_at_all() {
    let mut lab = Lab::new();
    lab.nftables.apply(&table(), &[], 1).unwrap();
    let servers = [lab.peer_binds(PEER4.into(), 53), lab.peer_binds(PEER4.into(), 54)];
    let fragments = |port, id| {
        let mut whole = [&datagram(AGENT4, PEER4, port, &[])[..], &[0; 7]].concat();
        whole[24..26].copy_from_slice(&16u16.to_be_bytes());
        let part = |from: usize, to: usize, word: u16| {
            let mut part = [&whole[..20], &whole[from..to]].concat();
            part[3] = part.len() as u8;
            part[5] = id;
            part[6..8].copy_from_slice(&word.to_be_bytes());
            part
        };
        [part(20, 28, 0x2000), part(28, 36, 1)]
    };
    let raw = raw(&lab.agent);
    for packet in fragments(54, 1) {
        send(&raw, &packet, PEER4);
    }
    let told = lab.wait_for(|f| f.dst.port() == 54);
    assert_eq!((told.reason, told.bytes), (Reason::DefaultDeny, 36));
    setsockopt(&raw, NoDefrag, &true).unwrap();
    for packet in fragments(53, 2) {
        send(&raw, &packet, PEER4);
    }
    assert_eq!(lab.wait_for(|f| f.proto == 17).reason, Reason::Malformed);
    servers.iter().for_each(is_silent);
    setsockopt(&raw, NoDefrag, &false).unwrap();
    for packet in fragments(53, 3) {
        send(&raw, &packet, PEER4);
    }
    assert_eq!(servers[0].recv(&mut [0; 9]).unwrap(), 8);
}

#[test]
fn broadcast_is_denied_under_a_rule_that_allows_everything() {
    let mut lab = Lab::new();
    let all = [line(Proto::Any, None, 5)];
    lab.nftables
        .apply(&Table { egress: vec![entry("0.0.0.0/0", &all)], ingress: Vec::new() }, &[], 1)
        .unwrap();
    let client = lab.agent.run(|| UdpSocket::bind((AGENT4, 0)).unwrap());
    client.set_broadcast(true).unwrap();
    for to in [Ipv4Addr::new(10, 42, 0, 255), Ipv4Addr::BROADCAST] {
        client.send_to(b"all", (to, 53)).unwrap_err();
        assert_eq!(lab.wait_for(|f| f.dst.ip() == to).reason, Reason::Multicast);
    }
    client.send_to(b"one", (PEER4, 53)).unwrap();
}

#[test]
fn what_comes_in_must_be_for_the_agent_and_from_another() {
    let mut lab = Lab::new();
    let all = [line(Proto::Any, None, 5)];
    let open = Table { egress: Vec::new(), ingress: vec![entry("0.0.0.0/0", &all)] };
    lab.nftables.apply(&open, &[], 1).unwrap();
    let server = lab.agent.run(|| UdpSocket::bind(("0.0.0.0", 53)).unwrap());
    server.set_read_timeout(Some(crate::lab::PATIENCE)).unwrap();
    lab.peer.ip(&format!("route add {NOWHERE4} via {AGENT4}"));
    let raw = raw(&lab.peer);
    for (packet, to, reason) in [
        (datagram(PEER4, NOWHERE4, 53, &[]), NOWHERE4, Reason::DefaultDeny),
        (datagram(AGENT4, AGENT4, 53, &[]), AGENT4, Reason::Spoofed),
        (datagram(PEER4, AGENT4, 53, &[1, 1, 1, 0]), AGENT4, Reason::Protocol),
    ] {
        send(&raw, &packet, to);
        assert_eq!(lab.wait_for(|f| f.reason == reason).direction, Direction::Ingress);
    }
    server.set_nonblocking(true).unwrap();
    assert_eq!(server.recv(&mut [0; 9]).unwrap_err().kind(), ErrorKind::WouldBlock);
    server.set_nonblocking(false).unwrap();
    send(&raw, &datagram(PEER4, AGENT4, 53, &[]), AGENT4);
    assert_eq!(server.recv_from(&mut [0; 9]).unwrap().1.ip(), IpAddr::from(PEER4));
}

/// UDP from port 4000 in IPv6 behind `extension`, of the type `next`.
fn datagram6(source: Ipv6Addr, to: Ipv6Addr, next: u8, extension: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 9 + extension.len() as u8, next, 64];
    packet.extend([source.octets(), to.octets()].concat());
    packet.extend(extension);
    packet.extend([0x0F, 0xA0, 0, 53, 0, 9, 0xFF, 0xFF, b'!']);
    packet
}

#[test]
fn raw_packets_of_ipv6_are_policed_by_what_they_are() {
    let mut lab = Lab::new();
    let all = [line(Proto::Any, None, 5)];
    lab.nftables.apply(&Table { egress: vec![entry("::/0", &all)], ingress: Vec::new() }, &[], 1).unwrap();
    let raw = lab.agent.run(|| {
        socket(AddressFamily::Inet6, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw).unwrap()
    });
    let send = |packet: &[u8]| {
        let to = SockaddrIn6::from(SocketAddrV6::new(PEER6, 0, 0, 0));
        let _ = sendto(raw.as_raw_fd(), packet, &to, MsgFlags::empty());
    };
    let mapped = Ipv4Addr::new(10, 42, 0, 1).to_ipv6_mapped();
    let routing = [&[17, 2, 0, 0, 0, 0, 0, 0][..], &PEER6.octets()].concat();
    for (packet, reason) in [
        (datagram6(PEER6, PEER6, 17, &[]), Reason::Spoofed),
        (datagram6(AGENT6, mapped, 17, &[]), Reason::Malformed),
        (datagram6(AGENT6, PEER6, 43, &routing), Reason::Protocol),
        (datagram6(AGENT6, PEER6, 132, &[]), Reason::Protocol),
        // Chains of extensions that end nowhere.
        (datagram6(AGENT6, PEER6, 60, &[60, 0, 1, 4, 0, 0, 0, 0].repeat(14)), Reason::Protocol),
    ] {
        lab.told();
        send(&packet);
        let told = lab.wait_for(|f| f.reason == reason);
        assert_eq!((told.direction, told.action), (Direction::Egress, Action::Deny), "{packet:?}");
    }
    // Options for the destination change nothing.
    send(&datagram6(AGENT6, PEER6, 60, &[17, 0, 1, 4, 0, 0, 0, 0]));
    let told = lab.wait_for(|f| f.action == Action::Allow);
    assert_eq!((told.proto, told.dst), (17, SocketAddr::new(PEER6.into(), 53)));
}

/// TCP that both ends open at once is judged as what it is for the agent: a flow that comes in.
#[test]
fn nobody_opens_a_flow_as_a_reply() {
    let mut lab = Lab::new();
    let open = [line(Proto::Tcp, Some(8080), 1)];
    let table = Table { egress: vec![entry("198.51.100.0/24", &open)], ingress: Vec::new() };
    lab.nftables.apply(&table, &[], 1).unwrap();
    // Nobody answers there.
    let _waiting = lab.agent.start_connecting(SocketAddr::new(NOWHERE4.into(), 8080));
    let port = lab.wait_for(|f| f.dst.ip() == NOWHERE4 && f.action == Action::Allow).src.port();
    let mut syn = datagram(NOWHERE4, AGENT4, port, &[])[..20].to_vec();
    (syn[3], syn[9]) = (40, 6);
    syn.extend([8080u16.to_be_bytes(), port.to_be_bytes()].concat());
    syn.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0x20, 0, 0, 0, 0, 0]);
    let pseudo = [&syn[12..20], &[0, 6, 0, 20], &syn[20..]].concat();
    let sum: u32 = pseudo.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let folded = (sum & 0xFFFF) + (sum >> 16);
    syn[36..38].copy_from_slice(&(!((folded & 0xFFFF) + (folded >> 16)) as u16).to_be_bytes());
    send(&raw(&lab.peer), &syn, AGENT4);
    let told = lab.wait_for(|f| f.direction == Direction::Ingress && f.proto == 6);
    assert_eq!((told.reason, told.src.port(), told.dst.port()), (Reason::DefaultDeny, 8080, port));
}
