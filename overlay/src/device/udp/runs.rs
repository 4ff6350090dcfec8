//! Datagrams that wait to be sent together, and where that is not possible.

use std::array;

use super::Way;

/// The kernel's bound on segments in one send (`UDP_MAX_SEGMENTS` of kernels before 6.9).
const MAX_SEGMENTS: usize = 64;

/// A little less than the largest UDP payload, which bounds a whole run too.
const MAX_RUN: usize = 65_000;

/// Room of a run in bytes: for one datagram it may be the largest there is.
const ROOM: usize = 65_535;

/// Runs under way at once: traffic with a few peers may interleave without cutting their runs short.
const OPEN: usize = 4;

/// Runs sent one datagram at a time after the kernel refused to segment one, before it is asked again: a refusal may
/// belong to one route (a tunnel, a smaller MTU), which may change.
const PAUSE: u32 = 256;

/// Ways that are remembered for it. With more, one is asked for again earlier.
const REFUSED: usize = 32;

/// Datagrams of one length, but for the last, which may be shorter, to one address.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) to: Way,
    /// Allocated at the first use, and then reused as it is.
    room: Vec<u8>,
    /// Where what is not sent yet begins and ends.
    start: usize,
    len: usize,
    pub(super) segment: usize,
    segments: usize,
}

impl Run {
    pub(super) fn new() -> Self {
        Self { to: Way::NOWHERE, room: Vec::new(), start: 0, len: 0, segment: 0, segments: 0 }
    }

    /// Whether one of `len` bytes may come after those that are there.
    fn fits(&self, len: usize) -> bool {
        self.segments < MAX_SEGMENTS
            && len <= self.segment
            && self.len == self.segments * self.segment
            && self.len + len <= MAX_RUN
    }

    /// How many they are.
    pub(super) fn count(&self) -> usize {
        self.segments
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.room[self.start..self.len]
    }

    pub(super) fn clear(&mut self) {
        (self.start, self.len) = (0, 0);
        self.segments = 0;
    }

    /// The first datagram, where there is one.
    pub(super) fn first(&self) -> Option<&[u8]> {
        self.bytes().chunks(self.segment.max(1)).next()
    }

    /// Takes the first one away. Then none can be added before it is cleared.
    pub(super) fn pop_first(&mut self) {
        self.start = (self.start + self.segment).min(self.len);
        self.segments = self.segments.saturating_sub(1);
    }

    /// Adds one, for which there must be room. What is left there of earlier ones is for `write` to overwrite.
    pub(super) fn push(&mut self, len: usize, write: impl FnOnce(&mut [u8])) {
        self.room.resize(ROOM, 0);
        write(&mut self.room[self.len..self.len + len]);
        self.len += len;
        self.segments += 1;
    }
}

/// The runs under way.
#[derive(Debug)]
pub(super) struct Runs {
    open: [Run; OPEN],
    oldest: usize,
}

impl Runs {
    pub(super) fn new() -> Self {
        Self { open: array::from_fn(|_| Run::new()), oldest: 0 }
    }

    /// The run to add a datagram of `len` bytes to, after `send` has sent what it cannot go with. `None` when there is no
    /// datagram of that length.
    pub(super) fn place(&mut self, to: Way, len: usize, mut send: impl FnMut(&mut Run)) -> Option<&mut Run> {
        if len == 0 || len > ROOM {
            return None;
        }
        let under_way = self.open.iter().position(|run| run.segments > 0 && run.to == to);
        let at =
            under_way.or_else(|| self.open.iter().position(|run| run.segments == 0)).unwrap_or_else(|| {
                let oldest = self.oldest;
                self.oldest = (oldest + 1) % OPEN;
                oldest
            });
        let run = &mut self.open[at];
        if run.segments > 0 && (run.to != to || !run.fits(len)) {
            send(run);
            run.clear();
        }
        if run.segments == 0 {
            run.to = to;
            run.segment = len;
        }
        Some(run)
    }

    /// Has every run sent.
    pub(super) fn flush(&mut self, mut send: impl FnMut(&mut Run)) {
        for run in self.open.iter_mut().filter(|run| run.segments > 0) {
            send(run);
            run.clear();
        }
    }
}

/// The ways by which the kernel refused to send a run, and for how many runs that is not tried again.
#[derive(Debug, Default)]
pub(super) struct Refusals(Vec<(Way, u32)>);

impl Refusals {
    /// Whether a run may be tried by that way.
    pub(super) fn permit(&mut self, to: Way) -> bool {
        let Some(at) = self.0.iter().position(|(way, _)| *way == to) else { return true };
        self.0[at].1 -= 1;
        if self.0[at].1 == 0 {
            self.0.swap_remove(at);
        }
        false
    }

    pub(super) fn add(&mut self, to: Way) {
        if self.0.len() == REFUSED {
            self.0.remove(0);
        }
        self.0.push((to, PAUSE));
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn way(number: u8) -> Way {
        Way { remote: SocketAddr::from(([192, 0, 2, number], 51820)), local: None }
    }

    /// What is sent of datagrams of these ways and lengths: way, segment and length of each run.
    fn sent(datagrams: &[(u8, usize)]) -> Vec<(u8, usize, usize)> {
        let (mut runs, mut sent) = (Runs::new(), Vec::new());
        let mut send = |run: &mut Run| {
            let number = (1..9).find(|number| way(*number) == run.to).unwrap();
            assert!(run.bytes().iter().all(|byte| *byte == number), "bytes of another");
            sent.push((number, run.segment, run.bytes().len()));
        };
        for (number, len) in datagrams {
            if let Some(run) = runs.place(way(*number), *len, &mut send) {
                run.push(*len, |room| room.fill(*number));
            }
        }
        runs.flush(&mut send);
        sent.sort_unstable();
        sent
    }

    #[test]
    fn runs_of_several_peers_are_under_way_at_once() {
        let interleaved: Vec<_> = (0..12).map(|n| (n % 4 + 1, 100)).collect();
        assert_eq!(sent(&interleaved), [(1, 100, 300), (2, 100, 300), (3, 100, 300), (4, 100, 300)]);
        let more: Vec<_> = (0..12).map(|n| (n % 6 + 1, 100)).collect();
        assert_eq!(sent(&more).len(), 12, "no more than four");
    }

    #[test]
    fn a_run_is_what_the_kernel_takes() {
        assert_eq!(sent(&[(1, 100), (1, 100), (1, 60), (1, 60)]), [(1, 60, 60), (1, 100, 260)]);
        assert_eq!(sent(&[(1, 60), (1, 100)]), [(1, 60, 60), (1, 100, 100)]);
        assert_eq!(sent(&[(1, 1452); 50]), [(1, 1452, 6 * 1452), (1, 1452, 44 * 1452)]);
        assert_eq!(sent(&[(1, 32); 65]), [(1, 32, 32), (1, 32, 64 * 32)]);
        assert_eq!(sent(&[(1, 0), (1, 65_536), (1, 65_535)]), [(1, 65_535, 65_535)]);
    }

    #[test]
    fn a_refusal_is_of_one_way_and_passes() {
        let mut refusals = Refusals::default();
        refusals.add(way(1));
        assert!(refusals.permit(way(2)));
        assert_eq!((0..300).filter(|_| !refusals.permit(way(1))).count(), PAUSE as usize);
        (0..200).for_each(|number| refusals.add(way(number)));
        assert_eq!(refusals.0.len(), REFUSED);
        assert!(refusals.permit(way(1)) && !refusals.permit(way(199)));
    }
}
