//! The configuration on standard input.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read as _,
    net::IpAddr,
};

use ipnet::IpNet;
use serde_json::Value;

use super::{Code, Error, Result, VERSIONS, environment::is_identifier};

/// The fields that this plugin reads.
pub(super) struct Config {
    pub(super) version: String,
    /// Of the CNI network.
    name: String,
    /// The overlay network; the agent's only one when left out.
    pub(super) network: Option<String>,
    /// The agent's instance; the only one when left out.
    pub(super) instance: Option<String>,
    /// Repeated in the result.
    pub(super) dns: Option<Value>,
    /// The result of the plugin before this one, or of this one for `CHECK`.
    pub(super) previous: Option<Value>,
    input: Value,
}

/// Reads standard input.
pub(super) fn read() -> Result<Value> {
    let mut text = String::new();
    let read = std::io::stdin().read_to_string(&mut text);
    read.map_err(|error| Error::new(Code::Io, format!("read the configuration: {error}")))?;
    serde_json::from_str(&text)
        .map_err(|error| Error::new(Code::Decode, format!("decode the configuration: {error}")))
}

/// The version that a configuration is in, if it names one.
pub(super) fn version(input: &Value) -> Option<String> {
    Some(input.get("cniVersion")?.as_str()?.to_owned())
}

impl Config {
    /// Takes a configuration for a verb that there is since a version.
    pub(super) fn of(input: &Value, since: &str) -> Result<Self> {
        // libcni takes one without a version for 0.1.0.
        let version = version(input).unwrap_or_else(|| "0.1.0".to_owned());
        let mut supported = VERSIONS.iter().skip_while(|version| **version < since);
        if !supported.any(|supported| *supported == version) {
            return Err(Error::new(
                Code::Version,
                format!(
                    "incompatible CNI versions: the configuration has {version:?}, the verb takes \
                     {since} to {}",
                    VERSIONS[VERSIONS.len() - 1]
                ),
            ));
        }
        let text = |key: &str| match input.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(invalid(format!("read {key:?}: {other} is not text"))),
        };
        let name = text("name")?.unwrap_or_default();
        if !is_identifier(&name) {
            return Err(invalid(format!(
                "read \"name\": {name:?} is not the name of a network"
            )));
        }
        if let Some(ipam) = input.get("ipam")
            && ipam.as_object().is_none_or(|ipam| !ipam.is_empty())
        {
            return Err(Error::new(
                Code::Unsupported,
                format!("take \"ipam\": {ipam}: the agent gives the addresses; leave it out"),
            ));
        }
        Ok(Self {
            name,
            network: text("network")?,
            instance: text("instance")?,
            dns: input.get("dns").filter(|dns| dns.is_object()).cloned(),
            previous: input
                .get("prevResult")
                .filter(|previous| previous.is_object())
                .cloned(),
            version,
            input: input.clone(),
        })
    }

    /// The source of the attachment for the agent.
    pub(super) fn source(&self) -> String {
        format!("cni:{}", self.name)
    }

    /// Addresses that are asked for; the capability goes before `args`, and that before `CNI_ARGS`.
    pub(super) fn addresses(&self, arguments: &BTreeMap<String, String>) -> Result<Vec<IpAddr>> {
        let by_capability = self.capability("ips");
        let by_config = self.argument("ips");
        let listed = by_capability.or(by_config).and_then(Value::as_array);
        let texts: Vec<&str> = match listed {
            Some(listed) => listed.iter().filter_map(Value::as_str).collect(),
            None => arguments
                .get("IP")
                .map(String::as_str)
                .into_iter()
                .collect(),
        };
        texts
            .into_iter()
            .filter(|text| !text.is_empty())
            .map(|text| {
                // podman and nerdctl leave the length away.
                let net = text.parse::<IpNet>().map(|net| net.addr());
                net.or_else(|_| text.parse())
                    .map_err(|_| invalid(format!("ask for address {text:?}: it is none")))
            })
            .collect()
    }

    /// The hardware address that is asked for.
    pub(super) fn mac(&self, arguments: &BTreeMap<String, String>) -> Option<String> {
        let by_config = self.capability("mac").or_else(|| self.argument("mac"));
        let text = by_config.and_then(Value::as_str);
        let text = text.or_else(|| arguments.get("MAC").map(String::as_str));
        text.filter(|text| !text.is_empty()).map(str::to_owned)
    }

    /// The attachments that are still in use, as container and interface; `None` where the runtime
    /// does not say.
    pub(super) fn valid_attachments(&self) -> Result<Option<BTreeSet<(String, String)>>> {
        // libcni 1.2.0 to 1.2.2 know the first alone, the specification the second.
        let keys = ["cni.dev/valid-attachments", "cni.dev/attachments"];
        let mut given = keys.iter().filter_map(|key| self.input.get(*key));
        let Some(listed) = given.find_map(Value::as_array) else {
            return Ok(None);
        };
        let attachment = |value: &Value| {
            let text = |key| Some(field(value, key)?.as_str()?.to_owned());
            Some((text("containerID")?, text("ifname")?))
        };
        let all: Option<BTreeSet<_>> = listed.iter().map(attachment).collect();
        let all = all.ok_or_else(|| {
            invalid("read the valid attachments: one has no containerID and ifname".to_owned())
        });
        all.map(Some)
    }

    fn capability(&self, key: &str) -> Option<&Value> {
        field(self.input.get("runtimeConfig")?, key)
    }

    fn argument(&self, key: &str) -> Option<&Value> {
        field(self.input.get("args")?.get("cni")?, key)
    }
}

fn invalid(why: String) -> Error {
    Error::new(Code::Config, why)
}

/// The value of a key in any case: runtimes in Go send names of structures' fields, and plugins in
/// Go do not notice.
fn field<'a>(object: &'a Value, key: &str) -> Option<&'a Value> {
    let exact = object.get(key);
    let fields = object.as_object().into_iter().flatten();
    let mut alike = fields.filter(|(name, _)| name.eq_ignore_ascii_case(key));
    exact.or_else(|| alike.next().map(|(_, value)| value))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::IpAddr};

    use serde_json::{Value, json};

    use super::Config;
    use crate::cni::error::Code;

    fn config(more: &Value) -> super::Result<Config> {
        let mut input = json!({ "cniVersion": "1.0.0", "name": "lab", "type": "overlay-cni" });
        for (key, value) in more.as_object().unwrap() {
            input[key] = value.clone();
        }
        Config::of(&input, "0.3.1")
    }

    fn code(more: &Value) -> Code {
        config(more).err().unwrap().code
    }

    #[test]
    fn capabilities_go_first_with_keys_in_any_case() {
        let arguments: BTreeMap<String, String> = [("IP".to_owned(), "10.0.0.3".to_owned())].into();
        let more = json!({
            "runtimeConfig": { "IPs": ["10.0.0.1/24", "fd00::1"], "MAC": "02:00:00:00:00:01" },
            "args": { "cni": { "ips": ["10.0.0.2"] } },
        });
        let first = config(&more).unwrap();
        let addresses = first.addresses(&arguments).unwrap();
        assert_eq!(
            addresses,
            ["10.0.0.1", "fd00::1"].map(|it| it.parse::<IpAddr>().unwrap())
        );
        assert_eq!(first.mac(&arguments).as_deref(), Some("02:00:00:00:00:01"));
        let second = config(&json!({ "args": more["args"] })).unwrap();
        assert_eq!(
            second.addresses(&arguments).unwrap()[0].to_string(),
            "10.0.0.2"
        );
        let third = config(&json!({})).unwrap();
        assert_eq!(
            third.addresses(&arguments).unwrap()[0].to_string(),
            "10.0.0.3"
        );
        assert!(third.addresses(&BTreeMap::new()).unwrap().is_empty());
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_its_code() {
        assert_eq!(code(&json!({ "cniVersion": "0.2.0" })), Code::Version);
        assert_eq!(code(&json!({ "cniVersion": "2.0.0" })), Code::Version);
        assert_eq!(
            code(&json!({ "ipam": { "type": "host-local" } })),
            Code::Unsupported
        );
        assert_eq!(code(&json!({ "name": "" })), Code::Config);
        assert_eq!(code(&json!({ "network": 7 })), Code::Config);
        assert!(config(&json!({ "ipam": {}, "colour": "red" })).is_ok());
    }

    #[test]
    fn valid_attachments_have_two_names() {
        let listed = json!([{ "containerID": "a", "ifname": "eth0" }]);
        for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
            let valid = config(&json!({ key: listed })).unwrap().valid_attachments();
            assert!(
                valid
                    .unwrap()
                    .unwrap()
                    .contains(&("a".to_owned(), "eth0".to_owned()))
            );
        }
        assert!(
            config(&json!({}))
                .unwrap()
                .valid_attachments()
                .unwrap()
                .is_none()
        );
    }
}
