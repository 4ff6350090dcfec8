//! The simulated peers, on one connection.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::{Client, Subscriber};
use futures::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use lattice_wire::{
    PeerId,
    message::Heartbeat,
    subject::{self, PeerVerb},
};
use tokio::{sync::mpsc, time::timeout};

/// Requests on their way at once.
const WINDOW: usize = 64;
/// So long for one answer.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Peers {
    ids: Arc<Vec<PeerId>>,
    client: Client,
    /// How many of the first ones are told when the last one moves.
    told: usize,
    /// (which peer, when) for each push.
    pushed: tokio::sync::Mutex<mpsc::UnboundedReceiver<(usize, Instant)>>,
}

impl Peers {
    /// Subscribes for every peer. When the last one moves, the first `told` hear of it.
    pub async fn connect(client: Client, ids: Vec<PeerId>, told: usize) -> Self {
        let (sender, pushed) = mpsc::unbounded_channel();
        for (at, id) in ids.iter().enumerate() {
            let mut pushes = client.subscribe(subject::config(id)).await.unwrap();
            let sender = sender.clone();
            tokio::spawn(async move {
                while let Some(message) = pushes.next().await {
                    if !message.payload.is_empty() {
                        let _ = sender.send((at, Instant::now()));
                    }
                }
            });
        }
        client.flush().await.unwrap();
        Self { ids: Arc::new(ids), client, told, pushed: tokio::sync::Mutex::new(pushed) }
    }

    async fn ask(&self, at: usize, replies: &mut Subscriber, port: u16) {
        let id = &self.ids[at];
        let beat = Heartbeat { endpoints: vec![([192, 0, 2, 1], port).into()], generation: 0 };
        let payload = serde_json::to_vec(&beat).unwrap();
        let reply = format!("{}.{at}", subject::inbox(id));
        let subject = subject::peer(id, PeerVerb::Heartbeat);
        self.client.publish_with_reply(subject, reply, payload.into()).await.unwrap();
        timeout(PATIENCE, replies.next()).await.expect("an answer").unwrap();
    }

    /// Every peer says where it is, once; then the pushes that this causes are let pass.
    pub async fn all_online(&self) {
        self.beat(self.ids.len()).await;
        self.settled().await;
    }

    /// Lets the pushes pass that are on their way; how many came since the last time.
    pub async fn settled(&self) -> usize {
        let mut pushed = self.pushed.lock().await;
        let mut count = 0;
        while timeout(Duration::from_secs(2), pushed.recv()).await.is_ok() {
            count += 1;
        }
        count
    }

    /// Heartbeats without news; how many a second.
    pub async fn heartbeats(&self, count: usize) -> f64 {
        let began = Instant::now();
        self.beat(count).await;
        count as f64 / began.elapsed().as_secs_f64()
    }

    async fn beat(&self, count: usize) {
        let lanes = (0..WINDOW).map(|lane| async move {
            let mut at = lane;
            while at < count {
                // Each peer may ask only so often: the lanes go through all of them.
                let peer = at % self.ids.len();
                let inbox = format!("{}.>", subject::inbox(&self.ids[peer]));
                let mut replies = self.client.subscribe(inbox).await.unwrap();
                self.ask(peer, &mut replies, 1000).await;
                at += WINDOW;
            }
        });
        join_all(lanes).await;
    }

    /// The same exchange with a responder that only answers.
    pub async fn echoes(&self, count: usize) -> f64 {
        let mut requests = self.client.subscribe("bench.echo").await.unwrap();
        let responder = self.client.clone();
        let task = tokio::spawn(async move {
            while let Some(message) = requests.next().await {
                if let Some(reply) = message.reply {
                    let _ = responder.publish(reply, r#"{"ok":{}}"#.into()).await;
                }
            }
        });
        self.client.flush().await.unwrap();
        let began = Instant::now();
        let lanes = (0..WINDOW).map(|lane| async move {
            let mut at = lane;
            while at < count {
                let inbox = format!("_INBOX_bench{lane}.{at}");
                let mut replies = self.client.subscribe(inbox.clone()).await.unwrap();
                let payload = br#"{"endpoints":["192.0.2.1:1000"],"generation":0}"#;
                self.client.publish_with_reply("bench.echo", inbox, payload[..].into()).await.unwrap();
                timeout(PATIENCE, replies.next()).await.expect("an echo").unwrap();
                at += WINDOW;
            }
        });
        join_all(lanes).await;
        task.abort();
        count as f64 / began.elapsed().as_secs_f64()
    }

    /// The last peer moves: milliseconds until each of those was told that may talk with it.
    pub async fn push(&self, round: usize) -> Vec<f64> {
        let mut pushed = self.pushed.lock().await;
        while pushed.try_recv().is_ok() {}
        let last = self.ids.len() - 1;
        let inbox = format!("{}.>", subject::inbox(&self.ids[last]));
        let mut replies = self.client.subscribe(inbox).await.unwrap();
        let began = Instant::now();
        self.ask(last, &mut replies, 2000 + u16::try_from(round).unwrap()).await;
        let mut times = Vec::with_capacity(self.told);
        while times.len() < self.told {
            let (who, at) = timeout(PATIENCE, pushed.recv()).await.expect("a push").unwrap();
            if who < self.told {
                times.push((at - began).as_secs_f64() * 1e3);
            }
        }
        drop(pushed);
        // Others may be told as well; not into the next round.
        if self.told < self.ids.len() {
            self.settled().await;
        }
        times
    }

    /// As many messages of a delta's size, published one after the other.
    pub async fn raw_fan_out(&self) -> Vec<f64> {
        let mut subscribers = Vec::new();
        for at in 0..self.ids.len() {
            subscribers.push(self.client.subscribe(format!("bench.raw.{at}")).await.unwrap());
        }
        self.client.flush().await.unwrap();
        let receive: FuturesUnordered<_> = subscribers
            .into_iter()
            .map(|mut subscriber| async move {
                timeout(PATIENCE, subscriber.next()).await.expect("a message");
                Instant::now()
            })
            .collect();
        let began = Instant::now();
        let publish = async {
            for at in 0..self.ids.len() {
                self.client.publish(format!("bench.raw.{at}"), vec![b'x'; 300].into()).await.unwrap();
            }
            self.client.flush().await.unwrap();
        };
        let ((), times) = tokio::join!(publish, receive.collect::<Vec<_>>());
        times.into_iter().map(|at| (at - began).as_secs_f64() * 1e3).collect()
    }
}
