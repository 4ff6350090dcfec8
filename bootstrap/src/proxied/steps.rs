//! The steps of pod mode that no other sandbox has.

use std::{
    net::{IpAddr, SocketAddr},
    pin::pin,
    rc::Rc,
    sync::Arc,
};

use lattice_dns::{Asker, Resolver};
use lattice_netstack::Limits;
use lattice_overlay::{
    Device,
    stack::{Network, StackConfig, create_stack},
};
use lattice_policy::Overlay;
use lattice_proxy::{BindError, Config, Counters, Forward, Proxy};
use lattice_wire::PeerName;
use tokio::sync::{mpsc, oneshot};

use super::{
    forwards,
    outbound::Ways,
    outside::Outside,
    record::Record,
    tasks::{Running, Tasks, Work},
};
use crate::{
    Failure, Kind, Steps,
    base::Base,
    control::ProxyReport,
    failure::{chain, kernel},
    gate::PolicyGate,
    generations::Generations,
    policed::Policed,
    resolver,
    steps::{Undo, drops},
};

/// What the proxy needs of the steps before it.
pub(super) struct Behind<'a> {
    pub(super) names: Asker,
    pub(super) policed: &'a Policed,
    /// The sandbox's addresses.
    pub(super) own: [IpAddr; 2],
    pub(super) overlay: Overlay,
}

/// The way to the counters of a running proxy.
#[derive(Clone)]
pub(super) struct Counted(mpsc::Sender<oneshot::Sender<Counters>>);

/// Makes the device and its stack, on a thread that runs what `serve` takes on.
pub(super) fn device(
    steps: &mut Steps<'_>,
    base: &Base,
    name: &PeerName,
    mtu: u16,
    serve: Work,
) -> Result<Arc<dyn Device>, Failure> {
    let paths = base.paths()?;
    steps.run("device", || {
        let config = StackConfig {
            name: name.to_string(),
            private_key: base.private_key().clone(),
            listen_port: base.listen_port(),
            mtu,
            underlay: base.underlay.clone(),
            addresses: base.own().to_vec(),
            paths: Some(paths),
            limits: Limits::default(),
        };
        let device: Arc<dyn Device> =
            create_stack(config, serve).map_err(|error| Failure::new(Kind::Kernel, chain(&error)))?.into();
        let detail = format!("{} in this process, udp {}", base.map().address, device.listen_port());
        Ok((device.clone(), drops(device), detail))
    })
}

/// Starts the resolver, which only this process asks.
pub(super) fn resolver(
    steps: &mut Steps<'_>,
    base: &Base,
    policed: &Policed,
) -> Result<Arc<Resolver>, Failure> {
    steps.run("resolver", || {
        let (live, teller) = (policed.live.clone(), policed.teller.clone());
        let gate = PolicyGate { live, teller, search: Vec::new() };
        let resolver = resolver::start(None, &base.underlay, None, base.names.clone(), gate)
            .map(Arc::new)
            .map_err(|error| kernel("cannot start the sandbox's resolver", &error))?;
        Ok((resolver.clone(), drops(resolver), "<peer>.lattice and what rules name".into()))
    })
}

/// Opens the forwarded ports, if there are any. Before the proxy, whose associations take whatever port is free.
pub(super) fn forwards(
    steps: &mut Steps<'_>,
    tasks: &Tasks,
    forwards: Vec<Forward>,
    rules: &Generations,
) -> Result<(), Failure> {
    if forwards.is_empty() {
        return Ok(());
    }
    steps.run("forwards", || {
        let detail = forwards.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let start = |forward: Forward| {
            let rules = rules.clone();
            let serve = move |network| forwards::serve(forward, network, rules);
            tasks.start(&format!("the port forward {forward}"), serve).map(|((), running)| running)
        };
        let running = forwards.into_iter().map(start).collect::<Result<Vec<Running>, _>>()?;
        let undo = move || running.into_iter().map(Running::undo).try_for_each(|undo: Undo| undo());
        Ok(((), Box::new(undo) as _, detail))
    })
}

/// Starts the proxy. The result is where it listens, and the way to its counters.
pub(super) fn proxy(
    steps: &mut Steps<'_>,
    tasks: &Tasks,
    config: Config,
    behind: Behind<'_>,
) -> Result<(SocketAddr, Counted), Failure> {
    let Behind { names, policed, own, overlay } = behind;
    let (rules, teller) = (policed.generations.clone(), policed.teller.clone());
    let (ask, asked) = mpsc::channel(1);
    steps.run("proxy", || {
        let serve = move |network: Network| {
            let record = Record::new("proxy", teller, rules.clone(), own);
            let outside = Rc::new(Outside::new(network.clone(), record));
            serve(config, Ways { network, names, outside, overlay, rules }, asked)
        };
        let (address, running) = tasks.start("the proxy", serve)?;
        Ok(((address, Counted(ask)), running.undo(), format!("socks5 and http on {address}")))
    })
}

async fn serve(
    config: Config,
    ways: Ways,
    mut asked: mpsc::Receiver<oneshot::Sender<Counters>>,
) -> Result<(SocketAddr, impl Future<Output = ()>), Failure> {
    let proxy = Proxy::bind(config, ways).await.map_err(|error| unbound(&error))?;
    let address = proxy.address();
    let run = async move {
        let mut run = pin!(proxy.run());
        loop {
            tokio::select! {
                () = &mut run => return,
                Some(reply) = asked.recv() => drop(reply.send(proxy.counters())),
            }
        }
    };
    Ok((address, run))
}

fn unbound(error: &BindError) -> Failure {
    let kind = match error.kind() {
        std::io::ErrorKind::AddrInUse => Kind::Taken,
        std::io::ErrorKind::PermissionDenied => Kind::Privilege,
        _ => Kind::Usage,
    };
    Failure::new(kind, error)
}

impl Counted {
    /// The counters as they are now. Blocks until the device's thread answers.
    pub(super) fn ask(&self) -> Result<ProxyReport, Failure> {
        let gone = || Failure::new(Kind::Internal, "the proxy has ended");
        let (reply, counters) = oneshot::channel();
        self.0.blocking_send(reply).map_err(|_| gone())?;
        counters.blocking_recv().map_err(|_| gone())
    }
}
