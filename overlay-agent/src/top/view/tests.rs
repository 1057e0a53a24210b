//! Screens, as a terminal without colours would show them.

use overlay_control::{
    ClusterStatus, FastPathState, Mesh, PeerState, SCHEMA,
    stats::{EndpointCounts, Reload, Stats},
};
use overlay_core::model::Probe;
use ratatui::{
    Terminal,
    backend::TestBackend,
    buffer::{Buffer, Cell},
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};

use super::draw;
use crate::top::{
    app::{App, Look},
    samples::{mesh, peer},
};

fn look(mesh: Mesh) -> Look {
    let stats = Stats {
        schema: SCHEMA,
        time: String::new(),
        time_ms: 0,
        version: "0.1.0".to_owned(),
        abi: 4,
        instance: "n1".parse().unwrap(),
        node: "n1".parse().unwrap(),
        fastpath: FastPathState::On,
        healthy: true,
        problems: Vec::new(),
        cluster: None,
        repairs: 0,
        reload: Reload {
            successful: true,
            time: String::new(),
        },
        programs: Vec::new(),
        networks: Vec::new(),
        endpoints: Vec::new(),
        host: EndpointCounts::default(),
        former: EndpointCounts::default(),
        drops: Vec::new(),
        passes: Vec::new(),
        maps: Vec::new(),
    };
    Look {
        stats,
        mesh: Ok(mesh),
    }
}

/// The screen of a node that is in this state of its cluster.
fn screen_of(cluster: ClusterStatus) -> String {
    let mut now = look(mesh(Vec::new()));
    now.stats.cluster = Some(cluster);
    let mut terminal = Terminal::new(TestBackend::new(100, 8)).unwrap();
    terminal.draw(|frame| draw(frame, &App::new(now))).unwrap();
    text(terminal.backend().buffer())
}

/// The view of the peers' health after these looks.
fn screen(looks: Vec<Mesh>, width: u16, height: u16) -> String {
    let mut looks = looks.into_iter().map(look);
    let mut app = App::new(looks.next().unwrap());
    looks.for_each(|next| app.take(next));
    app.press(KeyEvent::new(KeyCode::Tab, KeyModifiers::NONE));
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, &app)).unwrap();
    text(terminal.backend().buffer())
}

fn text(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width);
    let lines = buffer.content.chunks(width).map(|line| {
        let line: String = line.iter().map(Cell::symbol).collect();
        line.trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_line_a_peer_is_read_without_colours() {
    use PeerState::{Answers, NoAgent, Silent};
    let one = |state, lost| {
        mesh(vec![
            peer("n2", Answers, 3, 0),
            peer("n3", state, 12, lost),
            peer("flannel", NoAgent, 0, 100),
        ])
    };
    let looks = vec![
        one(Answers, 0),
        one(Answers, 0),
        one(Answers, 1),
        one(Silent, 4),
    ];
    let shown = screen(looks, 80, 24);
    assert!(shown.contains(" Health 1 lost "), "{shown}");
    let expected = "\
asked every 1s:  answers 1  no agent 1  silent 1
PEER        STATE               RTT    JITTER  LOSS   MTU LAST ROUND TRIPS
lab n3      -x- silent            -         -   4 %     - ▅▅xx
            it answered 14 s ago
lab n2      <-> answers     3.00 ms   0.30 ms   0 %  1450 ▅▅▅▅
lab flannel --- no agent          -         - 100 %     -";
    assert!(shown.contains(expected), "{shown}\nand not\n{expected}");
}

#[test]
fn a_small_terminal_shows_the_beginning() {
    let peers = (2..40).map(|number| peer(&format!("n{number}"), PeerState::Answers, 3, 0));
    let shown = screen(vec![mesh(peers.collect())], 50, 12);
    assert!(
        shown.contains("lab n10  <-> answers     3.00 ms"),
        "{shown}"
    );
    assert_eq!(shown.lines().count(), 12);
    assert!(shown.contains("q quit"), "{shown}");
}

#[test]
fn without_probes_it_is_said_how_to_have_them() {
    for (mode, said) in [("off", "Probes are off"), ("answer", "This node answers")] {
        let mut mesh = mesh(Vec::new());
        mesh.probe.mode = mode.parse::<Probe>().unwrap();
        mesh.probe.interval_ms = None;
        let shown = screen(vec![mesh], 80, 24);
        assert!(shown.contains(said), "{shown}");
        assert!(shown.contains("probe = \"5s\" in [node]"), "{shown}");
        assert!(!shown.contains("STATE"), "{shown}");
    }
}

#[test]
fn the_head_says_whether_the_clusters_store_is_followed() {
    let of = |connected, contact_age_ms| ClusterStatus {
        network: "lab".parse().unwrap(),
        connected,
        endpoint: None,
        subnet: None,
        nodes: 7,
        doubtful: 0,
        encrypted: false,
        with_key: 0,
        without_key: Vec::new(),
        revision: 41,
        connections: 1,
        contact_age_ms,
    };
    for (cluster, said) in [
        (of(true, Some(0)), "cluster followed, 7 other nodes"),
        (of(false, Some(14_000)), "cluster away, heard 14 s ago"),
        (of(false, None), "cluster not reached yet"),
    ] {
        let shown = screen_of(cluster);
        assert!(shown.contains(said), "{shown}");
    }
}
