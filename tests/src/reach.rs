//! A STUN server and a relay beside the control plane.

use std::time::Duration;

use crate::{Lab, Process, lab::wait_until, process::command, tools};

const START: Duration = Duration::from_secs(60);

/// What helps peers to reach each other.
pub struct Reach {
    /// `lattice start turn`, twice: whether a NAT is symmetric shows in the difference of two answers.
    pub turn: [Process; 2],
    /// `lattice start relay`.
    pub relay: Process,
    /// A second one, called "spare".
    pub spare: Option<Process>,
}

impl Lab {
    /// Starts the servers on the hub, and tells the control plane of them.
    ///
    /// # Panics
    /// When one does not start.
    pub fn start_reach(&mut self) -> Reach {
        self.start_reach_with(false)
    }

    /// The same, with two relays instead of one.
    ///
    /// # Panics
    /// When one does not start.
    pub fn start_reach_and_spare(&mut self) -> Reach {
        self.start_reach_with(true)
    }

    fn start_reach_with(&mut self, spare: bool) -> Reach {
        let turn = [3478, 3479].map(|port| {
            let mut turn = command(&self.hub().path(), &tools::built("lattice"));
            turn.args(["start", "turn", "--listen", &format!("0.0.0.0:{port}")]);
            let mut process = Process::spawn(turn, &format!("turn{port}"), self.dir.path());
            process.wait_for("ready", START);
            process
        });
        let relay = self.start_relay();
        let mut relays = vec![url(&relay)];
        let spare = spare.then(|| {
            let spare =
                self.relay_at("spare", &["--listen-quic", "0.0.0.0:6269", "--listen-tcp", "0.0.0.0:6268"]);
            relays.push(url(&spare).replace("name=192-168-50-1", "name=spare"));
            spare
        });
        let mut options = vec!["--stun", "192.168.50.1:3478,192.168.50.1:3479"];
        options.extend(relays.iter().flat_map(|url| ["--relay", url]));
        self.tell_of(&options);
        Reach { turn, relay, spare }
    }

    /// Starts the control plane again, with these options.
    ///
    /// # Panics
    /// When it does not start.
    pub fn tell_of(&mut self, options: &[&str]) {
        self.options = options.iter().map(ToString::to_string).collect();
        drop(self.take_latticed());
        self.start_latticed();
    }

    /// Starts the relay, or starts it again.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_relay(&self) -> Process {
        self.relay_at("relay", &[])
    }

    fn relay_at(&self, name: &str, more: &[&str]) -> Process {
        let mut relay = command(&self.hub().path(), &tools::built("lattice"));
        relay.args([
            "start",
            "relay",
            "--server-url",
            "http://127.0.0.1:8080",
            "--advertise",
            "192.168.50.1",
        ]);
        relay.args(more).arg("--data-dir").arg(self.dir.path().join(name));
        let process = Process::spawn(relay, name, self.dir.path());
        wait_until(START, "the relay", || process.output().0.contains("ready"));
        process
    }
}

/// What a relay says it is to be called by.
fn url(relay: &Process) -> String {
    relay.output().0.split('\'').nth(1).expect("the relay's URL").to_owned()
}
