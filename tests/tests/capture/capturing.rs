//! A capture under way, and what tshark makes of its file.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use overlay_tests::{agent::Agent, guard::Guard, run, script::words, state};

/// A capture under way; it ends with the value.
pub(crate) struct Capturing {
    child: Child,
    stderr: BufReader<ChildStderr>,
    file: PathBuf,
}

impl Capturing {
    /// Returns when the programs tell.
    pub(crate) fn start(guard: &Guard, agent: &Agent, arguments: &[&str]) -> Result<Self> {
        let file = state::folder(&guard.topology().shape.name).join("capture.pcapng");
        let path = file.to_string_lossy().into_owned();
        let arguments = [
            &["capture", "-w", &path, "--instance", &agent.instance],
            arguments,
        ]
        .concat();
        let mut child = run::command(&agent.argv(&arguments))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = child.stderr.take().context("standard error")?;
        let mut capturing = Self {
            child,
            stderr: BufReader::new(stderr),
            file,
        };
        let mut said = String::new();
        capturing.stderr.read_line(&mut said)?;
        ensure!(said.starts_with("capturing on"), "{said}");
        Ok(capturing)
    }

    /// Waits for its own end; what it has written and said.
    pub(crate) fn finish(mut self) -> Result<(Vec<Packet>, String)> {
        ensure!(self.child.wait()?.success());
        let mut said = String::new();
        self.stderr.read_to_string(&mut said)?;
        Ok((read(&self.file)?, said))
    }

    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Capturing {
    fn drop(&mut self) {
        // It has ended already when the test went well.
        let _ended = self.kill();
    }
}

/// A packet of a file as tshark sees it.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) interface: String,
    pub(crate) comment: String,
    pub(crate) protocols: String,
    pub(crate) malformed: bool,
    pub(crate) time: f64,
    pub(crate) captured: usize,
    pub(crate) length: usize,
    pub(crate) ttls: String,
}

fn read(file: &Path) -> Result<Vec<Packet>> {
    const FIELDS: [&str; 8] = [
        "frame.interface_name",
        "frame.comment",
        "frame.protocols",
        "_ws.malformed",
        "frame.time_epoch",
        "frame.cap_len",
        "frame.len",
        "ip.ttl",
    ];
    let mut argv = words(format!(
        "tshark -n -r {} -T fields -E separator=|",
        file.display()
    ));
    argv.extend(
        FIELDS
            .iter()
            .flat_map(|field| ["-e".to_owned(), (*field).to_owned()]),
    );
    let text = run::checked(&argv)?;
    let packet = |line: &str| {
        let fields: Vec<&str> = line.split('|').collect();
        let [
            interface,
            comment,
            protocols,
            malformed,
            time,
            captured,
            length,
            ttls,
        ] = fields[..]
        else {
            anyhow::bail!("{} fields in {line:?}", fields.len());
        };
        Ok(Packet {
            interface: interface.to_owned(),
            comment: comment.to_owned(),
            protocols: protocols.to_owned(),
            malformed: !malformed.is_empty(),
            time: time.parse()?,
            captured: captured.parse()?,
            length: length.parse()?,
            ttls: ttls.to_owned(),
        })
    };
    text.lines().map(packet).collect()
}
