//! A fault: what makes it, what must be found, and what cures it.

use std::fmt::Debug;

use anyhow::{Context as _, Result};
use overlay_tests::{poll, run};
use serde_json::Value;

use crate::stand::Stand;

type Command = (&'static str, String);

/// Something that is broken by commands, each in a namespace of the lab.
#[derive(Debug)]
pub(crate) struct Fault {
    check: &'static str,
    /// A part of the object that must be named.
    object: &'static str,
    /// What follows from it, which the agent tells and so `doctor` does.
    follows: Option<&'static str>,
    make: Vec<Command>,
    cure: Cure,
    /// What removes the rest, once it is cured.
    clear: Vec<Command>,
}

#[derive(Debug)]
enum Cure {
    /// By what was printed.
    Printed,
    /// By somebody who decides.
    By(Vec<Command>),
}

impl Fault {
    /// Made by a command on the node, and cured by what is printed.
    pub(crate) fn new(check: &'static str, object: &'static str, make: impl Into<String>) -> Self {
        Self {
            check,
            object,
            follows: None,
            make: vec![("n1", make.into())],
            cure: Cure::Printed,
            clear: Vec::new(),
        }
    }

    /// Made elsewhere.
    pub(crate) fn within(mut self, namespace: &'static str) -> Self {
        for (within, _) in &mut self.make {
            *within = namespace;
        }
        self
    }

    /// Not the only one that is found.
    pub(crate) fn with(mut self, follows: &'static str) -> Self {
        self.follows = Some(follows);
        self
    }

    /// Made by one more command.
    pub(crate) fn and(mut self, namespace: &'static str, make: impl Into<String>) -> Self {
        self.make.push((namespace, make.into()));
        self
    }

    /// Cured by a command that nobody could print.
    pub(crate) fn cured_by(mut self, namespace: &'static str, cure: impl Into<String>) -> Self {
        self.cure = Cure::By(vec![(namespace, cure.into())]);
        self
    }

    /// Leaves something that the cure does not remove.
    pub(crate) fn cleared_by(mut self, namespace: &'static str, clear: impl Into<String>) -> Self {
        self.clear.push((namespace, clear.into()));
        self
    }

    /// Makes the fault, has it found and cured, and nothing found any more.
    pub(crate) fn is_found(&self, stand: &Stand) -> Result<()> {
        self.is_found_by(stand, || stand.diagnosis())
    }

    /// The same with another way to ask.
    pub(crate) fn is_found_by(&self, stand: &Stand, ask: impl Fn() -> Result<Value>) -> Result<()> {
        run(stand, &self.make)?;
        let finding = finding_with(stand, (self.check, self.object), self.follows, &ask)?;
        match &self.cure {
            Cure::Printed => cure(&finding)?,
            Cure::By(commands) => run(stand, commands)?,
        }
        run(stand, &self.clear)?;
        stand.is_well(self.check, ask)
    }
}

fn run(stand: &Stand, commands: &[Command]) -> Result<()> {
    commands
        .iter()
        .try_for_each(|(namespace, command)| stand.within(namespace, command).map(drop))
}

/// Waits for the one finding, of this check and about this object; it is explained, and has a
/// cure.
pub(crate) fn only_finding(
    stand: &Stand,
    check: &str,
    object: &str,
    ask: impl Fn() -> Result<Value>,
) -> Result<Value> {
    finding_with(stand, (check, object), None, ask)
}

/// The same of a fault from which another one follows.
pub(crate) fn finding_with(
    stand: &Stand,
    (check, object): (&str, &str),
    follows: Option<&str>,
    ask: impl Fn() -> Result<Value>,
) -> Result<Value> {
    let mut found = Value::Null;
    let is = |finding: &Value| {
        let named = finding["object"].as_str().unwrap_or_default();
        finding["check"] == check && named.contains(object)
    };
    let seen = poll::until_well(|| match ask() {
        Ok(diagnosis) => match diagnosis["findings"].as_array().map(Vec::as_slice) {
            Some(findings) => {
                let (others, own): (Vec<&Value>, Vec<&Value>) = findings
                    .iter()
                    .partition(|finding| follows.is_some_and(|other| finding["check"] == other));
                match own[..] {
                    [only] if is(only) && others.len() == usize::from(follows.is_some()) => {
                        found = only.clone();
                        None
                    }
                    _ => Some(format!("{findings:#?}")),
                }
            }
            None => Some(format!("{:#}", diagnosis["findings"])),
        },
        Err(error) => Some(format!("{error:#}")),
    });
    assert_eq!(seen, Ok(()), "{check} of {object}\n{}", stand.agent.log()?);
    for part in ["what", "why"] {
        let text = found[part].as_str().unwrap_or_default();
        assert!(text.len() > 10, "{check} has no {part}: {found:#}");
    }
    let cure = found["cure"]["text"].as_str().unwrap_or_default();
    assert!(!cure.is_empty(), "{check} has no cure: {found:#}");
    Ok(found)
}

/// The commands of a finding's cure.
pub(crate) fn commands(finding: &Value) -> Vec<String> {
    let commands = finding["cure"]["commands"].as_array();
    let commands = commands.into_iter().flatten().filter_map(Value::as_str);
    let commands: Vec<String> = commands.map(str::to_owned).collect();
    assert!(!commands.is_empty(), "no command: {finding:#}");
    commands
}

/// A command as whoever pastes it into a shell runs it.
pub(crate) fn pasted(command: &str) -> Vec<String> {
    ["sh", "-c", command].map(str::to_owned).to_vec()
}

/// Does what is printed.
pub(crate) fn cure(finding: &Value) -> Result<()> {
    for command in commands(finding) {
        run::checked(pasted(&command)).with_context(|| command.clone())?;
    }
    Ok(())
}

/// Does what is advised in quotes to whoever has found out that nobody needs the thing.
pub(crate) fn advised(finding: &Value) -> Result<()> {
    let none = finding["cure"]["commands"]
        .as_array()
        .is_some_and(Vec::is_empty);
    assert!(none, "it takes a decision: {finding:#}");
    let text = finding["cure"]["text"].as_str().unwrap_or_default();
    let command = text.split('"').nth(1).context("no command in quotes")?;
    run::checked(pasted(command)).with_context(|| command.to_owned())?;
    Ok(())
}
