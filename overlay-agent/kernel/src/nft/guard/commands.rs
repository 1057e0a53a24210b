//! Commands that make what both of the guard's tables have. A table is written with its family.

use std::fmt::Write as _;

use overlay_core::model::IfName;

/// Counters for reasons, which go on from what they were.
pub(super) fn counters(
    table: &str,
    reasons: &[&str],
    counts: impl Fn(&str) -> (u64, u64),
) -> String {
    let lines = reasons.iter().map(|reason| {
        let (packets, bytes) = counts(reason);
        format!("add counter {table} {reason} {{ packets {packets} bytes {bytes} ; }}\n")
    });
    lines.collect()
}

/// A chain with its rules, at a hook with a priority or at none.
pub(super) fn chain(
    table: &str,
    name: &str,
    hook: Option<(&str, i32)>,
    rules: impl IntoIterator<Item = String>,
) -> String {
    let spec = hook.map_or_else(String::new, |(hook, priority)| {
        format!(" {{ type filter hook {hook} priority {priority} ; policy accept ; }}")
    });
    let mut text = format!("add chain {table} {name}{spec}\n");
    for rule in rules {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "add rule {table} {name} {rule}");
    }
    text
}

/// Devices, as elements of a set in a rule.
pub(super) fn devices<'a>(names: impl IntoIterator<Item = &'a IfName>) -> String {
    let names = names.into_iter().map(|name| format!("\"{name}\""));
    names.collect::<Vec<_>>().join(", ")
}
