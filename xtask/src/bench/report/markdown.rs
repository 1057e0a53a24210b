//! Tables in Markdown: for a terminal, and for a document.

use std::fmt::Write as _;

use crate::bench::goals::Goal;

/// A row of numbers: its title, the digits of each, and the number of one of the figures.
pub(crate) type Numbers<'t, F> = (&'t str, usize, fn(&F) -> Option<f64>);

/// A table with a column for each of several figures.
pub(crate) struct Table<'f, F> {
    figures: &'f [F],
    text: String,
}

impl<'f, F> Table<'f, F> {
    /// With a head: what the columns differ in, and its values.
    pub(crate) fn new(what: &str, figures: &'f [F], value: impl Fn(&F) -> String) -> Self {
        let text = String::new();
        let mut table = Self { figures, text };
        table.row(what, value);
        table.row("---", |_| "---".to_owned());
        table
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, title: &str, value: impl Fn(&F) -> String) {
        let cells: Vec<String> = self.figures.iter().map(value).collect();
        self.line(&format!("| {title} | {} |", cells.join(" | ")));
    }

    /// Adds rows of numbers; a cell without one stays empty.
    pub(crate) fn numbers(&mut self, rows: &[Numbers<'_, F>]) {
        for &(title, digits, value) in rows {
            self.row(title, |figures| {
                value(figures).map_or_else(String::new, |value| format!("{value:.digits$}"))
            });
        }
    }

    /// The table, and the goals below.
    pub(crate) fn with_goals(mut self, goals: &[Goal]) -> String {
        self.line("");
        for goal in goals {
            let met = match goal.met {
                Some(true) => "met",
                Some(false) => "not met",
                None => "",
            };
            let (what, bound, value) = (&goal.text, goal.bound_text(), goal.value_text());
            self.line(&format!("| {what} {bound} | {value} | {met} |"));
        }
        self.text
    }

    fn line(&mut self, line: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{line}");
    }
}
