//! What nft lists of the guard's table.

use std::hash::Hasher as _;

use super::Dropped;
use crate::objects::{Fnv, Guard};

const MADE_OF: &str = "made_of_";
const SEEN: &str = "seen_";

/// Name of the chain that notes what the table was made of.
pub(super) fn made_of(digest: u64) -> String {
    format!("{MADE_OF}{digest:016x}")
}

/// Name of the chain that notes what the table looked like.
pub(super) fn seen(look: u64) -> String {
    format!("{SEEN}{look:016x}")
}

/// Whether the table is as it was left, and what it was made of.
pub(super) fn understand(text: &str) -> Guard {
    let number = |prefix: &str| {
        let mut noted = notes(text).filter_map(|chain| chain.strip_prefix(prefix));
        let first = noted
            .next()
            .and_then(|digits| u64::from_str_radix(digits, 16).ok());
        first.filter(|_| noted.next().is_none())
    };
    match (number(MADE_OF), number(SEEN)) {
        (Some(digest), Some(seen)) if seen == look(text) => Guard::Does(digest),
        _ => Guard::Altered,
    }
}

/// The chains that are notes.
pub(super) fn notes(text: &str) -> impl Iterator<Item = &str> {
    let chains = text.lines().filter_map(chain);
    chains.filter(|name| name.starts_with(MADE_OF) || name.starts_with(SEEN))
}

fn chain(line: &str) -> Option<&str> {
    line.trim().strip_prefix("chain ")?.strip_suffix(" {")
}

/// All of the table but the note of its look. Elements have no order of their own.
pub(super) fn look(text: &str) -> u64 {
    let mut hasher = Fnv::default();
    let mut elements: Option<u64> = None;
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    while let Some(line) = lines.next() {
        if chain(line).is_some_and(|name| name.starts_with(SEEN)) {
            // It has no rules: what stands in it belongs to the look.
            if let Some(end) = lines.next().filter(|end| *end != "}") {
                hasher.write(end.as_bytes());
            }
            continue;
        }
        let start = line.strip_prefix("elements = {");
        if start.is_none() && elements.is_none() {
            hasher.write(line.as_bytes());
            continue;
        }
        let line = start.unwrap_or(line);
        let part = line.strip_suffix('}').unwrap_or(line);
        let of_line = part.split(',').map(str::trim).filter(|one| !one.is_empty());
        let of_line = of_line.fold(0, |sum: u64, one| {
            let mut hasher = Fnv::default();
            hasher.write(one.as_bytes());
            sum.wrapping_add(hasher.finish())
        });
        let sum = elements.take().unwrap_or(0).wrapping_add(of_line);
        if line.ends_with('}') {
            hasher.write_u64(sum);
        } else {
            elements = Some(sum);
        }
    }
    hasher.finish()
}

/// `counter NAME {` and, on the next line, `packets N bytes M`.
pub(super) fn counts(text: &str) -> Dropped {
    let mut counts = Dropped::new();
    let mut name = None;
    for line in text.lines().map(str::trim) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["counter", counter, "{"] => name = Some((*counter).to_owned()),
            ["packets", packets, "bytes", bytes] => {
                if let (Some(name), Ok(packets), Ok(bytes)) =
                    (name.take(), packets.parse(), bytes.parse())
                {
                    counts.insert(name, (packets, bytes));
                }
            }
            _ => {}
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::{counts, look, made_of, seen, understand};
    use crate::objects::Guard;

    fn table(elements: &str, rule: &str, notes: &str) -> String {
        format!(
            "table inet guard.overlay-n1 {{\n\tset vteps4 {{\n\t\telements = {{ {elements} }}\n\t}}\n\n\tchain input {{\n\t\t{rule}\n\t}}\n{notes}}}\n"
        )
    }

    fn note(name: &str) -> String {
        format!("\n\tchain {name} {{\n\t}}\n")
    }

    #[test]
    fn a_table_as_it_was_left_tells_what_it_was_made_of() {
        let made = note(&made_of(7));
        let look = look(&table("a . 1,\n\t\t\tb . 1", "drop", &made));
        let notes = made + &note(&seen(look));
        let found = |elements, rule| understand(&table(elements, rule, &notes));
        assert_eq!(found("a . 1,\n\t\t\tb . 1", "drop"), Guard::Does(7));
        assert_eq!(found("b . 1, a . 1", "drop"), Guard::Does(7));
        assert_eq!(found("a . 1", "drop"), Guard::Altered);
        assert_eq!(found("a . 1, b . 1, c . 1", "drop"), Guard::Altered);
        assert_eq!(found("a . 1, b . 1", "accept"), Guard::Altered);
        let nothing = table("a . 1, b . 1", "drop", "");
        assert_eq!(understand(&nothing), Guard::Altered);
    }

    #[test]
    fn counters_are_read_by_name() {
        let text = "table inet t {\n\tcounter malformed {\n\t\tpackets 2 bytes 90\n\t}\n}\n";
        assert_eq!(counts(text), [("malformed".to_owned(), (2, 90))].into());
    }
}
