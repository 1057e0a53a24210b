//! Numbers of things, as people write them.

/// `1 packet`, `2 packets`.
pub fn count(number: impl Into<u128>, thing: &str) -> String {
    match number.into() {
        1 => format!("1 {thing}"),
        number => format!("{number} {thing}s"),
    }
}

/// The same of things in memory.
pub fn count_of(things: usize, thing: &str) -> String {
    count(u64::try_from(things).unwrap_or(u64::MAX), thing)
}

#[cfg(test)]
mod tests {
    use super::{count, count_of};

    #[test]
    fn one_is_no_plural() {
        assert_eq!(count(1_u8, "peer"), "1 peer");
        assert_eq!(count_of(0, "peer"), "0 peers");
        assert_eq!(count_of(2, "peer"), "2 peers");
    }
}
