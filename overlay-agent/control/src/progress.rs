//! Progress of long work, for those who wait for it.

use std::{fmt, future::Future, pin::pin};

use serde::{Deserialize, Serialize};
use tokio::{sync::watch, task::yield_now};

/// The current work of a daemon, or of a command that works without one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activity {
    /// Nothing that takes long.
    #[default]
    Waiting,
    /// It reads the configuration.
    Reading,
    /// It looks at the node.
    Looking,
    /// It carries out a plan.
    Applying {
        /// Steps that it is done with,
        done: usize,
        /// of so many.
        of: usize,
        /// The next of them.
        step: String,
    },
}

impl fmt::Display for Activity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting => f.write_str("one moment"),
            Self::Reading => f.write_str("reading the configuration"),
            Self::Looking => f.write_str("looking at the node"),
            Self::Applying { done, of, step } => write!(f, "{done} of {of} steps: {step}"),
        }
    }
}

/// Where whoever works tells what it does, and others listen; nobody has to.
#[derive(Clone, Debug, Default)]
pub struct Progress(watch::Sender<Activity>);

impl Progress {
    /// Tells what is done next, and leaves those who listen the time to hear it: the work itself
    /// may not.
    pub async fn tell(&self, activity: Activity) {
        self.0.send_replace(activity);
        yield_now().await;
    }

    /// A receiver of all activities from now on.
    pub fn listen(&self) -> watch::Receiver<Activity> {
        self.0.subscribe()
    }

    /// Does work, and passes on what it tells.
    pub async fn followed<T>(
        &self,
        mut pass_on: impl FnMut(&Activity),
        work: impl Future<Output = T>,
    ) -> T {
        let mut told = self.listen();
        let mut work = pin!(work);
        loop {
            tokio::select! {
                // What was told is passed on before there is more of it.
                biased;
                Ok(()) = told.changed() => pass_on(&told.borrow_and_update()),
                done = &mut work => return done,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_told_is_heard_before_work_goes_on() {
        let progress = Progress::default();
        let mut heard = Vec::new();
        let work = async {
            progress.tell(Activity::Reading).await;
            progress.tell(Activity::Looking).await;
            7
        };
        let done = progress.followed(|told| heard.push(told.clone()), work);
        assert_eq!(done.await, 7);
        assert_eq!(heard, [Activity::Reading, Activity::Looking]);
    }
}
