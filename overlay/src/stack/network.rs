//! The way to the stack's sockets.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    rc::Rc,
};

use lattice_netstack::Error;
use lattice_policy::Direction;

use super::{
    ConnectError, TcpStream, Transport,
    sockets::Flow,
    state::{Shared, State},
};

/// The stack's sockets. Cheap to clone; of the device's thread only.
#[derive(Clone)]
pub struct Network(pub(super) Rc<Shared>);

impl Network {
    /// Whether some peer has `address`: otherwise nothing that is sent there goes anywhere.
    pub fn leads_to_peer(&self, address: IpAddr) -> bool {
        self.0.state().core.interface.leads_to(address)
    }

    /// Connects to `remote`. The policy is asked first, so that a denial is told at once; it is on record then. Dropping the future gives up.
    ///
    /// # Errors
    /// Why not.
    pub async fn connect(&self, remote: SocketAddr) -> Result<TcpStream, ConnectError> {
        let stream = self.0.use_state().connect(remote)?;
        let stream = stream.of(Rc::clone(&self.0));
        match stream.established().await {
            Ok(()) => Ok(stream),
            // The policy may have changed since it was asked: its refusal looks like the peer's.
            Err(ConnectError::Refused) => {
                self.0.use_state().may_begin(Transport::Tcp, remote)?;
                Err(ConnectError::Refused)
            }
            Err(error) => Err(error),
        }
    }

    /// How often the device's thread has had something to do: for tests of what idleness costs.
    #[doc(hidden)]
    pub fn turns(&self) -> u64 {
        self.0.turns.get()
    }
}

/// A flow that was begun, before it is somebody's.
pub(crate) struct Begun {
    pub(crate) id: lattice_netstack::FlowId,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
}

impl Begun {
    pub(super) fn of(self, shared: Rc<Shared>) -> TcpStream {
        TcpStream::new(shared, self)
    }
}

impl State {
    fn connect(&mut self, remote: SocketAddr) -> Result<Begun, ConnectError> {
        self.may_begin(Transport::Tcp, remote)?;
        let now = self.now();
        let id = self.stack.connect(now, remote).map_err(connect_error)?;
        self.begun(id, Direction::Egress).ok_or(ConnectError::Stopped)
    }

    /// Takes a new flow of the stack's into the books.
    pub(super) fn begun(&mut self, id: lattice_netstack::FlowId, direction: Direction) -> Option<Begun> {
        let (local, remote) = self.stack.ends(id)?;
        self.sockets.flows.insert(id, Flow::new(direction, local, remote));
        Some(Begun { id, local, remote })
    }
}

/// Why the stack does not begin something.
pub(crate) fn connect_error(error: Error) -> ConnectError {
    match error {
        Error::Limit(_) | Error::PortTaken(_) => ConnectError::Busy,
        // The peer has given up.
        Error::Ended => ConnectError::TimedOut,
        _ => ConnectError::Unreachable,
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").finish_non_exhaustive()
    }
}
