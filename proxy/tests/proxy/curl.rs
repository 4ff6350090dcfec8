//! What people use: curl by each of its ways through a proxy.

use std::{process::Output, time::Duration};

use super::support::{CREDENTIALS, Lab, nobody, program, run, web};

/// `curl` through the proxy; its output ends in the status of CONNECT and of the response.
async fn curl(arguments: &[&str]) -> Option<Output> {
    let common =
        ["--silent", "--show-error", "--max-time", "120", "--write-out", " %{http_connect} %{http_code}"];
    program("curl", &[&common, arguments].concat()).await
}

fn text(output: &Output) -> (String, String) {
    (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn every_way_through_leads_to_the_same_place() {
    run(async {
        let (lab, port) = (Lab::start().await, web().await.port());
        let proxy = lab.address.to_string();
        let by_name = format!("http://WEB.test:{port}/");
        let by_address = format!("http://127.0.0.1:{port}/");
        let http = format!("http://{proxy}");
        let mut expected = Vec::new();
        for (arguments, asked, connect) in [
            (["--socks5-hostname", &proxy, &by_name].as_slice(), "Socks5 web.test", "000"),
            (&["--socks5-hostname", &proxy, &by_address], "Socks5 127.0.0.1", "000"),
            (&["--socks5", &proxy, &by_address], "Socks5 127.0.0.1", "000"),
            (&["--proxytunnel", "--proxy", &http, &by_name], "HttpConnect web.test", "200"),
            (&["--proxytunnel", "--proxy", &http, &by_address], "HttpConnect 127.0.0.1", "200"),
            (&["--proxytunnel", "--proxy1.0", &proxy, &by_name], "HttpConnect web.test", "200"),
            (&["--proxy", &http, &by_name], "HttpRequest web.test", "000"),
            (&["--proxy", &http, "--data", "a=b", &by_address], "HttpRequest 127.0.0.1", "000"),
        ] {
            let Some(output) = curl(arguments).await else { return };
            let (out, err) = text(&output);
            assert_eq!(out, format!("hello {connect} 200"), "{arguments:?}: {err}");
            expected.push(format!("{asked}:{port}"));
        }
        assert_eq!(*lab.behind.asked.borrow(), expected);
        assert_eq!(lab.counters().connected, 8);
    });
}

#[test]
fn only_who_shows_the_credentials_gets_through() {
    run(async {
        let (lab, port) = (Lab::with(Some(CREDENTIALS), |_| {}).await, web().await.port());
        let url = format!("http://web.test:{port}/");
        let socks = lab.address.to_string();
        let http = format!("http://{socks}");
        let bearer = "Proxy-Authorization: Bearer 0123456789abcdef";
        for arguments in [
            ["--socks5-hostname", &socks, "--proxy-user", CREDENTIALS, &url].as_slice(),
            &["--proxytunnel", "--proxy", &http, "--proxy-user", CREDENTIALS, &url],
            &["--proxytunnel", "--proxy", &http, "--proxy-anyauth", "--proxy-user", CREDENTIALS, &url],
            &["--proxytunnel", "--proxy", &http, "--proxy-header", bearer, &url],
        ] {
            let Some(output) = curl(arguments).await else { return };
            let (out, err) = text(&output);
            assert!(out.starts_with("hello "), "{arguments:?}: {out} {err}");
        }
        let asked = lab.behind.asked.borrow().len();
        let unauthorized = lab.counters().unauthorized;
        for (arguments, error) in [
            (["--socks5-hostname", &socks, &url].as_slice(), "No authentication method"),
            (&["--socks5-hostname", &socks, "--proxy-user", "merlin:0123456789abcdeX", &url], "rejected"),
            (&["--socks5-hostname", &socks, "--proxy-user", "morgan:0123456789abcdef", &url], "rejected"),
            (&["--proxytunnel", "--proxy", &http, &url], "407"),
            (&["--proxytunnel", "--proxy", &http, "--proxy-user", "merlin:", &url], "407"),
            (
                &[
                    "--proxytunnel",
                    "--proxy",
                    &http,
                    "--proxy-header",
                    "Proxy-Authorization: Bearer no",
                    &url,
                ],
                "407",
            ),
        ] {
            let output = curl(arguments).await.unwrap();
            let (out, err) = text(&output);
            assert!(!output.status.success() && !out.contains("hello"), "{arguments:?}: {out}");
            assert!(err.contains(error), "{arguments:?}: {err}");
        }
        assert_eq!(lab.behind.asked.borrow().len(), asked, "a stranger's request went through");
        assert_eq!(lab.counters().unauthorized, unauthorized + 6);
    });
}

#[test]
fn refusals_reach_the_client_in_its_own_protocol() {
    run(async {
        let patient = Lab::start().await;
        let hasty = Lab::with(None, |limits| limits.connect = Duration::from_millis(200)).await;
        let closed = format!("127.0.0.1:{}", nobody().await.port());
        for (target, code, status) in [
            ("denied.test", 2, 403),
            ("192.0.2.1", 2, 403),
            ("unroutable.test", 3, 502),
            ("unreachable.test", 4, 502),
            ("nowhere.test", 4, 502),
            (&closed, 5, 502),
            ("slow.test", 6, 504),
            ("busy.test", 1, 503),
        ] {
            let lab = if target == "slow.test" { &hasty } else { &patient };
            let (socks, http) = (lab.address.to_string(), format!("http://{}", lab.address));
            let url = format!("http://{target}/");
            let Some(output) = curl(&["--socks5-hostname", &socks, &url]).await else { return };
            let (_, err) = text(&output);
            assert!(err.contains(&format!("({code})")), "{target}: {err}");

            let output = curl(&["--proxytunnel", "--proxy", &http, &url]).await.unwrap();
            let (out, err) = text(&output);
            assert_eq!(out, format!(" {status} 000"), "{target}: {err}");
        }
        let http = format!("http://{}", patient.address);
        let Some(output) = curl(&["--verbose", "--proxytunnel", "--proxy", &http, "http://192.0.2.1/"]).await
        else {
            return;
        };
        assert!(text(&output).1.contains("Proxy-Status: lattice; error=destination_ip_prohibited"));
    });
}

#[test]
fn what_is_not_served_says_what_is() {
    run(async {
        let lab = Lab::start().await;
        let address = lab.address.to_string();
        let http = format!("http://{address}");
        let Some(output) = curl(&["--proxy", &http, "ftp://web.test/"]).await else { return };
        let (out, _) = text(&output);
        assert!(
            out.starts_with("lattice: only CONNECT and requests for http://") && out.ends_with(" 501"),
            "{out}"
        );
        let chunked = "Transfer-Encoding: chunked";
        let post = ["--proxy", &http, "--header", chunked, "--data", &"x".repeat(20_000), "http://web.test/"];
        let (out, err) = text(&curl(&post).await.unwrap());
        assert!(out.ends_with(" 411"), "{out} {err}");
        for arguments in [
            ["--socks4", &address, "http://127.0.0.1/"],
            ["--socks4a", &address, "http://web.test/"],
            ["--proxy", &format!("https://{address}"), "https://web.test/"],
        ] {
            let output = curl(&arguments).await.unwrap();
            assert!(!output.status.success(), "{arguments:?}: {output:?}");
        }
        assert_eq!(lab.counters().malformed, 5);
        assert!(lab.behind.asked.borrow().is_empty());
    });
}
