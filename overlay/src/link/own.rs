//! Where a namespace takes packets itself, asked of the kernel in as few words as it has. A node may have a hundred thousand routes
//! (BGP), and each of its pods looks whenever a link or an address of it changes.

use std::io;

use futures::StreamExt;
use ipnet::IpNet;
use rtnetlink::{
    Handle,
    packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        route::{RouteAttribute, RouteMessage, RouteType},
    },
};

use super::{LinkError, links, request::run_filtered, route::read};
use crate::Netns;

/// What a host's own routes are. An IPv6 network has no broadcast, and an IPv4 network no anycast address that is anybody's own.
const OWN: [(AddressFamily, RouteType); 4] = [
    (AddressFamily::Inet, RouteType::Local),
    (AddressFamily::Inet, RouteType::Broadcast),
    (AddressFamily::Inet6, RouteType::Local),
    (AddressFamily::Inet6, RouteType::Anycast),
];

/// Where a namespace takes packets itself, each with the name of the link: its addresses where links are up, the broadcasts of its
/// networks, the anycast addresses that it has as a router, and whatever `ip route add local` made so.
///
/// Other tables are not asked: a transparent proxy has `local default` in one, for what bears its mark. Those of VRFs are, for the
/// addresses of their links are in them.
///
/// # Errors
/// When the namespace cannot be entered.
pub fn own_routes(netns: &Netns) -> Result<Vec<(String, IpNet)>, LinkError> {
    let links = links(netns)?;
    let vrfs = links.iter().filter_map(|link| link.vrf);
    let tables: Vec<u32> = [libc::RT_TABLE_LOCAL.into()].into_iter().chain(vrfs).collect();
    let mut routes = Vec::new();
    run_filtered(netns, async |mut handle| {
        for table in tables {
            for (family, kind) in OWN {
                let found = list(&mut handle, question(family, kind, table)).await;
                routes.extend(found.map_err(|source| LinkError::Refused {
                    action: format!("list the routes of table {table}"),
                    source,
                })?);
            }
        }
        Ok(())
    })?;
    let name = |index: &u32| links.iter().find(|link| link.index == *index).map(|link| link.name.clone());
    let routes = routes.into_iter().filter_map(read);
    Ok(routes
        .map(|route| (route.links.iter().find_map(name).unwrap_or_default(), route.destination))
        .collect())
}

fn question(family: AddressFamily, kind: RouteType, table: u32) -> RouteMessage {
    let mut question = RouteMessage::default();
    question.header.address_family = family;
    question.header.kind = kind;
    question.attributes.push(RouteAttribute::Table(table));
    question
}

/// The routes that are as `question` says. rtnetlink's own listing takes an error at its end for the end.
async fn list(handle: &mut Handle, question: RouteMessage) -> io::Result<Vec<RouteMessage>> {
    let mut question = NetlinkMessage::from(RouteNetlinkMessage::GetRoute(question));
    question.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut answers = handle.request(question).map_err(|error| io::Error::other(error.to_string()))?;
    let mut found = Vec::new();
    while let Some(answer) = answers.next().await {
        let code = match answer.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => {
                found.push(route);
                continue;
            }
            NetlinkPayload::Done(end) => end.code,
            NetlinkPayload::Error(error) => error.raw_code(),
            other => return Err(io::Error::other(format!("unexpected answer {other:?}"))),
        };
        return match -code {
            0 => Ok(found),
            // No such table: a namespace without addresses has none, nor a VRF without addresses of that IP version.
            libc::ENOENT => Ok(Vec::new()),
            code => Err(io::Error::from_raw_os_error(code)),
        };
    }
    Err(io::Error::other("the kernel's answer has no end"))
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, process::Stdio};

    use rtnetlink::packet_route::route::RouteScope;

    use super::*;

    /// Runs `work` with a connection of a namespace with thousands of routes.
    fn with_thousands<T: Send>(work: impl AsyncFnOnce(Handle) -> T + Send) -> T {
        let netns = Netns::create().unwrap();
        netns
            .run(|| {
                let mut ip = std::process::Command::new("ip");
                let mut ip = ip.args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
                let mut lines = ip.stdin.take().unwrap();
                lines.write_all(b"link set lo up\n").unwrap();
                for n in 0..4000 {
                    let (high, low) = (n / 250, n % 250);
                    writeln!(lines, "route add 10.1.{high}.{low} dev lo").unwrap();
                    writeln!(lines, "route add 2001:db8:{high}:{low}::/64 dev lo table 7").unwrap();
                }
                drop(lines);
                assert!(ip.wait().unwrap().success());
            })
            .unwrap();
        run_filtered(&netns, async |handle| Ok(work(handle).await)).unwrap()
    }

    #[test]
    fn of_thousands_of_routes_the_kernel_tells_those_that_are_asked_for() {
        let told = with_thousands(async |mut handle| {
            let mut told = Vec::new();
            for (family, kind) in OWN {
                told.extend(
                    list(&mut handle, question(family, kind, libc::RT_TABLE_LOCAL.into())).await.unwrap(),
                );
            }
            told
        });
        assert!(told.iter().all(|route| route.header.table == libc::RT_TABLE_LOCAL), "{}", told.len());
        let own: Vec<String> =
            told.into_iter().filter_map(read).map(|route| route.destination.to_string()).collect();
        assert!(
            ["127.0.0.0/8", "127.0.0.1/32", "::1/128"].iter().all(|net| own.contains(&(*net).to_owned())),
            "{own:?}"
        );
    }

    #[test]
    fn a_table_that_is_not_there_is_empty_and_a_refusal_is_no_end() {
        let (none, refused) = with_thousands(async |mut handle| {
            let ask = || question(AddressFamily::Inet, RouteType::Local, 77);
            let none = list(&mut handle, ask()).await;
            let mut wrong = ask();
            wrong.header.scope = RouteScope::Link;
            (none, list(&mut handle, wrong).await)
        });
        assert_eq!(none.unwrap(), []);
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }
}
