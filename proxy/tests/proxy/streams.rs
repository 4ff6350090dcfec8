//! Bytes through the proxy: many, much, slowly, broken, and none.

use std::time::Duration;

use lattice_proxy::limits::CHUNK;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::support::{HANGS, Lab, QUIET, echo, read_all, run, server};

/// How often the bytes of [`there_and_back`] repeat: no multiple of anything by which the proxy moves them.
const PERIOD: usize = 4 * CHUNK + 17;

/// Bytes of which no part looks like another.
fn noise() -> Vec<u8> {
    let mut state: u64 = 7;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..PERIOD).map(|_| next()).collect()
}

/// Sends so many bytes, and reads the same.
async fn there_and_back(tunnel: TcpStream, bytes: usize) {
    let (mut reader, mut writer) = tunnel.into_split();
    let noise = noise();
    let write = async {
        let mut left = bytes;
        while left > 0 {
            let part = &noise[..left.min(PERIOD)];
            writer.write_all(part).await.unwrap();
            left -= part.len();
        }
        writer.shutdown().await.unwrap();
    };
    let read = async {
        let (mut count, mut buffer) = (0, vec![0; 64 << 10]);
        loop {
            let length = buffer.len().min(PERIOD - count % PERIOD);
            match reader.read(&mut buffer[..length]).await.unwrap() {
                0 => break count,
                read => {
                    assert!(buffer[..read] == noise[count % PERIOD..][..read], "other bytes at {count}");
                    count += read;
                }
            }
        }
    };
    let ((), count) = tokio::join!(write, read);
    assert_eq!(count, bytes);
}

#[test]
fn a_quarter_of_a_gibibyte_there_and_back() {
    run(async {
        let lab = Lab::start().await;
        there_and_back(lab.tunnel(echo().await).await, 256 << 20).await;
        lab.until(|c| c.active == 0).await;
    });
}

#[test]
fn two_hundred_at_the_same_time() {
    run(async {
        let (lab, target) = (Lab::start().await, echo().await);
        let mut tunnels = Vec::new();
        for _ in 0..200 {
            tunnels.push(lab.tunnel(target).await);
        }
        assert_eq!(lab.counters().active, 200);
        let mut downloads = JoinSet::new();
        for (n, tunnel) in tunnels.into_iter().enumerate() {
            downloads.spawn_local(there_and_back(tunnel, 200_000 + n));
        }
        while let Some(done) = downloads.join_next().await {
            done.unwrap();
        }
        lab.until(|c| c.active == 0).await;
    });
}

#[test]
fn a_long_lived_connection_costs_nothing_while_it_is_silent() {
    run(async {
        let (lab, target) = (Lab::start().await, echo().await);
        let mut tunnels = Vec::new();
        for _ in 0..100 {
            let mut tunnel = lab.tunnel(target).await;
            tunnel.write_all(b"hello").await.unwrap();
            tunnel.read_exact(&mut [0; 5]).await.unwrap();
            tunnels.push(tunnel);
        }
        sleep(QUIET).await;
        let polls = lab.behind.polls.get();
        sleep(3 * QUIET).await;
        assert_eq!(lab.behind.polls.get(), polls, "a task was woken, and nothing had come");
        for tunnel in &mut tunnels {
            tunnel.write_all(b"again").await.unwrap();
            let mut back = [0; 5];
            tunnel.read_exact(&mut back).await.unwrap();
            assert_eq!(&back, b"again");
        }
    });
}

#[test]
fn each_direction_ends_by_itself() {
    run(async {
        let lab = Lab::start().await;
        // Answers only once the question has ended, and then slowly.
        let target = server(|mut stream| async move {
            let question = read_all(&mut stream).await;
            for byte in question.iter().rev() {
                sleep(Duration::from_millis(20)).await;
                stream.write_all(&[*byte]).await.unwrap();
            }
        })
        .await;
        let mut tunnel = lab.tunnel(target).await;
        tunnel.write_all(b"question").await.unwrap();
        tunnel.shutdown().await.unwrap();
        assert_eq!(read_all(&mut tunnel).await, b"noitseuq");

        // The other way round: the server ends first, and still hears the rest.
        let (heard, hears) = tokio::sync::oneshot::channel();
        let heard = std::rc::Rc::new(std::cell::Cell::new(Some(heard)));
        let target = server(move |mut stream| {
            let heard = std::rc::Rc::clone(&heard);
            async move {
                stream.write_all(b"bye").await.unwrap();
                stream.shutdown().await.unwrap();
                heard.take().unwrap().send(read_all(&mut stream).await).unwrap();
            }
        })
        .await;
        let mut tunnel = lab.tunnel(target).await;
        assert_eq!(read_all(&mut tunnel).await, b"bye");
        tunnel.write_all(b"last words").await.unwrap();
        drop(tunnel);
        assert_eq!(hears.await.unwrap(), b"last words");
        lab.until(|c| c.active == 0).await;
    });
}

#[test]
fn what_comes_behind_the_request_is_not_lost() {
    run(async {
        let (lab, target) = (Lab::start().await, echo().await);
        let mut socks = lab.client().await;
        let request = super::support::connect(target);
        socks.write_all(&[&[5, 1, 0][..], &request, b"early"].concat()).await.unwrap();
        socks.shutdown().await.unwrap();
        let all = read_all(&mut socks).await;
        assert_eq!((&all[..4], &all[12..]), (&[5, 0, 5, 0][..], &b"early"[..]));

        let mut http = lab.client().await;
        let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
        http.write_all(&[head.as_bytes(), b"early"].concat()).await.unwrap();
        http.shutdown().await.unwrap();
        assert_eq!(read_all(&mut http).await, b"HTTP/1.1 200 Connection established\r\n\r\nearly");
    });
}

async fn is_reset(stream: &mut TcpStream) -> bool {
    let end = timeout(HANGS, stream.read_to_end(&mut Vec::new())).await.expect("hangs");
    end.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
}

#[test]
fn resets_are_passed_on_and_a_proxy_that_ends_resets() {
    run(async {
        let lab = Lab::start().await;
        // By the server, in the middle of an answer.
        let target = server(|mut stream| async move {
            stream.write_all(b"half of it").await.unwrap();
            stream.read_u8().await.unwrap();
            stream.set_zero_linger().unwrap();
        })
        .await;
        let mut tunnel = lab.tunnel(target).await;
        tunnel.read_exact(&mut [0; 10]).await.unwrap();
        tunnel.write_all(b"x").await.unwrap();
        assert!(is_reset(&mut tunnel).await);

        // By the client.
        let (seen, sees) = tokio::sync::oneshot::channel();
        let seen = std::rc::Rc::new(std::cell::Cell::new(Some(seen)));
        let target = server(move |mut stream| {
            let seen = std::rc::Rc::clone(&seen);
            async move { seen.take().unwrap().send(is_reset(&mut stream).await).unwrap() }
        })
        .await;
        let tunnel = lab.tunnel(target).await;
        tunnel.set_zero_linger().unwrap();
        drop(tunnel);
        assert!(sees.await.unwrap());
        lab.until(|c| c.active == 0).await;

        let mut tunnel = lab.tunnel(echo().await).await;
        lab.stop();
        assert!(is_reset(&mut tunnel).await);
    });
}

#[test]
fn a_slow_reader_holds_up_its_sender_and_nobody_else() {
    run(async {
        let lab = Lab::start().await;
        let (told, tell) = (std::rc::Rc::new(std::cell::Cell::new(0usize)), 64 << 20);
        let written = std::rc::Rc::clone(&told);
        let target = server(move |mut stream| {
            let written = std::rc::Rc::clone(&written);
            async move {
                let block = vec![7; 64 << 10];
                while written.get() < tell {
                    stream.write_all(&block).await.unwrap();
                    written.set(written.get() + block.len());
                }
            }
        })
        .await;
        let mut slow = lab.tunnel(target).await;
        let mut before = usize::MAX;
        while before != told.get() {
            before = told.get();
            sleep(QUIET).await;
        }
        assert!(told.get() < tell, "nothing held up the sender: {}", told.get());
        there_and_back(lab.tunnel(echo().await).await, 1 << 20).await;
        assert_eq!(read_all(&mut slow).await.len(), tell);
    });
}
