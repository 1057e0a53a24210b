//! The plugin, started as runtimes start it.

use std::{
    collections::BTreeMap,
    io::Write as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use overlay_tests::lab;
use serde_json::{Value, json};

/// The program: beside the agent's, where cargo puts both.
pub(crate) fn program() -> PathBuf {
    let beside = lab::agent_program().with_file_name("overlay-cni");
    std::env::var_os("OVERLAY_CNI").map_or(beside, PathBuf::from)
}

/// What a plugin has said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) success: bool,
    pub(crate) stdout: String,
}

impl Said {
    pub(crate) fn value(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout)
            .with_context(|| format!("not an answer: {:?}", self.stdout))
    }

    /// The answer of one that has succeeded.
    pub(crate) fn well(&self) -> Result<Value> {
        ensure!(self.success, "it has failed: {}", self.stdout);
        if self.stdout.is_empty() {
            return Ok(Value::Null);
        }
        self.value()
    }

    /// The code of one that has failed.
    pub(crate) fn code(&self) -> Result<u64> {
        ensure!(!self.success, "it has succeeded: {}", self.stdout);
        let answer = self.value()?;
        let code = answer["code"].as_u64();
        code.with_context(|| format!("no code in {answer}"))
    }
}

/// A container as its runtime names it, and what it hands over.
#[derive(Clone)]
pub(crate) struct Cni {
    /// Node in whose namespace the runtime runs.
    pub(crate) node: String,
    pub(crate) config: Value,
    pub(crate) environment: BTreeMap<&'static str, String>,
}

impl Cni {
    pub(crate) fn new(node: &str, container: &str, netns: &str) -> Self {
        let path = if netns.is_empty() {
            String::new()
        } else {
            format!("/var/run/netns/{netns}")
        };
        let variables = [
            ("CNI_CONTAINERID", container.to_owned()),
            ("CNI_NETNS", path),
            ("CNI_IFNAME", "eth0".to_owned()),
            ("CNI_ARGS", String::new()),
            ("CNI_PATH", "/usr/lib/cni".to_owned()),
        ];
        let config = json!({
            "cniVersion": "1.1.0",
            "name": "pods",
            "type": "overlay-cni",
            "instance": node,
            "network": "lab",
            "capabilities": { "ips": true, "mac": true },
        });
        Self {
            node: node.to_owned(),
            config,
            environment: variables.into(),
        }
    }

    pub(crate) fn with(&self, key: &str, value: Value) -> Self {
        let mut changed = self.clone();
        changed.config[key] = value;
        changed
    }

    pub(crate) fn setting(&self, name: &'static str, value: &str) -> Self {
        let mut changed = self.clone();
        changed.environment.insert(name, value.to_owned());
        changed
    }

    pub(crate) fn start(&self, command: &str) -> Result<Child> {
        let mut plugin = in_namespace(&self.node);
        plugin.env("CNI_COMMAND", command).envs(&self.environment);
        let mut child = spawn(&mut plugin)?;
        let mut stdin = child.stdin.take().context("no stdin")?;
        // One that needs no input may be gone already.
        let _ = stdin.write_all(self.config.to_string().as_bytes());
        Ok(child)
    }

    pub(crate) fn run(&self, command: &str) -> Result<Said> {
        finish(self.start(command)?)
    }
}

/// Runs a verb of netavark's protocol.
pub(crate) fn netavark(node: &str, arguments: &[&str], input: &Value) -> Result<Said> {
    let mut plugin = in_namespace(node);
    plugin.args(arguments);
    let mut child = spawn(&mut plugin)?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    let _ = stdin.write_all(input.to_string().as_bytes());
    drop(stdin);
    finish(child)
}

fn in_namespace(node: &str) -> Command {
    let mut plugin = Command::new("nsenter");
    plugin
        .arg(format!("--net=/run/netns/{node}"))
        .arg(program());
    plugin
}

fn spawn(plugin: &mut Command) -> Result<Child> {
    let piped = plugin.stdin(Stdio::piped()).stdout(Stdio::piped());
    piped.spawn().context("start nsenter")
}

fn finish(child: Child) -> Result<Said> {
    let output = child.wait_with_output()?;
    Ok(Said {
        success: output.status.success(),
        stdout: String::from_utf8(output.stdout)?.trim().to_owned(),
    })
}
