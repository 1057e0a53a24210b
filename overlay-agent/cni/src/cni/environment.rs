//! The runtime's parameters in the environment.

use std::{collections::BTreeMap, env};

use overlay_api::{MAX_TEXT, Namespace};

use super::{Code, Error, Result, namespace_of};

/// Arguments of Kubernetes and others that become labels.
const LABELS: [(&str, &str); 5] = [
    ("K8S_POD_NAME", "pod"),
    ("K8S_POD_NAMESPACE", "pod_namespace"),
    ("K8S_POD_UID", "pod_uid"),
    ("NOMAD_JOB_ID", "nomad_job"),
    ("NOMAD_GROUP_NAME", "nomad_group"),
];

/// The variables of a verb that is about a container.
pub(super) struct Environment {
    pub(super) container: String,
    pub(super) interface: String,
    /// As it was given: results repeat it.
    pub(super) netns: String,
    pub(super) arguments: BTreeMap<String, String>,
}

impl Environment {
    /// Reads and checks all of them, with the namespace where it is `needed`. An empty one counts
    /// as missing.
    pub(super) fn of_container(needed: bool) -> Result<Self> {
        let read = |name: &str| env::var(name).unwrap_or_default();
        let (container, interface) = (read("CNI_CONTAINERID"), read("CNI_IFNAME"));
        let (netns, path) = (read("CNI_NETNS"), read("CNI_PATH"));
        let missing: Vec<&str> = [
            ("CNI_CONTAINERID", container.is_empty()),
            ("CNI_NETNS", needed && netns.is_empty()),
            ("CNI_IFNAME", interface.is_empty()),
            ("CNI_PATH", path.is_empty()),
        ]
        .into_iter()
        .filter_map(|(name, missing)| missing.then_some(name))
        .collect();
        let wrong = |why: String| Err(Error::new(Code::Environment, why));
        if !missing.is_empty() {
            return wrong(format!(
                "read the environment: {} is missing",
                missing.join(", ")
            ));
        }
        if !is_identifier(&container) {
            return wrong(format!(
                "read CNI_CONTAINERID: {container:?} is not a container id"
            ));
        }
        if !is_interface(&interface) {
            return wrong(format!(
                "read CNI_IFNAME: {interface:?} is not the name of an interface"
            ));
        }
        Ok(Self {
            container,
            interface,
            netns,
            arguments: arguments(&read("CNI_ARGS"))?,
        })
    }

    pub(super) fn namespace(&self) -> Result<Namespace> {
        namespace_of(&self.netns)
    }

    /// The container's name for people.
    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        let labels = LABELS.iter().filter_map(|(argument, label)| {
            let value = self.arguments.get(*argument)?;
            let value: String = value.chars().take(MAX_TEXT / 4).collect();
            (!value.is_empty()).then(|| ((*label).to_owned(), value))
        });
        labels.collect()
    }
}

/// `KEY=VALUE;KEY=VALUE`. A value may have a `=` of its own: Nomad hands over JSON.
fn arguments(text: &str) -> Result<BTreeMap<String, String>> {
    let pairs = text.split(';').filter(|pair| !pair.trim().is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').ok_or_else(|| {
                Error::new(
                    Code::Environment,
                    format!("read CNI_ARGS: {pair:?} is not KEY=VALUE"),
                )
            })?;
            Ok((key.trim().to_owned(), value.to_owned()))
        })
        .collect()
}

/// Whether a name of a container or network is valid.
pub(super) fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

fn is_interface(text: &str) -> bool {
    (1..16).contains(&text.len())
        && !matches!(text, "." | "..")
        && !text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::arguments;

    #[test]
    fn arguments_are_split_at_the_first_equals_sign() {
        let read = arguments("IgnoreUnknown=1;K8S_POD_NAME=web;X={\"a\":\"b=c\"};").unwrap();
        assert_eq!(read["X"], "{\"a\":\"b=c\"}");
        assert_eq!(read["K8S_POD_NAME"], "web");
        assert!(arguments("").unwrap().is_empty());
        assert!(arguments("web").is_err());
    }
}
