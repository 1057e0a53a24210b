use overlay_core::model::{Mac, Peer, Range};

use super::*;

const INTERVAL: Duration = Duration::from_secs(1);
const DELAY: Duration = Duration::from_millis(3);

fn address(number: u8) -> IpAddr {
    IpAddr::from([10, 1, number, 1])
}

/// Node `number` of two.
fn node(number: u8, now: Instant) -> Exchange {
    let subnet = |number: u8| format!("10.1.{number}.0/24").parse().unwrap();
    let other = 3 - number;
    let vtep = IpAddr::from([192, 0, 2, other]);
    let peer = Peer {
        name: format!("n{other}").parse().unwrap(),
        vtep,
        subnets: vec![subnet(other)],
        mac: Mac::of_vtep(vtep),
        udp6_checksum: false,
        public_key: None,
        next_public_key: None,
        has_agent: true,
    };
    let network = NetworkPeers {
        name: "lab".parse().unwrap(),
        vni: vni(),
        mtu: 1450,
        ranges: vec![Range {
            cidr: "10.1.0.0/16".parse().unwrap(),
            subnet: subnet(number),
        }],
        peers: vec![peer].into(),
    };
    let identity = Identity {
        node: format!("n{number}"),
        version: "1.2.3".to_owned(),
        abi: 3,
    };
    let mut exchange = Exchange::new(identity, now);
    exchange.follow(Probe::Every(INTERVAL), vec![network], now);
    exchange
}

fn vni() -> Vni {
    Vni::try_from(7).unwrap()
}

/// One turn of the first node, over a wire that carries so much in each direction.
fn turn(one: &mut Exchange, other: &mut Exchange, now: Instant, there: usize, back: usize) {
    for question in one.questions(now) {
        assert_eq!(question.to, address(2));
        one.sent(&question, Ok(()));
        if question.datagram.len() + 28 > there {
            continue;
        }
        let answer = other.receive(vni(), address(1), &question.datagram, now + DELAY);
        let answer = answer.unwrap();
        assert!(answer.len() <= question.datagram.len());
        if answer.len() + 28 <= back {
            one.receive(vni(), address(2), &answer, now + 2 * DELAY);
        }
    }
}

#[test]
fn two_nodes_measure_each_other() {
    let mut now = Instant::now();
    // Their clocks have nothing to do with each other.
    let (mut one, mut other) = (node(1, now), node(2, now + INTERVAL * 1000));
    for _ in 0..100 {
        now += INTERVAL;
        turn(&mut one, &mut other, now, 1300, 1450);
    }
    let silence = one.silence();
    let health = one.mesh.health(0);
    assert_eq!(health.reach(now, silence), PeerState::Answers);
    assert_eq!(health.search.found(), Some(1300));
    assert_eq!(health.loss(INTERVAL).lost, 0);
    let rtt = health.rtt.unwrap();
    assert_eq!(
        (rtt.last, rtt.least, rtt.jitter),
        (2 * DELAY, 2 * DELAY, Duration::ZERO)
    );
    assert_eq!(health.identity.as_deref(), Some(other.identity()));
    assert_eq!(one.messages.answered, other.messages.answers);
    assert_eq!(
        other.mesh.health(0).identity.as_deref(),
        Some(one.identity())
    );
}

#[test]
fn who_hears_and_is_not_heard_says_so() {
    let mut now = Instant::now();
    let (mut one, mut other) = (node(1, now), node(2, now));
    for _ in 0..20 {
        now += INTERVAL;
        turn(&mut one, &mut other, now, 0, 0);
        for question in other.questions(now) {
            one.receive(vni(), address(2), &question.datagram, now);
        }
    }
    let silence = one.silence();
    assert_eq!(one.mesh.health(0).reach(now, silence), PeerState::OneWay);
    assert_eq!(other.mesh.health(0).reach(now, silence), PeerState::NoAgent);
}

#[test]
fn only_a_peer_in_its_own_network_is_answered() {
    let now = Instant::now();
    let (mut one, mut other) = (node(1, now), node(2, now));
    let question = one.questions(now).remove(0).datagram;
    let elsewhere = Vni::try_from(8).unwrap();
    assert_eq!(other.receive(vni(), address(9), &question, now), None);
    assert_eq!(other.receive(elsewhere, address(1), &question, now), None);
    assert_eq!((other.messages.strangers, other.messages.malformed), (2, 0));
    let mut foreign = question.clone();
    foreign[11] = 8;
    assert_eq!(other.receive(vni(), address(1), &foreign, now), None);
    assert_eq!(other.receive(vni(), address(1), &question[1..], now), None);
    assert_eq!(other.messages.malformed, 2);
    assert!(other.receive(vni(), address(1), &question, now).is_some());
}

#[test]
fn who_stops_asking_knows_nobody_as_silent() {
    let mut now = Instant::now();
    let (mut one, mut other) = (node(1, now), node(2, now));
    turn(&mut one, &mut other, now, 1450, 1450);
    let networks = vec![one.mesh.peer(0).0.clone()];
    one.follow(Probe::Answer, networks.clone(), now);
    now += INTERVAL * 1000;
    assert!(one.questions(now).is_empty());
    let silence = one.silence();
    assert_eq!(one.mesh.health(0).reach(now, silence), PeerState::NotAsked);
    one.follow(Probe::Every(INTERVAL), networks, now);
    turn(&mut one, &mut other, now, 0, 0);
    assert_eq!(one.mesh.health(0).reach(now, silence), PeerState::Waiting);
}
