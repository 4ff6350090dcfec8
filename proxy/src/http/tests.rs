use super::*;

fn head(line: &str, fields: &[&str]) -> String {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    format!("{line}\r\n{fields}\r\n")
}

fn target(text: &str) -> Result<String, Invalid> {
    let head = head(&format!("CONNECT {text} HTTP/1.1"), &["Host: whatever"]);
    let (asked, length) = request(head.as_bytes())?.unwrap();
    assert_eq!(length, head.len());
    tunnel_of(asked)
}

fn tunnel_of(asked: Asked<'_>) -> Result<String, Invalid> {
    asked.wants.map(|wants| match wants {
        Wants::Tunnel(target) => target.to_string(),
        Wants::Exchange(exchange) => panic!("{exchange:?}"),
    })
}

#[test]
fn targets() {
    for (given, read) in [
        ("example.com:443", "example.com:443"),
        ("EXAMPLE.com.:0443", "example.com:443"),
        ("10.0.0.1:22", "10.0.0.1:22"),
        ("[2001:DB8::1]:65535", "[2001:db8::1]:65535"),
        ("[::ffff:10.0.0.1]:1", "10.0.0.1:1"),
    ] {
        assert_eq!(target(given), Ok(read.into()), "{given}");
    }
    for given in [
        "example.com",
        "example.com:",
        "example.com:+80",
        "example.com:65536",
        "example.com:000080",
        "example.com:80:80",
        "::1:80",
        "[::1]",
        "[::1]80",
        "[10.0.0.1]:80",
        "[example.com]:80",
        "/",
        "*",
    ] {
        assert_eq!(target(given), Err(Invalid::Form), "{given}");
    }
    for (given, error) in [
        (":80", NameError::Empty),
        ("example.com:0", NameError::Port),
        ("user@example.com:80", NameError::Character),
        ("example.com%00.test:80", NameError::Character),
        ("0x7f.1:80", NameError::Number),
        ("bücher.example:80", NameError::NotAscii),
        ("[fe80::1%eth0]:80", NameError::Character),
    ] {
        assert_eq!(target(given), Err(Invalid::Target(error)), "{given}");
    }
    assert!(target("http://example.com/").is_err() && target("http://example.com:80").is_err());
}

#[test]
fn heads_that_are_served() {
    for head in [
        head("CONNECT a:1 HTTP/1.0", &[]),
        head("CONNECT a:1 HTTP/1.1", &["HOST:a"]),
        head("CONNECT a:1 HTTP/1.1", &["Host: another:2"]),
        head("CONNECT a:1 HTTP/1.1", &["Host: a", "Content-Length: 0", "User-Agent: \t b\u{fc}cher \t"]),
    ] {
        let (asked, length) = request(head.as_bytes()).unwrap().unwrap();
        assert_eq!(asked.authorization, None);
        assert_eq!((tunnel_of(asked).unwrap(), length), ("a:1".into(), head.len()));
    }
    let head = head("CONNECT a:1 HTTP/1.1", &["Host: a", "proxy-authorization: \t Basic eA== "]) + "early";
    let (asked, length) = request(head.as_bytes()).unwrap().unwrap();
    assert_eq!((asked.authorization, length), (Some(&b"Basic eA=="[..]), head.len() - 5));
}

#[test]
fn heads_that_are_refused() {
    let malformed = |head: String| {
        let read = request(head.as_bytes());
        assert!(matches!(read, Err(Invalid::Malformed(_))), "{head:?}: {read:?}");
    };
    let good = "CONNECT a:1 HTTP/1.1";
    malformed(head(good, &[]));
    malformed(head(good, &["Host: a", "Host: a"]));
    malformed(head("CONNECT a:1 HTTP/1.0", &["Host: a", "host: b"]));
    malformed(head(good, &["Host: a", "Content-Length: 1"]));
    malformed(head(good, &["Host: a", "Content-Length: +0"]));
    malformed(head(good, &["Host: a", "Transfer-Encoding: chunked"]));
    malformed(head(good, &["Host: a", "Transfer-Encoding : chunked"]));
    malformed(head(good, &["Host: a", " folded"]));
    malformed(head(good, &["Host: a", ": no name"]));
    malformed(head(good, &["Host: a", "no colon"]));
    malformed(head(good, &["Host: a", "X: a\0b"]));
    malformed(head(good, &["Host: a", "X: a\rb"]));
    malformed(head(good, &["Host: a", "Proxy-Authorization: Basic eA==", "Proxy-Authorization: x"]));
    malformed(head("CONNECT  a:1 HTTP/1.1", &["Host: a"]));
    malformed(head("CONNECT a:1 HTTP/1.1 ", &["Host: a"]));
    malformed(head("CONNECT a:1", &["Host: a"]));
    malformed(head("CONNECT\ta:1 HTTP/1.1", &["Host: a"]));
    malformed("CONNECT a:1 HTTP/1.1\nHost: a\n\n".into());
    malformed("CONNECT a:1 HTTP/1.1\r\nHost: a\n\r\n".into());
    malformed("\r\n\r\n".into());
    for line in ["GET https://example.com/ HTTP/1.1", "connect a:1 HTTP/1.1", "OPTIONS * HTTP/1.0"] {
        let head = head(line, &["Host: a"]);
        let (asked, _) = request(head.as_bytes()).unwrap().unwrap();
        assert_eq!(asked.wants, Err(Invalid::Method), "{line}");
    }
    for line in ["PRI * HTTP/2.0", "CONNECT a:1 HTTP/0.9", "CONNECT a:1 HTTP/1.2"] {
        assert_eq!(request(head(line, &["Host: a"]).as_bytes()), Err(Invalid::Version), "{line}");
    }
}

#[test]
fn heads_are_bounded() {
    let mut fields = vec!["X: y"; MAX_FIELDS - 1];
    fields.push("Host: a");
    assert!(request(head("CONNECT a:1 HTTP/1.1", &fields).as_bytes()).is_ok());
    fields.push("X: y");
    assert_eq!(request(head("CONNECT a:1 HTTP/1.1", &fields).as_bytes()), Err(Invalid::Long));

    let with = |padding: usize| head("CONNECT a:1 HTTP/1.0", &[&format!("X: {}", "y".repeat(padding))]);
    let fits = MAX_HANDSHAKE - with(0).len();
    assert!(matches!(request(with(fits).as_bytes()), Ok(Some(_))));
    assert_eq!(request(with(fits + 1).as_bytes()), Err(Invalid::Long));
    assert_eq!(request(&with(fits).as_bytes()[..MAX_HANDSHAKE - 1]), Ok(None));
}

#[test]
fn responses_say_what_to_do_and_end_the_connection() {
    let text = String::from_utf8(Invalid::Method.response()).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 501 Not Implemented\r\nContent-Type: "), "{head}");
    assert!(head.contains(&format!("Content-Length: {}", body.len())) && head.ends_with("Connection: close"));
    assert!(body.contains("only CONNECT and requests for http:// are served here"), "{body}");
}
