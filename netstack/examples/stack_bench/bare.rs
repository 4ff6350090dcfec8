//! Two smoltcp interfaces with one socket each, as its documentation has them.

use std::{cell::RefCell, collections::VecDeque, time::Duration};

use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken},
    socket::tcp,
    time::Instant,
    wire::{HardwareAddress, IpAddress, IpCidr},
};

thread_local! {
    /// Buffers, so that none is allocated for a packet.
    static FREE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Keeps packets that are to be sent, and brings those that have come.
#[derive(Default)]
struct Queue {
    incoming: VecDeque<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
    mtu: usize,
    packets: u64,
}

struct Incoming(Vec<u8>);

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        let result = read(&self.0);
        FREE.with_borrow_mut(|free| free.push(self.0));
        result
    }
}

struct Outgoing<'a>(&'a mut Queue);

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut packet = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
        packet.resize(len, 0);
        let result = write(&mut packet);
        self.0.packets += 1;
        self.0.outgoing.push_back(packet);
        result
    }
}

impl Device for Queue {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Incoming, Outgoing<'_>)> {
        Some((Incoming(self.incoming.pop_front()?), Outgoing(self)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_>> {
        (self.outgoing.len() < super::BATCH).then_some(Outgoing(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

struct Host {
    queue: Queue,
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
}

impl Host {
    fn new(number: u8, buffer: usize, mtu: u16, no_delay: bool) -> Self {
        let mut queue = Queue { mtu: mtu.into(), ..Queue::default() };
        let mut interface = Interface::new(Config::new(HardwareAddress::Ip), &mut queue, Instant::now());
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(IpAddress::v4(10, 0, 0, number), 24)).expect("room for one");
        });
        let buffer = || tcp::SocketBuffer::new(vec![0; buffer]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(!no_delay);
        let mut sockets = SocketSet::new(Vec::new());
        let socket = sockets.add(socket);
        Self { queue, interface, sockets, socket }
    }

    fn poll(&mut self) {
        self.interface.poll(Instant::now(), &mut self.queue, &mut self.sockets);
    }

    fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.socket)
    }
}

/// Sends so many bytes; says what that took, and how many packets.
pub(crate) fn stream(bytes: usize, buffer: usize, mtu: u16, no_delay: bool) -> (Duration, u64) {
    let [mut a, mut b] = [1, 2].map(|number| Host::new(number, buffer, mtu, no_delay));
    b.socket().listen(80).expect("a port");
    let (interface, sockets) = (&mut a.interface, &mut a.sockets);
    let socket = sockets.get_mut::<tcp::Socket<'_>>(a.socket);
    socket.connect(interface.context(), (IpAddress::v4(10, 0, 0, 2), 80), 40_000).expect("an address");
    let mut received = 0;
    let start = super::cpu();
    while received < bytes {
        while a.socket().can_send() {
            let _ = a.socket().send(|room| {
                room.fill(1);
                (room.len(), ())
            });
        }
        a.poll();
        carry(&mut a.queue, &mut b.queue);
        b.poll();
        while b.socket().can_recv() {
            received += b.socket().recv(|data| (data.len(), data.len())).unwrap_or(0);
        }
        b.poll();
        carry(&mut b.queue, &mut a.queue);
    }
    ((super::cpu() - start).mul_f64(bytes as f64 / received as f64), a.queue.packets)
}

fn carry(from: &mut Queue, to: &mut Queue) {
    to.incoming.append(&mut from.outgoing);
}
