//! The helper's process.

use std::{io, path::PathBuf, process::Stdio};

use overlay_cluster::talk::{News, Start};
use serde::Serialize;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::kernel::helper;

/// Its program.
pub(super) const PROGRAM: &str = "overlay-cluster";
/// No line of its is longer: 100,000 peers take half of it.
const LONGEST: usize = 64 << 20;

/// A helper that runs.
pub(super) struct Running {
    pub(super) start: Start,
    child: Child,
    // Its end tells the helper to end.
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    line: Vec<u8>,
}

impl Running {
    pub(super) async fn start(start: Start) -> io::Result<Self> {
        let mut command = Command::from(helper::command(&program()?));
        command.arg("follow");
        let mut child = command
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()?;
        let missing = || io::Error::other("it has no standard input or output");
        let input = child.stdin.take().ok_or_else(missing)?;
        let output = child.stdout.take().ok_or_else(missing)?;
        let mut running = Self {
            start,
            child,
            input,
            output: BufReader::new(output),
            line: Vec::new(),
        };
        let start = running.start.clone();
        running.tell(&start).await?;
        Ok(running)
    }

    pub(super) async fn tell(&mut self, what: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(what)?;
        line.push(b'\n');
        self.input.write_all(&line).await
    }

    /// The next line. What was read of one is kept when the wait is given up.
    pub(super) async fn next(&mut self) -> io::Result<News> {
        loop {
            let read = self.output.fill_buf().await?;
            if read.is_empty() {
                let status = self.child.wait().await?;
                return Err(io::Error::other(format!("{status}")));
            }
            let end = read.iter().position(|byte| *byte == b'\n');
            let length = end.map_or(read.len(), |end| end + 1);
            self.line.extend(&read[..length]);
            self.output.consume(length);
            if self.line.len() > LONGEST {
                return Err(io::Error::other("it told more than a node can take"));
            }
            if end.is_some() {
                let line = std::mem::take(&mut self.line);
                return Ok(serde_json::from_slice(&line)?);
            }
        }
    }
}

/// The helper's program, which lies beside the agent's.
pub(crate) fn program() -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(own.with_file_name(PROGRAM))
}
