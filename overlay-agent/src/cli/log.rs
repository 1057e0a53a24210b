//! The log of `run`.

use std::{
    io::{self, IsTerminal as _},
    str::FromStr as _,
};

use anyhow::{Context as _, bail};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use super::{Failure, journal, progress};

/// Logs to standard error; `OVERLAY_LOG` chooses the level.
pub(super) fn start() -> Result<(), Failure> {
    let wanted = std::env::var_os("OVERLAY_LOG").unwrap_or_default();
    let filter = filter(&wanted.to_string_lossy()).map_err(Failure::BadInput)?;
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| progress::Lines)
        .with_ansi(io::stderr().is_terminal() && !no_color)
        .with_target(false);
    if journal::is_there() {
        log.event_format(journal::Lines).init();
    } else {
        log.init();
    }
    Ok(())
}

/// What `OVERLAY_LOG` asks for. The library takes any word for the name of a module, and then logs
/// nothing of all others.
fn filter(wanted: &str) -> anyhow::Result<EnvFilter> {
    let level = |text: &str| LevelFilter::from_str(text.trim()).is_ok();
    let mut directives = wanted.split(',').filter(|directive| !directive.is_empty());
    let wrong = directives.find(|directive| match directive.rsplit_once('=') {
        Some((_, after)) => !level(after),
        None => !level(directive),
    });
    if let Some(wrong) = wrong {
        bail!(
            "read OVERLAY_LOG: invalid level {wrong:?}; use error, warn, info, debug or trace, or \
             MODULE=LEVEL"
        );
    }
    let wanted = if wanted.is_empty() { "info" } else { wanted };
    EnvFilter::try_new(wanted).with_context(|| {
        format!("read OVERLAY_LOG {wanted:?}; use error, warn, info, debug or trace")
    })
}

#[cfg(test)]
mod tests {
    use super::filter;

    #[test]
    fn a_level_that_is_none_is_refused() {
        for good in [
            "",
            "info",
            "WARN",
            "off",
            "overlay_agent=debug,warn",
            "aya=trace",
        ] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for wrong in ["nonsense", "info,verbose", "aya=loud"] {
            let error = filter(wrong).unwrap_err().to_string();
            assert!(error.contains("debug or trace"), "{wrong}: {error}");
        }
    }
}
