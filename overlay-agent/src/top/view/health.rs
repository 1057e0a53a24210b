//! The mesh: this node's side of it, a line for each peer.
//!
//! ```text
//! asked every 1s:  answers 2  silent 1
//! PEER     STATE               RTT    JITTER  LOSS   MTU LAST ROUND TRIPS
//! lab n4   -x- silent            -         -  40 %     - ▅▅▅▅▅xxxxxxxxxxxx
//!          it answered 14 s ago
//! lab n2   <-> answers     0.21 ms   0.03 ms   0 %  1450 ▅▄▅▅█▅▄▅▅▄▅▅▄▅▅▅▅
//! ```

use overlay_control::{Mesh, MeshPeer};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style, Stylize as _},
    text::{Line, Span, Text},
    widgets::{Paragraph, Wrap},
};

use super::head_style;
use crate::top::{
    app::App,
    health::{self, HEAD, Tone},
    history::LOST,
};

/// Columns in characters: state, round trip, jitter, loss, MTU. Names have what they need, and
/// round trips over time what is left.
const WIDTHS: [usize; 5] = [13, 10, 10, 6, 6];
const NAMES: std::ops::RangeInclusive<usize> = 8..=24;
const OVER_TIME: &str = "LAST ROUND TRIPS";

pub(super) fn draw(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let mesh = match &app.mesh {
        Ok(mesh) => mesh,
        Err(why) => {
            let text = format!("The peers' health is not known: {why}");
            frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), area);
            return;
        }
    };
    let summary = Paragraph::new(health::summary(mesh)).wrap(Wrap { trim: true });
    let above = u16::from(mesh.probe.interval_ms.is_none()) * 2 + 1;
    let [top, body] = Layout::vertical([Constraint::Length(above), Constraint::Min(0)]).areas(area);
    frame.render_widget(summary, top);
    if !mesh.peers.is_empty() {
        frame.render_widget(Text::from(lines(mesh, app, body)), body);
    }
}

fn lines(mesh: &Mesh, app: &App, area: Rect) -> Vec<Line<'static>> {
    let peers = health::sorted(mesh, app.sort);
    let longest = peers.iter().map(|peer| health::name(peer).chars().count());
    let longest = longest.max().unwrap_or(0);
    let columns = Columns {
        name: longest.clamp(*NAMES.start(), *NAMES.end()),
        all: usize::from(area.width),
    };
    let shown = peers.into_iter().skip(app.above);
    let rows = shown.flat_map(|peer| columns.peer(app, peer));
    let head = std::iter::once(columns.head(app));
    head.chain(rows).take(usize::from(area.height)).collect()
}

/// How wide columns are.
struct Columns {
    name: usize,
    all: usize,
}

impl Columns {
    fn over_time(&self) -> usize {
        let others: usize = WIDTHS.iter().sum();
        self.all.saturating_sub(self.name + 1 + others + 1)
    }

    fn head(&self, app: &App) -> Line<'static> {
        let [name, state, figures @ ..] = HEAD;
        let mut spans = vec![
            Span::styled(self.named(name), head_style(app, 0)),
            Span::from(" "),
            Span::styled(state, head_style(app, 1)),
            Span::from(" ".repeat(WIDTHS[0] - state.len())),
        ];
        for ((column, text), width) in (2..).zip(figures).zip(&WIDTHS[1..]) {
            spans.push(Span::from(" ".repeat(width - text.len())));
            spans.push(Span::styled(text, head_style(app, column)));
        }
        spans.push(Span::from(" "));
        let over_time: String = OVER_TIME.chars().take(self.over_time()).collect();
        spans.push(Span::from(over_time).add_modifier(Modifier::BOLD));
        Line::from(spans)
    }

    fn peer(&self, app: &App, peer: &MeshPeer) -> Vec<Line<'static>> {
        let tone = Tone::of(peer);
        let state = peer.health.state;
        let state = format!("{} {}", state.arrow(), state.words());
        let mut spans = vec![
            Span::from(self.named(&health::name(peer))),
            Span::from(" "),
            Span::styled(format!("{state:width$}", width = WIDTHS[0]), style(tone)),
        ];
        let figures = health::figures(&peer.health).into_iter();
        spans.extend(
            figures
                .zip(&WIDTHS[1..])
                .map(|(figure, width)| Span::from(format!("{figure:>width$}"))),
        );
        spans.push(Span::from(" "));
        let bars = app.history.bars(peer, self.over_time());
        spans.extend(bars.split_inclusive(LOST).flat_map(|part| {
            let (bars, lost) = match part.strip_suffix(LOST) {
                Some(bars) => (bars, LOST.to_string()),
                None => (part, String::new()),
            };
            [Span::from(bars.to_owned()), Span::from(lost).fg(Color::Red)]
        }));
        let remarks = health::remarks(peer).into_iter();
        let indent = " ".repeat(self.name + 1);
        let remarks = remarks.map(|text| Line::styled(format!("{indent}{text}"), style(tone)));
        std::iter::once(Line::from(spans)).chain(remarks).collect()
    }

    /// A name as wide as its column.
    fn named(&self, name: &str) -> String {
        let name: String = name.chars().take(self.name).collect();
        format!("{name:width$}", width = self.name)
    }
}

fn style(tone: Tone) -> Style {
    match tone {
        Tone::Good => Style::new().fg(Color::Green),
        Tone::Doubtful => Style::new().fg(Color::Yellow),
        Tone::Bad => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
        Tone::Unknown => Style::new(),
    }
}
