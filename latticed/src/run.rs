//! Puts the parts together, in the order in which they need each other, and takes them down in the reverse one.

use std::{env, fs, net::SocketAddr, process, sync::Arc};

use lattice_wire::message::TlsTrust;
use serde_json::json;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tracing::{info, warn};

use crate::{
    admin_token,
    app::{App, Replays, now},
    args::{Args, Command, TlsMode},
    backup,
    data_dir::DataDir,
    failure::Failure,
    http::{self, Api, NatsLocation},
    keys::Keys,
    maps::{self, Maps},
    metrics::Metrics,
    nats::{self, Files, Issuer, NatsServer, NatsUrl, Revoked, Revoker, Setup, Trust},
    presence::{self, Presence},
    reach::Servers,
    reconcile, revocation, service,
    store::{Database, Store, owner::Owner},
    tls::{self, Authority, Certificates, Https, Source},
};

/// Where tools and tests find a running latticed: `{"http","nats_url","pid"}`.
pub const RECORD: &str = "latticed.json";
pub const DATABASE: &str = "lattice.db";

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start.
pub async fn run(args: Args) -> Result<(), Failure> {
    let stop = stop_signal()?;
    let servers = Servers::new(&args.stun, &args.relay)?;
    let dir = Arc::new(DataDir::open(&args.data_dir)?);
    dir.remove(RECORD);
    let issuer = Issuer::new(Keys::load(&dir)?).map_err(nats::NatsError::from)?;
    let authority = Arc::new(Authority::load(&dir, now())?);
    let https = https(&args, &authority)?.map(Arc::new);
    let listener = TcpListener::bind(args.listen)
        .await
        .map_err(|source| Failure::Listen { address: args.listen, source })?;
    let http_address = listener
        .local_addr()
        .map_err(|source| Failure::System { action: "read the address of a socket", source })?;
    let database = database(&args, &dir)?;
    let store = Store::open(&database, args.pool, args.address_quarantine.into()).await?;
    store.claim(&owner(&issuer, &authority)).await?;
    if let Some(path) = admin_token::first(&dir, &store, now()).await? {
        eprintln!("latticed: one-time admin token written to {}", path.display());
    }

    let revoked = Revoked::new(store.revoked_users(now()).await?);
    let trust = issuer.trust(&revoked, now()).map_err(nats::NatsError::from)?;
    let Nats { server, url: nats_url, location, tls, files } =
        start_nats(&args, &dir, &authority, &trust).await?;
    let client = nats::connect(&issuer, &nats_url, tls.as_ref(), &files.config(), now()).await?;
    let revoker = Revoker::connect(&issuer, &nats_url, tls.as_ref(), files, (revoked, trust), now()).await?;
    let app = Arc::new(App {
        store,
        issuer,
        nats: client,
        revoker,
        maps: Maps::default(),
        presence: Presence::default(),
        servers,
        replays: Replays::default(),
        metrics: Metrics::default(),
    });

    let mut tasks = service::start(Arc::clone(&app)).await?;
    background(&mut tasks, &app, args.keep_removed);
    let certificates = Certificates {
        authority: Arc::clone(&authority),
        https: https.clone(),
        nats: server.as_ref().map(|server| (server.files().clone(), server.reload())),
    };
    tasks.spawn(async move { certificates.keep().await });
    let scheme = if https.is_some() { "https" } else { "http" };
    let record = json!({
        "http": format!("{scheme}://{}", nats::local(http_address)),
        "nats_url": nats_url.to_string(),
        "pid": process::id(),
    });
    dir.write(RECORD, record.to_string().as_bytes())?;
    if https.is_none() && !http_address.ip().is_loopback() {
        warn!(
            "HTTP without TLS listens on {http_address}: tokens can be read on the way; give --tls self-signed, or --tls-cert and --tls-key"
        );
    }
    let pinned = (https.is_some() && args.tls_cert.is_none()).then(|| authority.fingerprint());
    announce((scheme, http_address, pinned), server.as_ref(), &nats_url);

    let ca = authority.pem().to_owned();
    let api = Arc::new(Api::new(Arc::clone(&app), location, tls, ca));
    http::serve(listener, https, http::router(api), stop).await;

    info!("ending");
    dir.remove(RECORD);
    tasks.shutdown().await;
    presence::run_once(&app, i64::MIN).await;
    let _ = app.nats.drain().await;
    if let Some(server) = server {
        server.stop().await;
    }
    app.store.close().await;
    Ok(())
}

/// Carries out a command beside the latticed that may be running, and ends.
///
/// # Errors
/// When it cannot be carried out.
pub async fn command(args: Args, command: Command) -> Result<(), Failure> {
    // Nobody may be running whom it takes the database from.
    let dir = match command {
        Command::Adopt => DataDir::open(&args.data_dir)?,
        _ => DataDir::beside(&args.data_dir)?,
    };
    if matches!(command, Command::RelayKey) {
        println!("{}", Keys::relay(&dir)?);
        return Ok(());
    }
    let store = Store::open(&database(&args, &dir)?, args.pool, args.address_quarantine.into()).await?;
    match command {
        Command::AdminToken => {
            let path = admin_token::make(&dir, &store, now()).await?;
            println!("{}", path.display());
        }
        Command::Backup { to } => {
            if !backup::make(&dir, &store, &to).await? {
                eprintln!("latticed: these are the keys only: copy the database with pg_dump");
            }
            println!("{}", to.display());
        }
        Command::RelayKey => {}
        Command::Adopt => {
            let issuer = Issuer::new(Keys::load(&dir)?).map_err(nats::NatsError::from)?;
            store.adopt(&owner(&issuer, &Authority::load(&dir, now())?)).await?;
        }
    }
    store.close().await;
    Ok(())
}

fn owner(issuer: &Issuer, authority: &Authority) -> Owner {
    let [operator, system_account, account, relay] = issuer.keys();
    Owner { operator, system_account, account, authority: authority.fingerprint().to_owned(), relay }
}

fn database(args: &Args, dir: &DataDir) -> Result<Database, Failure> {
    if let Some(path) = &args.database_url_file {
        let url =
            fs::read_to_string(path).map_err(|source| Failure::DatabaseUrl { path: path.clone(), source })?;
        return Ok(Database::Postgres(url.into()));
    }
    let Some(url) = &args.database_url else { return Ok(Database::Sqlite(dir.join(DATABASE))) };
    if url.has_password() && env::args_os().any(|arg| arg.as_encoded_bytes().starts_with(b"--database-url")) {
        warn!(
            "the password in --database-url is visible to every user of this host: use --database-url-file"
        );
    }
    Ok(Database::Postgres(url.clone()))
}

/// The NATS server to use, ours or not.
struct Nats {
    server: Option<NatsServer>,
    url: NatsUrl,
    location: NatsLocation,
    tls: Option<TlsTrust>,
    files: Files,
}

async fn start_nats(
    args: &Args,
    dir: &Arc<DataDir>,
    authority: &Authority,
    trust: &Trust,
) -> Result<Nats, Failure> {
    let advertised = args.advertise_nats_url.as_ref().map(|url| NatsLocation::Url(url.to_string()));
    if let Some(url) = &args.nats_url {
        let ca = args.nats_ca.as_deref().map(tls::read).transpose()?;
        let tls = ca.map(|ca| TlsTrust { ca, name: None });
        let location = advertised.unwrap_or_else(|| NatsLocation::Url(url.to_string()));
        let files = Files::external(Arc::clone(dir));
        files.write(trust)?;
        return Ok(Nats { server: None, url: url.clone(), location, tls, files });
    }
    let program = match &args.nats_server {
        Some(program) => program.clone(),
        None => nats::find()?,
    };
    let setup = Setup { program, listen: args.nats_listen };
    let server = NatsServer::start(setup, dir, authority, trust, now()).await?;
    let address = nats::local(server.address());
    let url = NatsUrl::of(address).map_err(nats::NatsError::from)?;
    let location = advertised.unwrap_or(NatsLocation::SameHost(address.port()));
    let files = server.files().clone();
    Ok(Nats { server: Some(server), url, location, tls: Some(authority.nats_trust()), files })
}

fn https(args: &Args, authority: &Authority) -> Result<Option<Https>, Failure> {
    let source = match (&args.tls_cert, &args.tls_key, args.tls) {
        (Some(certificate), Some(key), _) => {
            Source::Files { certificate: certificate.clone(), key: key.clone() }
        }
        (_, _, TlsMode::SelfSigned) => Source::SelfSigned(tls::host_names(&args.tls_san)),
        _ => return Ok(None),
    };
    Ok(Some(Https::new(source, authority, now())?))
}

fn background(tasks: &mut JoinSet<()>, app: &Arc<App>, keep_removed: u16) {
    let of_maps = Arc::clone(app);
    tasks.spawn(async move { maps::push(&of_maps).await });
    let of_reconciler = Arc::clone(app);
    tasks.spawn(async move { reconcile::run(&of_reconciler, i64::from(keep_removed) * 86_400).await });
    let of_revocation = Arc::clone(app);
    tasks.spawn(async move { revocation::keep(&of_revocation).await });
    let of_presence = Arc::clone(app);
    tasks.spawn(async move { presence::reconcile(&of_presence).await });
}

/// Not through the log: whoever starts latticed with port 0 needs these lines whatever the filter.
fn announce(
    (scheme, http, pinned): (&str, SocketAddr, Option<&str>),
    server: Option<&NatsServer>,
    url: &NatsUrl,
) {
    let pin = pinned.map(|fingerprint| format!("#sha256:{fingerprint}")).unwrap_or_default();
    eprintln!("latticed: HTTP listens on {scheme}://{http}{pin}");
    match server {
        Some(server) => eprintln!("latticed: NATS listens on {}", server.address()),
        None => eprintln!("latticed: NATS is at {url}"),
    }
}

/// Ready when latticed should end. The handlers are in place when this returns.
fn stop_signal() -> Result<impl Future<Output = ()>, Failure> {
    let handler = |kind| signal(kind).map_err(|source| Failure::System { action: "handle signals", source });
    let (mut terminate, mut interrupt) =
        (handler(SignalKind::terminate())?, handler(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
