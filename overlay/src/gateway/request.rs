//! Connections that the agent asks for. It is not answered before the owner has said what: so it sees what becomes of the owner's own try.

use std::{fmt, future::poll_fn, net::SocketAddr, rc::Rc, task::Poll, time::Instant};

use super::{
    Gateway,
    permits::Permit,
    state::{Asked, Shared},
};
use crate::stack::{
    ConnectError, TcpStream,
    network::{Begun, connect_error},
    sockets::Flow,
};

/// A connection that the agent asks for and the policy permits. Dropping it refuses with a reset.
pub struct Request {
    shared: Rc<Shared>,
    asked: Option<Asked>,
    permit: Option<Permit>,
    agent: SocketAddr,
    target: SocketAddr,
}

impl Gateway {
    /// The next connection that the agent asks for. One task at a time waits here.
    pub async fn request(&self) -> Request {
        poll_fn(|context| {
            let mut state = self.0.state();
            let Some(asked) = state.requests.pop_front() else {
                state.accepting = Some(context.waker().clone());
                return Poll::Pending;
            };
            let permit = Some(Permit::new(Rc::clone(&self.0), asked.permit));
            let Asked { agent, target, .. } = asked;
            let shared = Rc::clone(&self.0);
            Poll::Ready(Request { shared, asked: Some(asked), permit, agent, target })
        })
        .await
    }
}

impl Request {
    /// The agent's end.
    pub fn agent(&self) -> SocketAddr {
        self.agent
    }

    /// Where to.
    pub fn target(&self) -> SocketAddr {
        self.target
    }

    /// Waits until the policy permits it no more.
    pub async fn revoked(&self) {
        if let Some(permit) = &self.permit {
            permit.revoked().await;
        }
    }

    /// Makes the connection.
    ///
    /// # Errors
    /// When the agent has given up, the policy permits it no more, or there are too many connections.
    pub async fn accept(mut self) -> Result<TcpStream, ConnectError> {
        let (Some(asked), Some(permit)) = (self.asked.take(), self.permit.take()) else {
            return Err(ConnectError::Stopped);
        };
        let begun = {
            let state = &mut *self.shared.use_state();
            if state.permits.is_revoked(asked.permit) {
                state.stack.refuse(asked.id, &mut state.out);
                return Err(ConnectError::Refused);
            }
            let id = state.stack.accept(Instant::now(), asked.id, &mut state.out).map_err(connect_error)?;
            let (local, remote) = state.stack.ends(id).ok_or(ConnectError::Stopped)?;
            state.flows.insert(id, Flow::new(lattice_policy::Direction::Egress, local, remote));
            state.permits.is_for(asked.permit, id);
            Begun { id, local, remote }
        };
        let stream = TcpStream::new(self.shared.clone(), begun).holding(permit);
        stream.established().await?;
        Ok(stream)
    }

    /// Tells the agent that nothing leads there.
    pub fn refuse_as_unreachable(mut self) {
        if let Some(asked) = self.asked.take() {
            let state = &mut *self.shared.use_state();
            state.stack.refuse_as_unreachable(asked.id, &mut state.out);
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if let Some(asked) = self.asked.take() {
            let state = &mut *self.shared.use_state();
            state.stack.refuse(asked.id, &mut state.out);
        }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { agent, target, .. } = self;
        f.debug_struct("Request").field("agent", agent).field("target", target).finish_non_exhaustive()
    }
}
