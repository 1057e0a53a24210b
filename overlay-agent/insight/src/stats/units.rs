//! Numbers for people.

/// A number of things, in steps of a thousand: `0`, `999`, `1.2k`, `3.4M`.
pub fn count(number: u64) -> String {
    scaled(number, 1000.0, ["", "k", "M", "G", "T", "P", "E"])
}

/// A number of bytes, in steps of 1024: `0 B`, `1.2 KiB`, `3.4 MiB`.
pub fn bytes(number: u64) -> String {
    scaled(
        number,
        1024.0,
        [" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"],
    )
}

#[expect(clippy::cast_precision_loss, reason = "three digits of it are shown")]
fn scaled(number: u64, step: f64, units: [&str; 7]) -> String {
    let [one, larger @ ..] = units;
    let mut value = number as f64;
    if value < step {
        return format!("{number}{one}");
    }
    let mut unit = one;
    for next in larger {
        // What would be shown as a thousand is one of the next.
        if value + 0.5 < step {
            break;
        }
        value /= step;
        unit = next;
    }
    let decimals = usize::from(value < 99.95);
    format!("{value:.decimals$}{unit}")
}

/// A short time in nanoseconds, with two figures behind the point, as people compare round
/// trips: `0.21 ms`.
pub fn milliseconds(ns: u64) -> String {
    let hundredths = ns.saturating_add(5_000) / 10_000;
    format!("{}.{:02} ms", hundredths / 100, hundredths % 100)
}

/// How long ago something was that was so many milliseconds ago: `14 s ago`, `3 min ago`.
pub fn ago(ms: u64) -> String {
    match ms / 1000 {
        seconds @ 0..120 => format!("{seconds} s ago"),
        seconds => format!("{} min ago", seconds / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::{ago, bytes, count, milliseconds};

    #[test]
    fn times_are_short() {
        assert_eq!(milliseconds(0), "0.00 ms");
        assert_eq!(milliseconds(214_999), "0.21 ms");
        assert_eq!(milliseconds(215_000), "0.22 ms");
        assert_eq!(milliseconds(1_999_999_999), "2000.00 ms");
        assert_eq!(ago(999), "0 s ago");
        assert_eq!(ago(119_999), "119 s ago");
        assert_eq!(ago(185_000), "3 min ago");
    }

    #[test]
    fn three_digits_or_so_are_shown() {
        for (number, shown) in [
            (0, "0"),
            (999, "999"),
            (1000, "1.0k"),
            (1234, "1.2k"),
            (99_940, "99.9k"),
            (99_960, "100k"),
            (999_400, "999k"),
            (999_600, "1.0M"),
            (u64::MAX, "18.4E"),
        ] {
            assert_eq!(count(number), shown);
        }
        for (number, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (10 << 20, "10.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(number), shown);
        }
    }
}
