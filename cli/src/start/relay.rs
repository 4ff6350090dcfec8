//! `lattice start relay`.

use std::{
    net::{IpAddr, Ipv6Addr},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use lattice_bootstrap::{Failure, Kind, ServerUrl};
use lattice_relay::{Config, Identity, Metrics, RelayError};
use lattice_wire::{
    HostPort,
    relay_token::{RelayKeys, TrustedKeys},
};

use crate::{args::Relay, output, signals::Signals};

/// How long clients may take to leave.
const DRAIN: Duration = Duration::from_secs(5);
/// How long the control plane may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer that is read, in bytes.
const MAX_BODY: u64 = 64 << 10;

pub(crate) fn run(args: Relay) -> Result<ExitCode, Failure> {
    let keys = match &args.server_url {
        // Keys that are named are the better trust.
        Some(url) if args.trust.is_empty() => {
            let server = ServerUrl::parse(url, args.server_ca.as_deref())?;
            if server.proves_nothing() {
                output::warn(&format!(
                    "{} proves nothing of the server: who is between can have this relay accept tokens of their own; use https:// or --trust",
                    server.base()
                ));
            }
            ask(&server)?
        }
        _ => args.trust.clone(),
    };
    let trusted = TrustedKeys::new(keys.iter().map(String::as_str))
        .map_err(|error| Failure::new(Kind::Usage, format!("--trust: {error}")))?;
    let identity =
        Identity::load(&args.data_dir).map_err(|error| Failure::new(Kind::Credentials, error.to_string()))?;
    let fingerprint = identity.fingerprint();
    let config = Config {
        quic: Some(args.listen_quic),
        tcp: Some(args.listen_tcp),
        max_clients: args.max_clients as usize,
        rate: args.rate.map(|megabits| u64::from(megabits) * 125_000),
        ..Config::new(trusted)
    };
    let runtime = super::runtime()?;
    let signals = Signals::take(runtime.handle())?;
    runtime.block_on(async {
        let metrics = Arc::new(Metrics::default());
        let relay = lattice_relay::Relay::start(config, identity, Arc::clone(&metrics)).map_err(|error| {
            let kind =
                if matches!(error, RelayError::Listen { .. }) { Kind::Taken } else { Kind::Credentials };
            Failure::new(kind, error.to_string())
        })?;
        super::serve_metrics(args.metrics_addr, &metrics).await?;
        let quic = relay.quic_address().unwrap_or(args.listen_quic);
        let tcp = relay.tcp_address().unwrap_or(args.listen_tcp);
        let host = args.advertise.clone().unwrap_or_else(host_name);
        output::print(&format!("listening on {quic} (QUIC) and {tcp} (TCP)\nfingerprint {fingerprint}"));
        output::print(&format!(
            "ready    latticed --relay 'lrp://{host}:{}?tcp={}&name={}#sha256={fingerprint}'",
            quic.port(),
            tcp.port(),
            name(&host),
        ));
        let mut stop = signals.stop().clone();
        stop.wait().await;
        output::warn("ending; clients are told to go elsewhere");
        relay.drain(DRAIN).await;
        Ok(ExitCode::SUCCESS)
    })
}

/// Whose tokens the control plane hands out.
fn ask(server: &ServerUrl) -> Result<Vec<String>, Failure> {
    let fail = |what: String| {
        let text = format!(
            "the server {} {what}; is latticed there new enough? --trust names the key instead",
            server.base()
        );
        Failure::new(Kind::Server, text)
    };
    let agent = server.agent(TIMEOUT)?;
    let url = format!("{}/api/v1/relay-key", server.base());
    let mut response = agent.get(url).call().map_err(|error| server.unreachable(&error))?;
    if response.status().as_u16() != 200 {
        return Err(fail(format!("answered {} to /api/v1/relay-key", response.status())));
    }
    let body = response.body_mut().with_config().limit(MAX_BODY).read_json::<RelayKeys>();
    body.map(|answer| answer.keys).map_err(|error| fail(format!("sent something else than keys: {error}")))
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "localhost".into(),
        name => name.into(),
    }
}

/// Reads `--advertise`. An IPv6 address gets the brackets that it has in URLs.
pub(crate) fn advertised(text: &str) -> Result<String, String> {
    let host = match text.parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]"),
        Err(_) => text.to_owned(),
    };
    match format!("{host}:1").parse::<HostPort>() {
        Ok(_) => Ok(host),
        Err(_) => Err("expected a DNS name or an IP address, without a port".to_owned()),
    }
}

/// The relay's name in lists: the first label of its host's.
fn name(host: &str) -> String {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let first = if host.parse::<IpAddr>().is_ok() { host } else { host.split('.').next().unwrap_or(host) };
    first.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_is_called_after_its_host() {
        assert_eq!(name("EU1.relay.example.com"), "eu1");
        assert_eq!(name("192.0.2.1"), "192-0-2-1");
        assert_eq!(name("[2001:db8::1]"), "2001-db8--1");
    }

    #[test]
    fn what_is_advertised_fits_into_the_url() {
        for (text, host) in [
            ("2001:db8::1", "[2001:db8::1]"),
            ("[2001:db8::1]", "[2001:db8::1]"),
            ("192.0.2.1", "192.0.2.1"),
            ("eu1.relay.example.com", "eu1.relay.example.com"),
        ] {
            let advertised = advertised(text).unwrap();
            assert_eq!(advertised, host);
            let url = format!(
                "lrp://{advertised}:6267?tcp=6266&name={}#sha256={}",
                name(&advertised),
                "0".repeat(64)
            );
            assert!(url.parse::<lattice_wire::RelayServer>().is_ok(), "{url}");
        }
        for text in ["", "host:6267", "a b", "[::1", "192.0.2.1:6267", "x'y"] {
            assert!(advertised(text).is_err(), "{text}");
        }
    }
}
