//! Requests for `http://…`: one goes to the server, as it was judged, and nothing that comes after it does.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
    time::timeout,
};

use super::support::{CREDENTIALS, HANGS, Lab, QUIET, nobody, read_all, run, server};

/// A server that answers once nothing comes any more, and tells what came.
async fn listener() -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let (tell, told) = mpsc::unbounded_channel();
    let address = server(move |mut stream: TcpStream| {
        let tell = tell.clone();
        async move {
            let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
            while let Ok(Ok(read @ 1..)) = timeout(QUIET, stream.read(&mut buffer)).await {
                all.extend_from_slice(&buffer[..read]);
            }
            let _ = tell.send(String::from_utf8(all).unwrap());
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nthe answer").await;
        }
    })
    .await;
    (address, told)
}

async fn exchange(lab: &Lab, request: &str) -> String {
    let mut client = lab.client().await;
    client.write_all(request.as_bytes()).await.unwrap();
    String::from_utf8(timeout(HANGS, read_all(&mut client)).await.unwrap()).unwrap()
}

#[test]
fn a_request_goes_to_the_server_and_what_follows_it_goes_nowhere() {
    run(async {
        let lab = Lab::start().await;
        let (address, mut told) = listener().await;
        let port = address.port();
        let smuggled = format!("GET http://127.0.0.1:{port}/other HTTP/1.1\r\nHost: other\r\n\r\n");
        for (fields, body) in [("", ""), ("Content-Length: 5\r\n", "hello")] {
            let head =
                format!("POST http://Web.test:{port}/a HTTP/1.1\r\nHost: elsewhere\r\n{fields}X: y\r\n");
            let answer = exchange(&lab, &format!("{head}\r\n{body}{smuggled}")).await;
            assert_eq!(answer, "HTTP/1.1 200 OK\r\n\r\nthe answer");
            assert_eq!(
                told.recv().await.unwrap(),
                format!(
                    "POST /a HTTP/1.1\r\nHost: web.test:{port}\r\n{fields}X: y\r\nVia: 1.1 lattice\r\nConnection: close\r\n\r\n{body}"
                )
            );
        }
        assert_eq!(*lab.behind.asked.borrow(), vec![format!("HttpRequest web.test:{port}"); 2]);
        // A body that comes later, in parts, and more than there should be.
        let mut client = lab.client().await;
        let head = format!("PUT http://127.0.0.1:{port}/ HTTP/1.0\r\nContent-Length: 4\r\n\r\n");
        for part in [head.as_str(), "ab", "cdefgh"] {
            client.write_all(part.as_bytes()).await.unwrap();
            tokio::time::sleep(QUIET / 4).await;
        }
        assert!(told.recv().await.unwrap().ends_with("\r\n\r\nabcd"));
        assert!(timeout(HANGS, read_all(&mut client)).await.unwrap().ends_with(b"the answer"));
    });
}

#[test]
fn a_body_that_ends_too_soon_is_not_taken_for_a_whole_one() {
    run(async {
        let lab = Lab::start().await;
        let (ended, mut end) = mpsc::unbounded_channel();
        let address = server(move |mut stream: TcpStream| {
            let ended = ended.clone();
            async move {
                let mut all = Vec::new();
                let _ = ended.send(stream.read_to_end(&mut all).await.is_err());
            }
        })
        .await;
        let mut client = lab.client().await;
        let head = format!("PUT http://{address}/ HTTP/1.0\r\nContent-Length: 9\r\n\r\nabc");
        client.write_all(head.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        assert!(timeout(HANGS, end.recv()).await.unwrap().unwrap(), "the server sees a reset");
    });
}

#[test]
fn refusals_are_those_of_a_tunnel() {
    run(async {
        let lab = Lab::start().await;
        let closed = nobody().await;
        for (line, status) in [
            (format!("GET http://{closed}/ HTTP/1.1"), "502"),
            ("GET http://denied.test/ HTTP/1.1".into(), "403"),
            ("GET https://web.test/ HTTP/1.1".into(), "501"),
            ("GET http://user@web.test/ HTTP/1.1".into(), "400"),
        ] {
            let answer = exchange(&lab, &format!("{line}\r\nHost: a\r\n\r\n")).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {answer}");
        }
        let chunked =
            "POST http://web.test/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        assert!(exchange(&lab, chunked).await.starts_with("HTTP/1.1 411 "));

        let lab = Lab::with(Some(CREDENTIALS), |_| {}).await;
        let (address, mut told) = listener().await;
        let head = format!("GET http://{address}/ HTTP/1.1\r\nHost: a\r\n");
        assert!(exchange(&lab, &format!("{head}\r\n")).await.starts_with("HTTP/1.1 407 "));
        let shown = format!("{head}Proxy-Authorization: Bearer 0123456789abcdef\r\n\r\n");
        assert!(exchange(&lab, &shown).await.ends_with("the answer"));
        let seen = told.recv().await.unwrap();
        assert!(!seen.contains("0123456789abcdef"), "{seen}");
    });
}

/// A server that never answers, and tells when it lost a client.
async fn mute() -> (SocketAddr, mpsc::UnboundedReceiver<()>) {
    let (lost, losses) = mpsc::unbounded_channel();
    let address = server(move |mut stream: TcpStream| {
        let lost = lost.clone();
        async move {
            let _ = stream.read_to_end(&mut Vec::new()).await;
            let _ = lost.send(());
        }
    })
    .await;
    (address, losses)
}

#[test]
fn a_client_that_says_no_more_is_answered_but_not_waited_for_for_ever() {
    run(async {
        let ask = |address| format!("GET http://{address}/ HTTP/1.0\r\n\r\n");
        let silent = async |lab: &Lab, address| {
            let mut client = lab.client().await;
            client.write_all(ask(address).as_bytes()).await.unwrap();
            client.shutdown().await.unwrap();
            client
        };
        let lab = Lab::start().await;
        let (address, mut told) = listener().await;
        let mut client = silent(&lab, address).await;
        assert!(timeout(HANGS, read_all(&mut client)).await.unwrap().ends_with(b"the answer"));
        told.recv().await.unwrap();

        // It is gone: by a reset, which comes after its end.
        let (address, mut losses) = mute().await;
        let client = silent(&lab, address).await;
        lab.until(|c| c.active == 1).await;
        tokio::time::sleep(QUIET).await;
        assert_eq!(lab.counters().active, 1);
        client.set_zero_linger().unwrap();
        drop(client);
        let noticed = timeout(HANGS / 10, losses.recv()).await;
        assert!(noticed.is_ok(), "the server's connection outlives the client's");
        lab.until(|c| c.active == 0).await;

        let lab = Lab::with(None, |limits| limits.answer = QUIET).await;
        let mut client = silent(&lab, address).await;
        let ended = timeout(HANGS / 10, client.read_to_end(&mut Vec::new())).await;
        assert!(ended.expect("waits for ever").is_err(), "an answer was made up");
        losses.recv().await.unwrap();
        lab.until(|c| c.active == 0).await;
    });
}

#[test]
fn an_answer_before_the_body_is_not_lost_on_who_still_sends_it() {
    run(async {
        let lab = Lab::start().await;
        let address = server(|mut stream: TcpStream| async move {
            let mut head = [0; 16];
            stream.read_exact(&mut head).await.unwrap();
            stream.write_all(b"HTTP/1.0 413 No\r\n\r\ntoo much").await.unwrap();
            stream.shutdown().await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        })
        .await;
        let mut client = lab.client().await;
        let head = format!("PUT http://{address}/ HTTP/1.0\r\nContent-Length: 1000000\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        // Not before the answer is there; then, as a client that does not look yet.
        timeout(HANGS, client.peek(&mut [0; 1])).await.unwrap().unwrap();
        for _ in 0..4 {
            tokio::time::sleep(QUIET / 4).await;
            client.write_all(&[b'x'; 4096]).await.unwrap();
        }
        let mut answer = Vec::new();
        timeout(HANGS, client.read_to_end(&mut answer)).await.unwrap().unwrap();
        assert_eq!(answer, b"HTTP/1.0 413 No\r\n\r\ntoo much");
        drop(client);
        lab.until(|c| c.active == 0).await;
    });
}
