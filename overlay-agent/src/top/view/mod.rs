//! How it is drawn: usable in 80 columns and 24 rows, and in fewer.

mod health;
#[cfg(test)]
mod tests;

use overlay_control::{ClusterStatus, FastPathState};
use overlay_core::plural::count_of;
use overlay_insight::stats::{ago, bytes, count};
use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Layout, Rect},
    style::{Color, Modifier, Style, Stylize as _},
    text::{Line, Span, Text},
    widgets::{Cell, Paragraph, Row, Table, Tabs, Wrap},
};

use super::{
    app::{App, Tab},
    health::lost,
};

pub(super) fn draw(frame: &mut Frame<'_>, app: &App) {
    let [head, tabs, body, keys] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(summary(app), head);
    let selected = Tab::ALL.iter().position(|tab| *tab == app.tab);
    let line = Tabs::new(Tab::ALL.map(|tab| title(app, tab)))
        .select(selected)
        .highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .divider(" ");
    frame.render_widget(line, tabs);
    match app.tab {
        Tab::Health => health::draw(frame, app, body),
        Tab::Problems => problems(frame, app, body),
        _ => table(frame, app, body),
    }
    let keys_line = "q quit   Tab/arrows other view   up/down scroll   s sort by another column";
    frame.render_widget(Line::from(keys_line).dim(), keys);
}

/// A view's name, and what is wrong there.
fn title(app: &App, tab: Tab) -> Line<'static> {
    let name = tab.name();
    let lost = app.mesh.as_ref().map_or(0, lost);
    match tab {
        Tab::Problems => Line::from(format!("{name} {}", app.now.problems.len())),
        Tab::Health if lost > 0 => Line::from(format!("{name} {lost} lost").fg(Color::Red)),
        _ => Line::from(name),
    }
}

/// The node, its health, and its total traffic.
fn summary(app: &App) -> Text<'static> {
    let now = &app.now;
    let health = match (&app.silent, now.healthy) {
        (Some(_), _) => Span::from("no answer").fg(Color::Red),
        (None, true) => Span::from("healthy").fg(Color::Green),
        (None, false) => Span::from("degraded").fg(Color::Red),
    };
    let fastpath = match now.fastpath {
        FastPathState::On => Span::from("on"),
        FastPathState::Off => Span::from("off").fg(Color::Yellow),
        FastPathState::Unavailable => Span::from("unavailable").fg(Color::Red),
    };
    let mut first = vec![
        Span::from(format!("overlay {}  node {}  ", now.version, now.node)),
        health,
        Span::from("  fast path "),
        fastpath,
    ];
    first.extend(now.cluster.iter().flat_map(cluster));
    let first = Line::from(first);
    let second = match (&app.silent, &app.rates) {
        (Some(why), _) => Line::from(why.clone()),
        (None, None) => Line::from("totals; rates per second from the next look on"),
        (None, Some(rates)) => {
            let (mut sent, mut received, mut dropped) = (0, 0, 0);
            for network in &rates.networks {
                sent += network.total.tx.bytes;
                received += network.total.rx.bytes;
            }
            for drops in &rates.drops {
                dropped += drops.count.packets;
            }
            let (sent, received) = (bytes(sent), bytes(received));
            let dropped = count(dropped);
            Line::from(format!(
                "per second: sent {sent}  received {received}  dropped {dropped} packets"
            ))
        }
    };
    Text::from(vec![first, second])
}

/// Whether the cluster's store is followed, and since when it is not.
fn cluster(cluster: &ClusterStatus) -> [Span<'static>; 2] {
    let nodes = count_of(cluster.nodes, "other node");
    let text = match (cluster.connected, cluster.contact_age_ms) {
        (true, _) => Span::from(format!("followed, {nodes}")).fg(Color::Green),
        (false, Some(ms)) => Span::from(format!("away, heard {}", ago(ms))).fg(Color::Red),
        (false, None) => Span::from("not reached yet").fg(Color::Red),
    };
    [Span::from("  cluster "), text]
}

/// Sentences: each may need several lines.
fn problems(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let rows = app.table().rows;
    let lines: Vec<Line<'_>> = if rows.is_empty() {
        vec![Line::from("none")]
    } else {
        let rows = rows.into_iter().skip(app.above);
        rows.flat_map(|row| row.cells.into_iter().map(Line::from))
            .collect()
    };
    let text = Paragraph::new(lines).wrap(Wrap { trim: true });
    frame.render_widget(text, area);
}

fn table(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let table = app.table();
    let widths = table.widths.iter().map(|width| match width {
        0 => Constraint::Min(12),
        width => Constraint::Length(*width),
    });
    let head = table
        .head
        .iter()
        .enumerate()
        .map(|(column, name)| cell(column, (*name).to_owned()).style(head_style(app, column)));
    let head = Row::new(head.collect::<Vec<_>>());
    let shown = table.rows.iter().skip(app.above).map(|row| {
        let cells = row.cells.iter().enumerate();
        Row::new(cells.map(|(column, text)| cell(column, text.clone())))
    });
    let widget = Table::new(shown, widths).header(head).column_spacing(1);
    frame.render_widget(widget, area);
}

/// The column that sorts is underlined.
fn head_style(app: &App, column: usize) -> Style {
    let style = Style::new().add_modifier(Modifier::BOLD);
    if column == app.sort {
        style.add_modifier(Modifier::UNDERLINED)
    } else {
        style
    }
}

/// Names to the left, numbers to the right.
fn cell(column: usize, text: String) -> Cell<'static> {
    let alignment = if column == 0 {
        Alignment::Left
    } else {
        Alignment::Right
    };
    Cell::from(Text::from(text).alignment(alignment))
}
