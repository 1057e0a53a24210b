//! The state of the view, and how keys change it.

use overlay_control::{Mesh, stats::Stats};
use overlay_insight::stats::rates;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{health, history::History};

/// The views, in the order of their tabs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tab {
    Peers,
    Health,
    Endpoints,
    Drops,
    Kernel,
    Problems,
}

impl Tab {
    pub(super) const ALL: [Self; 6] = [
        Self::Peers,
        Self::Health,
        Self::Endpoints,
        Self::Drops,
        Self::Kernel,
        Self::Problems,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Peers => "Peers",
            Self::Health => "Health",
            Self::Endpoints => "Endpoints",
            Self::Drops => "Dropped",
            Self::Kernel => "To the kernel",
            Self::Problems => "Problems",
        }
    }

    fn at(self, steps: usize) -> Self {
        let place = Self::ALL.iter().position(|tab| *tab == self).unwrap_or(0);
        Self::ALL[(place + steps) % Self::ALL.len()]
    }
}

/// The effect of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    GoOn,
    Quit,
}

/// The agent's answers at one time.
pub(crate) struct Look {
    /// Its counters.
    pub(crate) stats: Stats,
    /// How its peers are, or why that is not known.
    pub(crate) mesh: Result<Mesh, String>,
}

/// All that is shown.
pub(super) struct App {
    pub(super) now: Stats,
    /// Per second; `None` until there was a second look.
    pub(super) rates: Option<Stats>,
    pub(super) mesh: Result<Mesh, String>,
    pub(super) history: History,
    /// Why the agent does not answer.
    pub(super) silent: Option<String>,
    pub(super) tab: Tab,
    /// The column that sorts.
    pub(super) sort: usize,
    /// Rows that are above the first one that is shown.
    pub(super) above: usize,
}

impl App {
    pub(super) fn new(first: Look) -> Self {
        let mut history = History::default();
        history.follow(&first.mesh);
        Self {
            now: first.stats,
            rates: None,
            mesh: first.mesh,
            history,
            silent: None,
            tab: Tab::Peers,
            sort: 1,
            above: 0,
        }
    }

    /// Takes the next look.
    pub(super) fn take(&mut self, next: Look) {
        self.rates = Some(rates(&self.now, &next.stats));
        self.now = next.stats;
        self.history.follow(&next.mesh);
        self.mesh = next.mesh;
        self.silent = None;
    }

    /// Notes that there was no answer.
    pub(super) fn silent(&mut self, why: String) {
        self.rates = None;
        self.silent = Some(why);
    }

    pub(super) fn press(&mut self, key: KeyEvent) -> Answer {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => return Answer::Quit,
            KeyCode::Char('q') | KeyCode::Esc => return Answer::Quit,
            KeyCode::Tab | KeyCode::Right => self.turn_to(self.tab.at(1)),
            KeyCode::BackTab | KeyCode::Left => self.turn_to(self.tab.at(Tab::ALL.len() - 1)),
            KeyCode::Char('s') => {
                let (columns, _) = self.size();
                self.sort = (self.sort + 1) % columns;
                self.above = 0;
            }
            KeyCode::Down => self.above += 1,
            KeyCode::PageDown => self.above += 10,
            KeyCode::Up => self.above = self.above.saturating_sub(1),
            KeyCode::PageUp => self.above = self.above.saturating_sub(10),
            KeyCode::Home => self.above = 0,
            _ => {}
        }
        let (_, rows) = self.size();
        self.above = self.above.min(rows.saturating_sub(1));
        Answer::GoOn
    }

    fn turn_to(&mut self, tab: Tab) {
        self.tab = tab;
        self.sort = 1;
        self.above = 0;
    }

    /// Columns that can sort, and rows.
    fn size(&self) -> (usize, usize) {
        if self.tab == Tab::Health {
            let rows = self.mesh.as_ref().map_or(0, |mesh| mesh.peers.len());
            return (health::HEAD.len(), rows);
        }
        let table = self.table();
        (table.head.len(), table.rows.len())
    }
}
