//! A scenario as data: the commands that build it, executed and printed from one list.

use std::{
    fmt,
    path::{Path, PathBuf},
};

/// One command that a person would type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Runs to its end and must succeed.
    Run(Vec<String>),
    /// Stays, detached from the terminal, with its output in a file.
    Start {
        /// Its name in messages.
        task: String,
        /// The command.
        argv: Vec<String>,
        /// Where its output goes.
        log: PathBuf,
    },
    /// Repeated until it succeeds.
    Await {
        /// The command.
        argv: Vec<String>,
        /// The started task without which it never will.
        task: String,
    },
    /// A file.
    Write {
        /// Where.
        path: PathBuf,
        /// All of it.
        text: String,
    },
}

impl Step {
    /// A command whose words have no spaces in them.
    pub fn run(line: impl AsRef<str>) -> Self {
        Self::Run(words(line))
    }
}

/// The words of a command line that needs no quotes.
pub fn words(line: impl AsRef<str>) -> Vec<String> {
    line.as_ref()
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

/// A command line inside a namespace.
///
/// `nsenter`, not `ip netns exec`: that one mounts a new /sys, in which the pinned
/// maps of /sys/fs/bpf cannot be seen.
pub fn inside(namespace: &str, line: impl fmt::Display) -> String {
    format!("nsenter --net=/run/netns/{namespace} {line}")
}

/// Steps that belong together, and what they are for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// The purpose of these commands, in one sentence.
    pub title: String,
    /// In order.
    pub steps: Vec<Step>,
}

impl Section {
    /// A section with its first steps.
    pub fn new(title: impl Into<String>, steps: impl IntoIterator<Item = Step>) -> Self {
        Self {
            title: title.into(),
            steps: steps.into_iter().collect(),
        }
    }
}

/// All that is typed to build something, as a shell script when displayed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// In order.
    pub sections: Vec<Section>,
}

impl Script {
    /// Gives a file that is written another text.
    pub fn rewrite(&mut self, file: &Path, new: &str) {
        let steps = self
            .sections
            .iter_mut()
            .flat_map(|section| &mut section.steps);
        for step in steps {
            if let Step::Write { path, text } = step
                && path == file
            {
                new.clone_into(text);
            }
        }
    }

    /// Changes the words of each command that runs to its end, or is started.
    pub fn reword(&mut self, change: impl Fn(&mut Vec<String>)) {
        let steps = self
            .sections
            .iter_mut()
            .flat_map(|section| &mut section.steps);
        for step in steps {
            if let Step::Run(argv) | Step::Start { argv, .. } = step {
                change(argv);
            }
        }
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for section in &self.sections {
            writeln!(f, "\n# {}", section.title)?;
            for step in &section.steps {
                writeln!(f, "{step}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(argv) => f.write_str(&shell(argv)),
            Self::Start { argv, log, .. } => {
                write!(
                    f,
                    "setsid {} >{} 2>&1 </dev/null &",
                    shell(argv),
                    log.display()
                )
            }
            Self::Await { argv, .. } => {
                write!(
                    f,
                    "until {} >/dev/null 2>&1; do sleep 0.1; done",
                    shell(argv)
                )
            }
            Self::Write { path, text } => {
                write!(
                    f,
                    "cat >{} <<'END'\n{}\nEND",
                    path.display(),
                    text.trim_end()
                )
            }
        }
    }
}

/// A command as it is typed into a shell.
pub fn shell(argv: &[String]) -> String {
    let quoted = argv.iter().map(|word| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./:,@%".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::{Step, shell};

    #[test]
    fn a_printed_command_can_be_typed() {
        assert_eq!(
            Step::run("ip netns add lab-n1").to_string(),
            "ip netns add lab-n1"
        );
        let argv = ["/a b/agent", "it's", ""].map(str::to_owned);
        assert_eq!(shell(&argv), r"'/a b/agent' 'it'\''s' ''");
    }
}
