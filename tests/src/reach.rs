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
}

impl Lab {
    /// Starts the servers on the hub, and tells the control plane of them.
    ///
    /// # Panics
    /// When one does not start.
    pub fn start_reach(&mut self) -> Reach {
        let turn = [3478, 3479].map(|port| {
            let mut turn = command(&self.hub().path(), &tools::built("lattice"));
            turn.args(["start", "turn", "--listen", &format!("0.0.0.0:{port}")]);
            let mut process = Process::spawn(turn, &format!("turn{port}"), self.dir.path());
            process.wait_for("ready", START);
            process
        });
        let relay = self.start_relay();
        let url = relay.output().0;
        let url = url.split('\'').nth(1).expect("the relay's URL").to_owned();
        self.options =
            vec!["--stun".into(), "192.168.50.1:3478,192.168.50.1:3479".into(), "--relay".into(), url];
        drop(self.take_latticed());
        self.start_latticed();
        Reach { turn, relay }
    }

    /// Starts the relay, or starts it again.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_relay(&self) -> Process {
        let mut relay = command(&self.hub().path(), &tools::built("lattice"));
        relay.args([
            "start",
            "relay",
            "--server-url",
            "http://127.0.0.1:8080",
            "--advertise",
            "192.168.50.1",
        ]);
        relay.arg("--data-dir").arg(self.dir.path().join("relay"));
        let process = Process::spawn(relay, "relay", self.dir.path());
        wait_until(START, "the relay", || process.output().0.contains("ready"));
        process
    }
}
