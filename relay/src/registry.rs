//! Who is connected, who may send to whom by which handle, and who waits for whom.
//!
//! All of it under one lock, which is taken when somebody comes, leaves or asks for a route, and never for a datagram.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lattice_wire::{
    WgPublicKey, WorkspaceId,
    lrp::{Frame, Reason},
};

use crate::member::Member;

/// Where a client is found: nobody outside of a workspace can name one inside.
type Address = (WorkspaceId, WgPublicKey);

/// The clients.
#[derive(Debug)]
pub(crate) struct Registry {
    state: Mutex<State>,
    max_clients: usize,
    /// Peers that one client may ask for.
    max_routes: usize,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<Address, Entry>,
    /// Who has asked for somebody who is not there.
    waiting: HashMap<Address, HashSet<WgPublicKey>>,
    last_handle: u32,
    draining: bool,
}

#[derive(Debug)]
struct Entry {
    member: Arc<Member>,
    asked: HashSet<WgPublicKey>,
    /// Handles by the peer at the other end.
    routes: HashMap<WgPublicKey, u32>,
}

impl Registry {
    pub(crate) fn new(max_clients: usize, max_routes: usize) -> Self {
        Self { state: Mutex::default(), max_clients, max_routes }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many clients there are.
    pub(crate) fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// Registers a client, in the place of an older connection of the same peer if there is one. Tells it [`Frame::Welcome`] before
    /// anything else.
    pub(crate) fn join(&self, member: &Arc<Member>) -> Result<(), Reason> {
        let address = address(member);
        let mut state = self.lock();
        if state.draining {
            return Err(Reason::Draining);
        }
        match state.entries.get(&address).map(|entry| Arc::clone(&entry.member)) {
            Some(older) => {
                older.dismiss(Reason::Replaced);
                state.remove(&older);
            }
            None if state.entries.len() >= self.max_clients => return Err(Reason::Full),
            None => {}
        }
        member.tell(Frame::Welcome);
        let entry = Entry { member: Arc::clone(member), asked: HashSet::new(), routes: HashMap::new() };
        state.entries.insert(address.clone(), entry);
        let waiting: Vec<WgPublicKey> = state.waiting.remove(&address).into_iter().flatten().collect();
        for key in waiting {
            state.connect(&(address.0.clone(), key), &address);
        }
        Ok(())
    }

    /// Takes a client out, unless another connection already has its place.
    pub(crate) fn leave(&self, member: &Arc<Member>) {
        self.lock().remove(member);
    }

    /// `member` wants a route to `key`.
    pub(crate) fn ask(&self, member: &Arc<Member>, key: WgPublicKey) {
        let (from, to) = (address(member), (member.claims.workspace.clone(), key));
        let mut state = self.lock();
        let Some(entry) = state.entry(member) else { return };
        let has_room = entry.asked.contains(&key) || entry.asked.len() < self.max_routes;
        if from == to || !has_room {
            return member.tell(Frame::Absent(key));
        }
        entry.asked.insert(key);
        if let Some(handle) = entry.routes.get(&key) {
            return member.tell(Frame::Route(*handle, key));
        }
        if !state.connect(&from, &to) {
            state.waiting.entry(to).or_default().insert(from.1);
            member.tell(Frame::Absent(key));
        }
    }

    /// `member` no longer wants a route to `key`. It stays while the other one wants it.
    pub(crate) fn forget(&self, member: &Arc<Member>, key: WgPublicKey) {
        let (from, to) = (address(member), (member.claims.workspace.clone(), key));
        let mut state = self.lock();
        let Some(entry) = state.entry(member) else { return };
        entry.asked.remove(&key);
        state.stop_waiting(&to, &from.1);
        if state.entries.get(&to).is_some_and(|other| !other.asked.contains(&from.1)) {
            state.disconnect(&from, &to);
            state.disconnect(&to, &from);
        }
    }

    /// Sends everybody away, and lets nobody in any more.
    pub(crate) fn drain(&self) {
        let mut state = self.lock();
        state.draining = true;
        state.entries.values().for_each(|entry| entry.member.dismiss(Reason::Draining));
    }
}

impl State {
    /// The entry of this very connection.
    fn entry(&mut self, member: &Arc<Member>) -> Option<&mut Entry> {
        self.entries.get_mut(&address(member)).filter(|entry| Arc::ptr_eq(&entry.member, member))
    }

    /// Makes a route between two clients, which `from` has asked for, if `to` is there. `to` is told first, so that it most likely
    /// knows the handle when the first datagram comes.
    fn connect(&mut self, from: &Address, to: &Address) -> bool {
        let (Some(asking), Some(asked)) = (self.entries.get(from), self.entries.get(to)) else {
            return false;
        };
        let (asking, asked) = (Arc::clone(&asking.member), Arc::clone(&asked.member));
        // After four billion routes nobody gets another one before a restart: a handle must not come to mean somebody else.
        let Some(handle) = self.last_handle.checked_add(1) else { return false };
        self.last_handle = handle;
        for (member, other) in [(&asked, &asking), (&asking, &asked)] {
            if let Some(entry) = self.entries.get_mut(&address(member)) {
                entry.routes.insert(other.claims.wireguard, handle);
            }
            member.routes().insert(handle, Arc::clone(other));
            member.tell(Frame::Route(handle, other.claims.wireguard));
        }
        true
    }

    /// Takes the route to `to` from `from`.
    fn disconnect(&mut self, from: &Address, to: &Address) {
        let Some(entry) = self.entries.get_mut(from) else { return };
        let Some(handle) = entry.routes.remove(&to.1) else { return };
        entry.member.routes().remove(&handle);
        entry.member.tell(Frame::Gone(handle));
    }

    fn stop_waiting(&mut self, absent: &Address, key: &WgPublicKey) {
        if let Some(waiting) = self.waiting.get_mut(absent) {
            waiting.remove(key);
            if waiting.is_empty() {
                self.waiting.remove(absent);
            }
        }
    }

    fn remove(&mut self, member: &Arc<Member>) {
        if self.entry(member).is_none() {
            return;
        }
        let address = address(member);
        let Some(entry) = self.entries.remove(&address) else { return };
        member.routes().clear();
        for key in entry.asked {
            self.stop_waiting(&(address.0.clone(), key), &address.1);
        }
        for key in entry.routes.into_keys() {
            let other = (address.0.clone(), key);
            self.disconnect(&other, &address);
            if self.entries.get(&other).is_some_and(|other| other.asked.contains(&address.1)) {
                self.waiting.entry(address.clone()).or_default().insert(key);
            }
        }
    }
}

fn address(member: &Member) -> Address {
    (member.claims.workspace.clone(), member.claims.wireguard)
}

#[cfg(test)]
mod tests {
    use lattice_wire::RelayClaims;
    use tokio::sync::mpsc::Receiver;

    use super::*;
    use crate::outbox::{Outbox, Queue};

    struct Client(Arc<Member>, Receiver<Frame<'static>>);

    impl Client {
        fn told(&mut self) -> Vec<Frame<'static>> {
            std::iter::from_fn(|| self.1.try_recv().ok()).collect()
        }
    }

    fn client(workspace: u8, key: u8) -> Client {
        let claims = RelayClaims {
            workspace: WorkspaceId::from_random([workspace; 10]),
            wireguard: WgPublicKey([key; 32]),
            nats: String::new(),
            not_after: 0,
        };
        let (member, frames) = Member::new(claims, Outbox::Tcp(Queue::new(10_000)));
        Client(member, frames)
    }

    fn joined(registry: &Registry, workspace: u8, key: u8) -> Client {
        let mut client = client(workspace, key);
        registry.join(&client.0).unwrap();
        assert_eq!(client.told()[0], Frame::Welcome);
        client
    }

    fn key(n: u8) -> WgPublicKey {
        WgPublicKey([n; 32])
    }

    #[test]
    fn both_ends_hold_one_handle_until_either_leaves_and_another_after() {
        let registry = Registry::new(10, 10);
        let (mut a, mut b) = (joined(&registry, 1, 1), joined(&registry, 1, 2));
        registry.ask(&a.0, key(2));
        assert_eq!(a.told(), [Frame::Route(1, key(2))]);
        assert_eq!(b.told(), [Frame::Route(1, key(1))]);
        registry.leave(&b.0);
        assert_eq!(a.told(), [Frame::Gone(1)]);
        assert!(a.0.routes().is_empty() && b.0.routes().is_empty());
        let mut again = joined(&registry, 1, 2);
        assert_eq!(a.told(), [Frame::Route(2, key(2))]);
        assert!(again.told().is_empty(), "told with the welcome");
        assert!(again.0.routes().contains_key(&2));
    }

    #[test]
    fn workspaces_do_not_meet() {
        let registry = Registry::new(10, 10);
        let (mut a, mut b) = (joined(&registry, 1, 1), joined(&registry, 2, 2));
        registry.ask(&a.0, key(2));
        assert_eq!(a.told(), [Frame::Absent(key(2))]);
        let _twin = joined(&registry, 2, 1);
        assert!(a.told().is_empty() && b.told().is_empty());
    }

    #[test]
    fn the_newest_connection_of_a_peer_has_its_place() {
        let registry = Registry::new(2, 10);
        let (mut a, old) = (joined(&registry, 1, 1), joined(&registry, 1, 2));
        registry.ask(&a.0, key(2));
        let new = joined(&registry, 1, 2);
        assert_eq!(a.told(), [Frame::Route(1, key(2)), Frame::Gone(1), Frame::Route(2, key(2))]);
        registry.leave(&old.0);
        assert_eq!(registry.len(), 2, "the old one's end does not take the new one out");
        assert!(Arc::ptr_eq(&a.0.routes()[&2], &new.0));
        registry.ask(&old.0, key(1));
        assert!(old.0.routes().is_empty(), "who has been replaced gets no routes");
    }

    #[test]
    fn there_are_no_more_clients_and_routes_than_there_may_be() {
        let registry = Registry::new(2, 1);
        let (mut a, _b) = (joined(&registry, 1, 1), joined(&registry, 1, 2));
        assert_eq!(registry.join(&client(1, 3).0), Err(Reason::Full));
        registry.ask(&a.0, key(9));
        registry.ask(&a.0, key(2));
        assert_eq!(a.told(), [Frame::Absent(key(9)), Frame::Absent(key(2))]);
        registry.forget(&a.0, key(9));
        registry.ask(&a.0, key(2));
        assert_eq!(a.told(), [Frame::Route(1, key(2))]);
        registry.leave(&a.0);
        assert!(registry.lock().waiting.is_empty());
    }

    #[test]
    fn a_route_stays_while_one_end_wants_it() {
        let registry = Registry::new(10, 10);
        let (mut a, mut b) = (joined(&registry, 1, 1), joined(&registry, 1, 2));
        registry.ask(&a.0, key(2));
        registry.ask(&b.0, key(1));
        drop((a.told(), b.told()));
        registry.forget(&a.0, key(2));
        assert!(a.told().is_empty() && b.told().is_empty());
        registry.forget(&b.0, key(1));
        assert_eq!((a.told(), b.told()), (vec![Frame::Gone(1)], vec![Frame::Gone(1)]));
        assert!(a.0.routes().is_empty() && b.0.routes().is_empty());
    }

    #[tokio::test]
    async fn draining_sends_everybody_away() {
        let registry = Registry::new(10, 10);
        let a = joined(&registry, 1, 1);
        registry.drain();
        assert_eq!(a.0.dismissed().await, Reason::Draining);
        assert_eq!(registry.join(&client(1, 2).0), Err(Reason::Draining));
    }
}
