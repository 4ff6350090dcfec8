//! Outside the overlay: by sockets of this host, in the namespace of this process, as far as the policy permits.
//!
//! The device sees no packet of such a flow. It judges and records that the flow begins, and says when the policy permits it no more.

use std::net::SocketAddr;

use lattice_overlay::stack::{Admission, Network, Transport};
use lattice_proxy::Refusal;
use tokio::net::TcpStream;

use super::{
    never::{is_own, why_never},
    record::Record,
    refusal::{of_host, of_policy},
    stream::{Connection, revoked},
};

/// Dials for one sandbox.
pub(super) struct Outside {
    network: Network,
    record: Record,
}

impl Outside {
    pub(super) fn new(network: Network, record: Record) -> Self {
        Self { network, record }
    }

    /// Asks whether a flow to `remote` may begin, first what no policy opens. `name` led there, if one did.
    ///
    /// # Errors
    /// That it may not; it is on record.
    pub(super) fn admit(
        &self,
        transport: Transport,
        remote: SocketAddr,
        name: Option<&str>,
    ) -> Result<Admission, Refusal> {
        if let Some(what) = why_never(remote.ip()) {
            return Err(Refusal::DeniedAddress(self.record.refused(transport, remote, what, name)));
        }
        self.network.admit(transport, remote).map_err(|denied| of_policy(denied, &self.record.rules))
    }

    /// Connects to `remote`.
    ///
    /// # Errors
    /// Why not.
    pub(super) async fn connect(
        &self,
        remote: SocketAddr,
        name: Option<&str>,
    ) -> Result<Connection, Refusal> {
        let admission = self.admit(Transport::Tcp, remote, name)?;
        let stream = tokio::select! {
            biased;
            () = admission.revoked() => return Err(self.overtaken(remote, name)),
            connected = TcpStream::connect(remote) => connected.map_err(|error| of_host(&error))?,
        };
        // The host may have got the address since it was asked for.
        let local = stream.local_addr().map_err(|error| of_host(&error))?;
        if is_own(local.ip(), remote.ip()) || why_never(remote.ip()).is_some() {
            let because = self.record.refused(Transport::Tcp, remote, "an address of this host", name);
            return Err(Refusal::DeniedAddress(because));
        }
        let _ = stream.set_nodelay(true);
        Ok(Connection::Outside(stream, revoked(admission)))
    }

    /// Why not, when the policy has changed while `remote` was dialled.
    fn overtaken(&self, remote: SocketAddr, name: Option<&str>) -> Refusal {
        match self.admit(Transport::Tcp, remote, name) {
            Err(refusal) => refusal,
            Ok(_) => Refusal::Failed("the policy has changed meanwhile; try again".into()),
        }
    }
}
