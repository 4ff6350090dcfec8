//! Who is slow, who is many, and what is not spoken here.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{sleep, timeout},
};

use super::support::{CREDENTIALS, HANGS, Lab, QUIET, ask, connect, echo, read_all, request, run};

#[test]
fn slow_clients_keep_nobody_out() {
    run(async {
        let lab = Lab::with(None, |limits| (limits.half_open, limits.handshake) = (4, 2 * HANGS)).await;
        let target = echo().await;
        let mut slow = Vec::new();
        for beginning in [&b"CONN"[..], b"\x05", b"\x05\x01\0\x05", b"", b"\x05\x03", b"C"].repeat(5) {
            let mut client = lab.client().await;
            client.write_all(beginning).await.unwrap();
            slow.push(client);
        }
        lab.until(|c| c.slow == 26).await;
        // All places are taken, and still everybody is served at once.
        for _ in 0..10 {
            lab.tunnel(target).await;
        }
        assert_eq!(lab.counters().connected, 10, "{:?}", lab.counters());
        // The first of them pushed one out, and left its place to the next.
        assert_eq!(lab.counters().slow, 27);
        for client in &mut slow[..27] {
            let end = timeout(HANGS / 4, client.read_to_end(&mut Vec::new())).await;
            assert!(end.is_ok(), "a client that was cut off is still connected");
        }
    });
}

#[test]
fn many_honest_clients_at_once_are_not_taken_for_slow_ones() {
    run(async {
        let lab = Lab::with(None, |limits| limits.half_open = 4).await;
        let target = echo().await;
        let mut clients = Vec::new();
        for _ in 0..60 {
            clients.push(lab.client().await);
        }
        // All are connected before the first says a word.
        for client in &mut clients {
            client.write_all(b"\x05\x01\0").await.unwrap();
        }
        for client in &mut clients {
            client.read_exact(&mut [0; 2]).await.unwrap();
            client.write_all(&connect(target)).await.unwrap();
        }
        for client in &mut clients {
            let mut reply = [0; 10];
            client.read_exact(&mut reply).await.unwrap();
            assert_eq!(reply[1], 0);
        }
        assert_eq!((lab.counters().slow, lab.counters().connected), (0, 60));
    });
}

#[test]
fn a_handshake_has_a_deadline_however_its_bytes_trickle() {
    run(async {
        let lab = Lab::with(None, |limits| limits.handshake = Duration::from_secs(2)).await;
        let mut client = lab.client().await;
        let trickle = async {
            for byte in b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\nX: ".iter().chain(std::iter::repeat(&b'x')) {
                if client.write_all(&[*byte]).await.is_err() {
                    break;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        assert!(timeout(HANGS, trickle).await.is_ok());
        lab.until(|c| c.slow == 1).await;
        // What is established has none.
        let mut tunnel = lab.tunnel(echo().await).await;
        sleep(Duration::from_millis(2500)).await;
        tunnel.write_all(b"still here").await.unwrap();
        tunnel.shutdown().await.unwrap();
        assert_eq!(read_all(&mut tunnel).await, b"still here");
    });
}

#[test]
fn beyond_the_cap_a_client_is_told_so_and_places_come_back() {
    run(async {
        let lab = Lab::with(None, |limits| limits.connections = 3).await;
        let target = echo().await;
        let mut tunnels = Vec::new();
        for _ in 0..3 {
            tunnels.push(lab.tunnel(target).await);
        }
        assert_eq!(ask(&mut lab.client().await, &connect(target)).await, 1);
        let mut http = lab.client().await;
        http.write_all(b"CONNECT web.test:1 HTTP/1.1\r\nHost: web.test\r\n\r\n").await.unwrap();
        let reply = String::from_utf8(read_all(&mut http).await).unwrap();
        assert!(reply.starts_with("HTTP/1.1 503 ") && reply.ends_with("try again later\n"), "{reply}");
        assert_eq!((lab.counters().busy, lab.counters().active), (2, 3));
        drop(tunnels);
        lab.until(|c| c.active == 0).await;
        lab.tunnel(target).await;
    });
}

#[test]
fn a_client_that_resets_gives_up_its_dial() {
    run(async {
        let lab = Lab::with(None, |limits| limits.connect = 2 * HANGS).await;
        let mut client = lab.client().await;
        client.write_all(b"CONNECT slow.test:1 HTTP/1.1\r\nHost: slow.test\r\n\r\n").await.unwrap();
        lab.until(|c| c.active == 1).await;
        // One that has merely ended its own direction waits on.
        client.shutdown().await.unwrap();
        sleep(QUIET).await;
        assert_eq!(lab.counters().active, 1);
        client.set_zero_linger().unwrap();
        drop(client);
        lab.until(|c| c.active == 0).await;
    });
}

#[test]
fn what_is_no_request_ends_the_connection() {
    run(async {
        let lab = Lab::start().await;
        let target = echo().await;
        for command in [2, 0, 9, 0xf0] {
            assert_eq!(ask(&mut lab.client().await, &request(command, target)).await, 7, "{command}");
        }
        assert_eq!(ask(&mut lab.client().await, b"\x05\x01\0\x05\0\0").await, 8);
        for name in
            [&b"\x03\x04a\0.b\0\x50"[..], b"\x03\x05127.1\0\x50", b"\x03\0\0\x50", b"\x01\x7f\0\0\x01\0\0"]
        {
            let request = [b"\x05\x01\0", name].concat();
            assert_eq!(ask(&mut lab.client().await, &request).await, 1, "{name:?}");
        }
        let too_long = "x".repeat(100_000);
        for (sent, reply) in [
            (&b"\x04\x01\0\x50\x7f\0\0\x01me\0"[..], &b"\0\x5b\0\0\0\0\0\0"[..]),
            (b"\0\0\0\0", b""),
            (b"\x05\x01\x7f", b"\x05\xff"),
            (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", b"HTTP/1.1 400 "),
            (b"CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 400 "),
            (format!("CONNECT a:1 HTTP/1.1\r\nHost: {too_long}").as_bytes(), b"HTTP/1.1 431 "),
        ] {
            let mut client = lab.client().await;
            // What is refused early may be refused before all of it is sent.
            let _ = client.write_all(sent).await;
            let mut answer = Vec::new();
            let _ = client.read_to_end(&mut answer).await;
            assert!(
                answer.starts_with(reply) && (answer.len() == reply.len() || reply.len() > 8),
                "{answer:?}"
            );
        }
        assert!(lab.behind.asked.borrow().is_empty());
    });
}

#[test]
fn a_client_that_still_sends_reads_why_it_is_refused() {
    run(async {
        let lab = Lab::start().await;
        let mut client = lab.client().await;
        let chunked =
            b"POST http://web.test/ HTTP/1.1\r\nHost: web.test\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.write_all(chunked).await.unwrap();
        lab.until(|c| c.malformed == 1).await;
        for _ in 0..3 {
            sleep(Duration::from_millis(10)).await;
            client.write_all(&[b'x'; 2000]).await.unwrap();
        }
        // A connection that the proxy had closed by now would end in a reset.
        let reply = String::from_utf8(read_all(&mut client).await).unwrap();
        assert!(reply.starts_with("HTTP/1.1 411 "), "{reply}");
    });
}

#[test]
fn nothing_behind_a_wrong_password_is_looked_at() {
    run(async {
        let lab = Lab::with(Some(CREDENTIALS), |_| {}).await;
        let target = echo().await;
        for beginning in [&b"\x05\x01\0"[..], b"\x05\x01\x02\x01\x06merlin\x100123456789abcdeX"] {
            let mut client = lab.client().await;
            client.write_all(&[beginning, &connect(target)].concat()).await.unwrap();
            let answer = read_all(&mut client).await;
            assert!(answer == [5, 0xff] || answer == [5, 2, 1, 1], "{answer:?}");
        }
        assert_eq!(lab.counters().unauthorized, 2);
        assert!(lab.behind.asked.borrow().is_empty());
    });
}

#[test]
fn associations_have_a_cap_of_their_own() {
    run(async {
        let lab = Lab::with(None, |limits| limits.associations = 2).await;
        let any = "0.0.0.0:0".parse().unwrap();
        let mut open = Vec::new();
        for _ in 0..2 {
            let mut client = lab.client().await;
            assert_eq!(ask(&mut client, &request(3, any)).await, 0);
            open.push(client);
        }
        assert_eq!(ask(&mut lab.client().await, &request(3, any)).await, 1);
        lab.tunnel(echo().await).await;
        drop(open);
        lab.until(|c| c.active == 0).await;
        assert_eq!(ask(&mut lab.client().await, &request(3, any)).await, 0);
    });
}
