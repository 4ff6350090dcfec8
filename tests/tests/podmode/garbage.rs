//! What no client sends: it is refused or cut off, and costs nobody else anything.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use crate::{
    client::{Client, get, target},
    services::HELLO,
    world::{PAGE, World},
};

/// Sends it and ends; what comes back until the proxy closes.
fn say(client: &Client<'_>, bytes: &[u8]) -> Vec<u8> {
    let mut stream = client.open();
    let _cut_off = stream.write_all(bytes);
    let _cut_off = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        answer.extend(&buffer[..length]);
    }
    answer
}

fn name(name: &[u8]) -> Vec<u8> {
    [&[3, u8::try_from(name.len()).expect("255 at most")], name, &PAGE.to_be_bytes()].concat()
}

#[test]
fn names_that_lie_and_bytes_that_mean_nothing_are_refused() {
    let world = World::new();
    let user = world.user("agent");
    let pod = world.pod(&user, "agent", &[]);
    let client = world.client(&pod);
    let far = world.far_ip.to_string();
    assert_eq!(client.raw(&name(b"far.lattice")), Some(0), "the encoding is right");
    // An address where a name belongs is that address, and judged as one.
    assert_eq!(client.raw(&name(far.as_bytes())), Some(0));
    assert_eq!(client.raw(&name(b"127.0.0.1")), Some(2));
    let label = "a".repeat(64);
    let long = format!("{}.lattice", "a.".repeat(123));
    let names: [&[u8]; 13] = [
        b"",
        b"far.lattice\0",
        b"far.lattice\0.example.com",
        b"far .lattice",
        b"far.lattice\r\nX: y",
        b"..",
        b"far..lattice",
        b"-",
        label.as_bytes(),
        long.as_bytes(),
        &[0xff; 255],
        "fär.lattice".as_bytes(),
        b"0x7f.1",
    ];
    for bad in names {
        assert_ne!(client.raw(&name(bad)), Some(0), "{:?}", String::from_utf8_lossy(bad));
    }
    assert_ne!(client.reply(&far, 0), 0, "port 0");
    assert_eq!(client.raw(&[9, 1, 2, 3, 4, 0, 80]), Some(8), "an address type that is none");

    let seen = world.services.seen.connections.load(Ordering::Relaxed);
    let socks = target("far.lattice", PAGE);
    let messages: [Vec<u8>; 16] = [
        vec![],
        vec![0; 4096],
        vec![0xff; 100_000],
        vec![4, 1, 0, 80, 10, 42, 0, 2, 0],
        vec![5],
        vec![5, 0],
        vec![5, 255],
        [&[5, 1, 0, 5, 2, 0][..], &socks].concat(),
        [&[5, 1, 0, 4, 1, 0][..], &socks].concat(),
        [&[5, 1, 0, 5, 1, 0][..], &socks[..4]].concat(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        format!("GET http://{far}:{PAGE}/ HTTP/1.1\r\nHost: {far}\r\nHost: x\r\n\r\n").into_bytes(),
        format!("CONNECT {far}:{PAGE} HTTP/1.1\nHost: x\n\n").into_bytes(),
        format!("CONNECT {far}:{PAGE} HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello").into_bytes(),
        format!("CONNECT {far}:{PAGE} HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(100_000)).into_bytes(),
    ];
    for message in &messages {
        let shown = String::from_utf8_lossy(&message[..message.len().min(60)]).into_owned();
        let answer = say(&client, message);
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "{shown:?}");
        assert!(answer.get(2..4).is_none_or(|reply| reply != [5, 0]), "{shown:?}: {answer:?}");
    }
    assert_eq!(world.services.seen.connections.load(Ordering::Relaxed), seen, "nothing came through");
    assert_eq!(get(client.reach("far.lattice", PAGE), "/"), HELLO);
    pod.end();
}

#[test]
fn who_is_slow_on_purpose_keeps_nobody_out() {
    let world = World::new();
    let user = world.user("agent");
    let pod = world.pod(&user, "agent", &[]);
    let client = world.client(&pod);
    let begin = |at: usize| {
        let mut stream = client.open();
        stream.write_all(if at.is_multiple_of(2) { b"\x05" } else { b"CONNECT " }).unwrap();
        stream
    };
    let begun = Instant::now();
    let mut slow: Vec<TcpStream> = (0..150).map(begin).collect();
    for at in 0..40 {
        // One that is cut off makes room for another.
        slow.push(begin(at));
        assert_eq!(get(client.reach("far.lattice", PAGE), "/"), HELLO, "beside {} slow ones", slow.len());
    }
    let mut ended = 0;
    for stream in &mut slow {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        ended += usize::from(
            !matches!(stream.read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock),
        );
    }
    assert_eq!(ended, slow.len(), "all are cut off in the end; {:?} have passed", begun.elapsed());
    assert_eq!(get(client.reach("far.lattice", PAGE), "/"), HELLO);
    pod.end();
}
