//! The network's file is written behind: a disk may take its time, and peers do not wait for it.

use std::{io, path::PathBuf, thread};

use tokio::sync::oneshot;

use crate::daemon::files::replace_told;

/// A file that is being written.
pub(super) struct Behind {
    thread: thread::JoinHandle<io::Result<()>>,
    done: oneshot::Receiver<()>,
}

impl Behind {
    pub(super) fn start(file: PathBuf, text: String) -> io::Result<Self> {
        let (tell, done) = oneshot::channel();
        let write = move || {
            let written = replace_told(&file, &text);
            // Who does not listen any more joins the thread.
            let _ = tell.send(());
            written
        };
        let thread = thread::Builder::new().name("cluster-file".to_owned());
        let thread = thread.spawn(write)?;
        Ok(Self { thread, done })
    }

    /// Waits until it is written, or cannot be; then it has to be [finished](Self::finish).
    pub(super) async fn done(&mut self) {
        let _ = (&mut self.done).await;
    }

    /// The outcome.
    pub(super) fn finish(self) -> io::Result<()> {
        let joined = self.thread.join();
        joined.unwrap_or_else(|_| Err(io::Error::other("its writer has failed")))
    }
}
