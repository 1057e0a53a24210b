//! A namespace from which a container reaches the world, and which this machine's own network
//! knows nothing of: a process in userspace speaks for it.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Error, Result};
use overlay_tests::{poll, run};

use crate::machine::Machine;

/// The device inside.
const DEVICE: &str = "tap0";
/// Certificates that an administrator has added, on Debian.
const CERTIFICATES: &str = "/usr/local/share/ca-certificates";
/// Where slirp4netns answers for this machine's name server.
const NAME_SERVER: &str = "10.0.2.3";

/// It goes with the value.
pub(super) struct Uplink {
    namespace: String,
    process: Child,
}

impl Uplink {
    /// Makes the namespace and connects it.
    pub(super) fn open(namespace: &str) -> Result<Self> {
        ip(&["netns", "add", namespace])?;
        let process = Command::new("slirp4netns")
            .args([
                "--configure",
                "--disable-host-loopback",
                "--netns-type=path",
            ])
            .arg(format!("/run/netns/{namespace}"))
            .arg(DEVICE)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let process = match process {
            Ok(process) => process,
            Err(error) => {
                ip(&["netns", "del", namespace])?;
                return Err(error).context("run slirp4netns");
            }
        };
        let uplink = Self {
            namespace: namespace.to_owned(),
            process,
        };
        poll::until_well(|| {
            let routes = ip(&["-n", namespace, "-j", "route", "show", "default"]);
            match routes {
                Ok(routes) if routes.contains(DEVICE) => None,
                other => Some(format!("{other:?}")),
            }
        })
        .map_err(Error::msg)
        .context("connect a namespace by slirp4netns")?;
        Ok(uplink)
    }

    /// Tells a machine in one who answers for names, and whom this machine's administrator trusts:
    /// somebody on the way out may speak for the world.
    pub(super) fn serve(machine: &Machine) -> Result<()> {
        let file = machine.path("/etc/resolv.conf");
        // It can be a link to what a resolver writes that is not there.
        if file.is_symlink() {
            fs::remove_file(&file).context("remove the container's resolv.conf")?;
        }
        fs::write(&file, format!("nameserver {NAME_SERVER}\n"))
            .context("write the container's resolv.conf")?;
        let certificates = Path::new(CERTIFICATES);
        if !certificates.is_dir() {
            return Ok(());
        }
        for entry in fs::read_dir(certificates).context("list this machine's certificates")? {
            let from = entry.context("list this machine's certificates")?.path();
            if let Some(name) = from.file_name() {
                fs::copy(&from, machine.path(CERTIFICATES).join(name))
                    .with_context(|| format!("copy {}", from.display()))?;
            }
        }
        machine.run("update-ca-certificates").map(drop)
    }

    /// Ends it.
    pub(super) fn close(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        if self.namespace.is_empty() {
            return Ok(());
        }
        let namespace = std::mem::take(&mut self.namespace);
        self.process.kill().context("end slirp4netns")?;
        self.process.wait().context("wait for slirp4netns")?;
        ip(&["netns", "del", &namespace]).map(drop)
    }
}

impl Drop for Uplink {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("the container's way out was not closed: {error:#}");
        }
    }
}

fn ip(words: &[&str]) -> Result<String> {
    let argv: Vec<String> = ["ip"]
        .iter()
        .chain(words)
        .map(|&word| word.to_owned())
        .collect();
    Ok(run::checked(&argv)?)
}
