use super::*;

const HOMES: Homes = Homes { port: 9 };
const KEY: WgPublicKey = WgPublicKey([1; 32]);
const RELAY: Option<Path> = Some(Path::Relay { relay: 3, peer: KEY });
const INITIATION: [u8; 148] = message(1);
const RESPONSE: [u8; 92] = message(2);
const PACKET: [u8; 96] = message(4);

const fn message<const LEN: usize>(kind: u8) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    bytes[0] = kind;
    bytes
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn by_relay(relay: RelayNumber) -> To {
    To { relay: Some(relay), direct: vec![] }
}

fn to(all: &[&str]) -> To {
    To { relay: None, direct: all.iter().map(|text| at(text)).collect() }
}

fn direct(text: &str) -> Option<Path> {
    Some(Path::to(at(text)))
}

fn peer(key: u8) -> PeerConfig {
    let endpoints = vec![at("192.0.2.1:1"), at("192.0.2.2:1"), at("192.0.2.3:0")];
    PeerConfig { public_key: WgPublicKey([key; 32]), allowed_ips: vec![], endpoints, keepalive: None }
}

fn one() -> (Peers, Instant) {
    let mut peers = Peers::new(HOMES);
    peers.follow(&[peer(1)]);
    (peers, Instant::now())
}

fn says(endpoint: SocketAddr, rx: u64, tx: u64, handshake: Option<SystemTime>) -> wg::PeerInfo {
    let mut info = wg::PeerInfo::from_public_key(wg::Key(KEY.0));
    info.config.endpoint = Some(endpoint);
    (info.stats.rx_bytes, info.stats.tx_bytes, info.stats.last_handshake_time) = (rx, tx, handshake);
    info
}

fn home(peers: &Peers) -> SocketAddr {
    peers.home(&KEY).unwrap()
}

#[test]
fn homes_are_kept_and_not_given_away_soon() {
    let (mut peers, _) = one();
    let first = home(&peers);
    assert_eq!(first, at("127.64.0.0:9"));
    peers.follow(&[peer(2), peer(1), peer(1)]);
    assert_eq!((home(&peers), peers.home(&peer(2).public_key)), (first, Some(at("127.64.0.1:9"))));
    peers.follow(&[peer(2)]);
    assert_eq!(peers.home(&KEY), None);
    peers.follow(&[peer(2), peer(1)]);
    assert_eq!(home(&peers), at("127.64.0.2:9"));
    let now = Instant::now();
    assert_eq!(peers.sent_home(0, &INITIATION, now), None, "nobody lives there any more");
    peers.next = (1 << 22) - 1;
    peers.follow(&[peer(2), peer(1), peer(3), peer(4)]);
    let slots: Vec<_> = [3, 4].map(|key| peers.home(&peer(key).public_key).unwrap()).into();
    assert_eq!(slots, [at("127.127.255.255:9"), at("127.64.0.0:9")], "they begin anew");
}

#[test]
fn a_handshake_that_begins_at_home_goes_to_all_places_and_then_by_the_path_that_is_found() {
    let (mut peers, now) = one();
    let all = to(&["192.0.2.1:1", "192.0.2.2:1"]);
    let outgoing = peers.sent_home(0, &INITIATION, now).unwrap();
    assert_eq!(outgoing, Outgoing { peer: KEY, to: all.clone(), is_wanted: true, endpoint: None });
    let one = to(&["192.0.2.1:1"]);
    assert_eq!(peers.sent_home(0, &PACKET, now).unwrap().to, one, "packets are not doubled");
    assert!(peers.is_searching() && peers.take_due(now).is_empty());
    let later = peers.poll_timeout().unwrap();
    assert_eq!(peers.take_due(later), [(KEY, all, INITIATION)]);
    assert_eq!(peers.select(&KEY, RELAY, later), Some(home(&peers)));
    assert_eq!(peers.take_due(later), [(KEY, by_relay(3), INITIATION)], "at once");
    // It was answered.
    assert_eq!(peers.came(&KEY, 3), Some(0));
    let news = peers.read(&says(home(&peers), 92, 148, Some(SystemTime::now())), later);
    assert_eq!(news.came_by, RELAY);
    assert_eq!((peers.is_searching(), peers.poll_timeout()), (false, None));
}

#[test]
fn what_came_by_a_relay_is_answered_there_until_the_peer_is_heard_elsewhere() {
    let (mut peers, now) = one();
    let everywhere = To { relay: Some(3), ..to(&["192.0.2.1:1", "192.0.2.2:1"]) };
    let answered = |peers: &mut Peers| {
        let mut to = |datagram: &[u8]| peers.sent_home(0, datagram, now).unwrap().to;
        [to(&RESPONSE), to(&PACKET), to(&INITIATION)]
    };
    // Its signal, which would have a path chosen here too, comes later than what it announces, or never.
    assert_eq!(peers.came(&KEY, 3), Some(0));
    assert_eq!(answered(&mut peers), [by_relay(3), by_relay(3), everywhere.clone()]);
    // Nor does a path hold that nobody looks after any more.
    peers.select(&KEY, direct("198.51.100.7:7"), now);
    peers.end(&KEY);
    assert_eq!(answered(&mut peers), [by_relay(3), by_relay(3), everywhere]);

    let there = "198.51.100.8:8";
    peers.read(&says(at(there), 0, 0, None), now);
    assert_eq!(answered(&mut peers)[0], by_relay(3), "it was not heard there, but told to be");
    peers.read(&says(at(there), 100, 0, None), now);
    let everywhere = to(&[there, "192.0.2.1:1", "192.0.2.2:1"]);
    assert_eq!(answered(&mut peers), [to(&[there]), to(&[there]), everywhere]);
    // Of a peer that no map says anything of, too.
    peers.follow(&[PeerConfig { endpoints: vec![], ..peer(2) }]);
    assert_eq!(peers.sent_home(1, &RESPONSE, now).unwrap().to, To::default(), "nowhere");
    assert_eq!(peers.came(&peer(2).public_key, 5), Some(1));
    assert_eq!(peers.sent_home(1, &RESPONSE, now).unwrap().to, by_relay(5));
}

#[test]
fn what_comes_home_is_sent_on_and_the_kernel_told_of_the_direct_path_again() {
    let (mut peers, mut now) = one();
    let path = direct("198.51.100.7:7");
    assert_eq!(peers.select(&KEY, path, now), Some(at("198.51.100.7:7")));
    now += SETTLING;
    assert_eq!(peers.came(&KEY, 3), Some(0));
    for again in [Some(at("198.51.100.7:7")), None] {
        let outgoing = peers.sent_home(0, &PACKET, now).unwrap();
        assert_eq!((outgoing.to, outgoing.endpoint), (to(&["198.51.100.7:7"]), again));
    }
    assert_eq!(peers.end(&KEY), Some(home(&peers)));
    let outgoing = peers.sent_home(0, &PACKET, now + SETTLING).unwrap();
    assert!(outgoing.is_wanted && outgoing.endpoint.is_none(), "it is not known to be there any more");
}

#[test]
fn where_the_kernel_followed_a_peer_to_is_set_right_unless_it_moved() {
    let (mut peers, mut now) = one();
    let (there, elsewhere, shook) = (at("198.51.100.7:7"), at("198.51.100.8:8"), Some(SystemTime::now()));
    peers.select(&KEY, direct("198.51.100.7:7"), now);
    let mut read = |peers: &mut Peers, endpoint, rx| {
        now += SETTLING;
        peers.read(&says(endpoint, rx, 0, shook), now)
    };
    let moved = read(&mut peers, elsewhere, 1000);
    assert_eq!((moved.came_by, moved.endpoint), (direct("198.51.100.8:8"), None), "it speaks from there");
    assert_eq!(read(&mut peers, elsewhere, 1000).endpoint, Some(there), "it does not any more");
    let home = home(&peers);
    assert_eq!(read(&mut peers, home, 2000).endpoint, Some(there), "that came late by a relay");
    assert_eq!(read(&mut peers, there, 3000).endpoint, None);
    peers.select(&KEY, RELAY, now);
    let just_told = peers.read(&says(there, 4000, 0, shook), now);
    assert_eq!(just_told.endpoint, None, "what was read may be older");
    now += SETTLING;
    assert_eq!(peers.read(&says(there, 5000, 0, shook), now).endpoint, Some(home));
}

#[test]
fn a_peer_of_which_nothing_is_known_goes_home_when_its_session_is_dead() {
    let (mut peers, now) = one();
    let there = at("198.51.100.7:7");
    let dead = SystemTime::now() - SESSION_LIFE - Duration::from_secs(1);
    assert_eq!(peers.read(&says(there, 1, 0, Some(SystemTime::now())), now).endpoint, None);
    assert_eq!(peers.read(&says(there, 1, 0, Some(dead)), now).endpoint, Some(home(&peers)));
    // There it is looked for first.
    let all = to(&["198.51.100.7:7", "192.0.2.1:1", "192.0.2.2:1"]);
    assert_eq!(peers.sent_home(0, &INITIATION, now).unwrap().to, all);
}

#[test]
fn packets_are_told_from_what_wireguard_says_by_itself() {
    let (mut peers, now) = one();
    let mut sent = 0;
    for (bytes, is_wanted) in [(0, false), (32, false), (92, false), (124, false), (148, true), (96, true)] {
        sent += bytes;
        assert_eq!(peers.read(&says(home(&peers), 0, sent, None), now).is_wanted, is_wanted, "{bytes}");
    }
}
