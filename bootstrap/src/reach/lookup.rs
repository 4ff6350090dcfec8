//! Looks up names by threads for which nobody waits.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, ToSocketAddrs as _},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use lattice_overlay::Netns;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// A name is looked up again after this long.
const AGAIN: Duration = Duration::from_secs(300);
/// One that was not found.
const RETRY: Duration = Duration::from_secs(10);
/// Addresses of one name that count.
const MAX_ADDRESSES: usize = 8;

type Answer = (String, io::Result<Vec<IpAddr>>);

/// Names and what is known of them.
#[derive(Debug)]
pub(super) struct Lookups {
    underlay: Arc<Netns>,
    names: BTreeMap<String, Name>,
    /// No more than one answer of each name is on its way.
    answer: UnboundedSender<Answer>,
    answers: UnboundedReceiver<Answer>,
}

#[derive(Debug)]
struct Name {
    addresses: Vec<IpAddr>,
    is_running: bool,
    due: Instant,
}

impl Lookups {
    pub(super) fn new(underlay: Arc<Netns>) -> Self {
        let (answer, answers) = unbounded_channel();
        Self { underlay, names: BTreeMap::new(), answer, answers }
    }

    /// Has these names looked up, if it is time, and forgets all others, but those that are still looked for: there would be no end
    /// to the threads of names that come and go.
    pub(super) fn look_up<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        let wanted: BTreeSet<&str> = names.filter(|name| name.parse::<IpAddr>().is_err()).collect();
        self.names.retain(|name, known| known.is_running || wanted.contains(name.as_str()));
        for name in wanted {
            let now = Instant::now();
            let fresh = Name { addresses: vec![], is_running: false, due: now };
            let known = self.names.entry(name.to_owned()).or_insert(fresh);
            if !known.is_running && known.due <= now {
                known.due = now + RETRY;
                known.is_running = start(&self.underlay, name, self.answer.clone());
            }
        }
    }

    /// Waits for the next answer, and takes it.
    pub(super) async fn answered(&mut self) {
        // There is always a sender: ours.
        let Some((name, result)) = self.answers.recv().await else { return };
        let Some(known) = self.names.get_mut(&name) else { return };
        known.is_running = false;
        match result {
            Ok(found) if !found.is_empty() => {
                known.due = Instant::now() + AGAIN;
                known.addresses = found;
            }
            Ok(_) => tracing::debug!(name, "name has no address"),
            Err(error) => tracing::debug!(name, %error, "name not found"),
        }
    }

    /// What was found of `name`, or the address that it is itself.
    pub(super) fn addresses(&self, name: &str) -> Vec<IpAddr> {
        match name.parse() {
            Ok(address) => vec![address],
            Err(_) => self.names.get(name).map(|known| known.addresses.clone()).unwrap_or_default(),
        }
    }
}

/// Whether a thread looks for `name` now. Of no runtime: at the end of one, nobody should wait for a resolver.
fn start(underlay: &Arc<Netns>, name: &str, answer: UnboundedSender<Answer>) -> bool {
    let (underlay, name) = (underlay.clone(), name.to_owned());
    let look = move || {
        let found = underlay.run(|| look_up(&name)).and_then(|found| found);
        let _ = answer.send((name, found));
    };
    thread::Builder::new().name("lookup".into()).spawn(look).is_ok()
}

/// By the host's resolver; sorted, so that the same addresses in another order are no news.
fn look_up(name: &str) -> io::Result<Vec<IpAddr>> {
    let mut found: Vec<IpAddr> = (name, 0).to_socket_addrs()?.map(|address| address.ip()).collect();
    found.sort_unstable();
    found.dedup();
    found.truncate(MAX_ADDRESSES);
    Ok(found)
}
