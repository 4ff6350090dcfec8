use super::*;

fn connect(host: &str, port: u16) -> Request {
    Request::Connect(Target { host: Host::read(host.as_bytes()).unwrap(), port })
}

fn associate(from: &str, length: usize) -> Read<Request, u8> {
    Ok(Some((Request::Associate(Some(from.parse().unwrap())), length)))
}

#[test]
fn greetings() {
    for (bytes, read) in [
        (&[][..], Ok(None)),
        (&[5], Ok(None)),
        (&[5, 2, 0], Ok(None)),
        (&[5, 2, 0, 2], Ok(Some((true, 4)))),
        (&[5, 1, 0], Ok(Some((false, 3)))),
        (&[5, 0, 2], Ok(Some((false, 2)))),
        (&[5, 1, 2, 5, 1], Ok(Some((true, 3)))),
        (&[4, 1, 2], Err(Malformed)),
    ] {
        assert_eq!(greeting(bytes, PASSWORD), read, "{bytes:?}");
    }
}

#[test]
fn passwords() {
    for (bytes, read) in [
        (&b""[..], Ok(None)),
        (b"\x01", Ok(None)),
        (b"\x01\x02me\x03se", Ok(None)),
        (b"\x01\x02me\x03secret", Ok(Some(((&b"me"[..], &b"sec"[..]), 8)))),
        (b"\x01\0\0", Ok(Some(((&b""[..], &b""[..]), 3)))),
        (b"\x05\x02me", Err(Malformed)),
    ] {
        assert_eq!(password(bytes), read, "{bytes:?}");
    }
    assert_eq!((password_status(true), password_status(false)), ([1, 0], [1, 1]));
}

#[test]
fn requests() {
    for (bytes, read) in [
        (&b"\x05\x01\0\x01\x7f\0\0\x01\0\x50rest"[..], Ok(Some((connect("127.0.0.1", 80), 10)))),
        (b"\x05\x01\0\x03\x0bexample.COM\x01\xbb", Ok(Some((connect("example.com", 443), 18)))),
        (b"\x05\x01\0\x03\x08127.0.0.1\x01\xbb", Err(GENERAL_FAILURE)),
        (b"\x05\x01\0\x03\x09127.0.0.1\x01\xbb", Ok(Some((connect("127.0.0.1", 443), 16)))),
        (b"\x05\x01\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\x16", Ok(Some((connect("::1", 22), 22)))),
        (
            b"\x05\x01\0\x04\0\0\0\0\0\0\0\0\0\0\xff\xff\x0a\0\0\x01\0\x16",
            Ok(Some((connect("10.0.0.1", 22), 22))),
        ),
        // Port 0, no name, a NUL in one, two names.
        (b"\x05\x01\0\x01\x7f\0\0\x01\0\0", Err(GENERAL_FAILURE)),
        (b"\x05\x01\0\x03\0\x01\xbb", Err(GENERAL_FAILURE)),
        (b"\x05\x01\0\x03\x04a\0.b\x01\xbb", Err(GENERAL_FAILURE)),
        (b"\x05\x01\0\x03\x03127\x01\xbb", Err(GENERAL_FAILURE)),
        // A length that lies waits for what does not come.
        (b"\x05\x01\0\x03\xffexample.com\x01\xbb", Ok(None)),
        (b"\x05\x01\0\x01\x7f\0\0\x01\0", Ok(None)),
        (b"\x05\x01\0", Ok(None)),
        (b"\x05\x02", Err(COMMAND_NOT_SUPPORTED)),
        (b"\x05\xf0", Err(COMMAND_NOT_SUPPORTED)),
        (b"\x05\x01\x01", Err(GENERAL_FAILURE)),
        (b"\x05\x01\0\x02", Err(ADDRESS_TYPE_NOT_SUPPORTED)),
        (b"\x04\x01", Err(GENERAL_FAILURE)),
        (b"\x05\x03\0\x01\0\0\0\0\0\0", Ok(Some((Request::Associate(None), 10)))),
        (b"\x05\x03\0\x01\0\0\0\0\x12\x34", associate("0.0.0.0:4660", 10)),
        (b"\x05\x03\0\x01\x08\x08\x08\x08\0\x35", associate("8.8.8.8:53", 10)),
        (b"\x05\x03\0\x03\0\0\0", Ok(Some((Request::Associate(None), 7)))),
    ] {
        assert_eq!(request(bytes), read, "{bytes:?}");
    }
}

#[test]
fn replies() {
    assert_eq!(reply(2, None), b"\x05\x02\0\x01\0\0\0\0\0\0");
    assert_eq!(reply(0, Some("127.0.0.1:258".parse().unwrap())), b"\x05\0\0\x01\x7f\0\0\x01\x01\x02");
    let mapped = "[::ffff:10.0.0.1]:1".parse().unwrap();
    assert_eq!(reply(0, Some(mapped)), b"\x05\0\0\x01\x0a\0\0\x01\0\x01");
    assert_eq!(reply(0, Some("[::1]:1".parse().unwrap())).len(), 22);
}

#[test]
fn datagrams() {
    let target = Target { host: Host::read(b"example.com").unwrap(), port: 53 };
    assert_eq!(datagram(b"\0\0\0\x03\x0bexample.com\0\x35payload"), Ok((target, &b"payload"[..])));
    let from: SocketAddr = "192.0.2.1:53".parse().unwrap();
    assert_eq!(datagram(&header(from)), Ok((Target::from(from), &b""[..])));
    for (bytes, dropped) in [
        (&b""[..], Dropped::Malformed),
        (b"\0\0\0", Dropped::Malformed),
        (b"\0\x01\0\x01\x7f\0\0\x01\0\x35", Dropped::Malformed),
        (b"\0\0\x01\x01\x7f\0\0\x01\0\x35", Dropped::Fragment),
        (b"\0\0\x80\x01", Dropped::Fragment),
        (b"\0\0\0\x01\x7f\0\0\x01\0\0", Dropped::Malformed),
        (b"\0\0\0\x02\x7f\0\0\x01\0\x35", Dropped::Malformed),
        (b"\0\0\0\x03\xffexample.com\0\x35", Dropped::Malformed),
        (b"\0\0\0\x03\x04a\0.b\0\x35", Dropped::Malformed),
    ] {
        assert_eq!(datagram(bytes), Err(dropped), "{bytes:?}");
    }
}
