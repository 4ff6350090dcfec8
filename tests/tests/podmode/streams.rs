//! How connections end and stall: each direction by itself, by a reset, not at all.

use std::{
    fs,
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    thread,
    time::{Duration, Instant},
};

use lattice_tests::lab::wait_until;

use crate::{
    client::get,
    services::{BREAKER, ECHO, GREETER, HELLO, SINK, SOURCE},
    world::{LIMIT, PAGE, World},
};

/// More than all buffers on the way hold.
const MUCH: u64 = 16 << 20;
/// Most memory that the process may take for a stream that is not read, in KiB. The build is not optimized.
const ROOM: u64 = 32 << 10;

#[test]
fn connections_end_as_their_ends_say() {
    let world = World::new();
    let user = world.user("agent");
    let pod = world.pod(&user, "agent", &[]);
    let client = world.client(&pod);
    let far = world.far_ip;
    let last = || world.services.seen.ends.lock().unwrap().last().copied();

    // We end our direction; theirs goes on.
    let mut sink = client.reach(far, SINK);
    sink.write_all(&vec![7; 300_000]).unwrap();
    sink.shutdown(Shutdown::Write).unwrap();
    let mut said = String::new();
    sink.read_to_string(&mut said).unwrap();
    assert_eq!(said, "300000");

    // They end theirs; ours goes on.
    let mut greeter = client.reach(far, GREETER);
    let mut said = String::new();
    greeter.read_to_string(&mut said).unwrap();
    assert_eq!(said, "bye");
    greeter.write_all(&[7; 50_000]).unwrap();
    drop(greeter);
    wait_until(LIMIT, "the greeter's end", || last() == Some(Ok(50_000)));

    // They break it: that is no end.
    let mut broken = client.reach(far, BREAKER);
    broken.write_all(b"x").unwrap();
    let error = broken.read(&mut [0; 16]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);

    // We break it.
    let breaking = client.reach(far, SINK);
    (&breaking).write_all(b"x").unwrap();
    reset(breaking).unwrap();
    wait_until(LIMIT, "the reset to arrive", || last() == Some(Err(ErrorKind::ConnectionReset)));
    pod.end();
}

/// Closes with a reset.
fn reset(stream: TcpStream) -> io::Result<()> {
    let now = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::Linger, &now)?;
    drop(stream);
    Ok(())
}

#[test]
fn who_does_not_read_holds_up_nobody_and_takes_no_memory() {
    let world = World::new();
    let user = world.user("agent");
    let pod = world.pod(&user, "agent", &[]);
    let client = world.client(&pod);
    assert_eq!(get(client.reach(world.far_ip, PAGE), "/"), HELLO);
    let memory = || resident(pod.process.pid());
    let before = memory();
    let mut slow: Vec<TcpStream> = (0..10)
        .map(|_| {
            let mut stream = client.reach(world.far_ip, SOURCE);
            stream.write_all(&MUCH.to_be_bytes()).unwrap();
            stream
        })
        .collect();
    // And one that is written to and not read from.
    let mut full = client.reach(world.far_ip, ECHO);
    full.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let stuck = loop {
        if let Err(error) = full.write_all(&[0; 64 << 10]) {
            break error.kind();
        }
    };
    assert_eq!(stuck, ErrorKind::WouldBlock);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(1) {
        assert_eq!(get(client.reach(world.far_ip, PAGE), "/"), HELLO, "others go on");
        thread::sleep(Duration::from_millis(50));
    }
    let grown = memory().saturating_sub(before);
    println!("11 stalled connections: {grown} KiB more of {before} KiB");
    assert!(grown < ROOM, "{grown} KiB for what nobody reads");
    // What was not read is still there, all of it.
    let mut first = slow.swap_remove(0);
    let mut total = 0;
    let mut buffer = vec![0; 64 << 10];
    while total < MUCH {
        let length = first.read(&mut buffer).unwrap();
        assert!(length > 0 && buffer[..length].iter().all(|byte| *byte == b's'), "{total}");
        total += length as u64;
    }
    assert_eq!((first.read(&mut buffer).unwrap(), total), (0, MUCH));
    pod.end();
}

/// Resident memory of a process, in KiB.
pub(crate) fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|size| size.parse().ok()).expect("a size")
}
