//! Docker's requests, without fields that this driver does not read. Go sends `null` for an empty value.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

use crate::trouble::Trouble;

/// Options that are the driver's own, those of `-o`.
const GENERIC: &str = "com.docker.network.generic";

/// A question in the form that it has to have.
pub(crate) fn understood<T: DeserializeOwned>(question: &Value) -> Result<T, Trouble> {
    if question.is_null() {
        return Err(Trouble::Emptied);
    }
    T::deserialize(question).map_err(|error| Trouble::Question(error.to_string()))
}

fn empty_for_null<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

pub(crate) type Options = BTreeMap<String, Value>;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct CreateNetwork {
    #[serde(rename = "NetworkID")]
    pub(crate) network: String,
    #[serde(default, deserialize_with = "empty_for_null")]
    options: Options,
    #[serde(rename = "IPv4Data", default, deserialize_with = "empty_for_null")]
    v4: Vec<Pool>,
    #[serde(rename = "IPv6Data", default, deserialize_with = "empty_for_null")]
    v6: Vec<Pool>,
}

/// Addresses that Docker gives to a network's containers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Pool {
    #[serde(default)]
    pub(crate) address_space: String,
    pub(crate) pool: IpNet,
}

impl CreateNetwork {
    pub(crate) fn pools(&self) -> impl Iterator<Item = &Pool> {
        self.v4.iter().chain(&self.v6)
    }

    pub(crate) fn is_internal(&self) -> bool {
        self.options.get("com.docker.network.internal") == Some(&Value::Bool(true))
    }

    /// The options given with `-o`.
    pub(crate) fn own_options(&self) -> Result<BTreeMap<String, String>, Trouble> {
        match self.options.get(GENERIC) {
            None | Some(Value::Null) => Ok(BTreeMap::new()),
            Some(options) => understood(options),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct CreateEndpoint {
    #[serde(rename = "NetworkID")]
    pub(crate) network: String,
    #[serde(rename = "EndpointID")]
    pub(crate) endpoint: String,
    #[serde(default, deserialize_with = "empty_for_null")]
    interface: Interface,
    #[serde(default, deserialize_with = "empty_for_null")]
    pub(crate) options: Options,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Interface {
    #[serde(default)]
    address: String,
    #[serde(rename = "AddressIPv6", default)]
    address_v6: String,
    #[serde(default)]
    mac_address: String,
}

impl CreateEndpoint {
    pub(crate) fn addresses(&self) -> Result<Vec<IpAddr>, Trouble> {
        let given = [&self.interface.address, &self.interface.address_v6];
        let given = given.into_iter().filter(|it| !it.is_empty());
        let parsed = given.map(|text| {
            let net: IpNet = text
                .parse()
                .map_err(|error| Trouble::Question(format!("address {text:?}: {error}")))?;
            Ok(net.addr())
        });
        parsed.collect()
    }

    pub(crate) fn mac(&self) -> Option<String> {
        let mac = &self.interface.mac_address;
        (!mac.is_empty()).then(|| mac.clone())
    }

    /// The interface's name, where one was asked for.
    pub(crate) fn interface_name(&self) -> Option<String> {
        let name = self.options.get("com.docker.network.endpoint.ifname");
        name.and_then(Value::as_str).map(str::to_owned)
    }
}

/// A question about an endpoint that Docker has told of before.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct OfEndpoint {
    #[serde(rename = "NetworkID")]
    pub(crate) network: String,
    #[serde(rename = "EndpointID")]
    pub(crate) endpoint: String,
    /// Where the container is, for `Join`.
    #[serde(default)]
    pub(crate) sandbox_key: String,
    #[serde(default, deserialize_with = "empty_for_null")]
    pub(crate) options: Options,
}

#[derive(Deserialize)]
pub(crate) struct OfNetwork {
    #[serde(rename = "NetworkID")]
    pub(crate) network: String,
}

/// Whether ports of the node are to lead to the container.
pub(crate) fn publishes(options: &Options) -> bool {
    let ports = options.get("com.docker.network.portmap");
    ports
        .and_then(Value::as_array)
        .is_some_and(|ports| !ports.is_empty())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct RequestPool {
    #[serde(default)]
    pub(crate) pool: String,
    #[serde(default)]
    pub(crate) sub_pool: String,
    #[serde(default, deserialize_with = "empty_for_null")]
    pub(crate) options: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) v6: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct OfAddress {
    #[serde(rename = "PoolID")]
    pub(crate) pool: String,
    #[serde(default)]
    address: String,
    #[serde(default, deserialize_with = "empty_for_null")]
    options: BTreeMap<String, String>,
}

impl OfAddress {
    /// The one that is asked for, or given back.
    pub(crate) fn address(&self) -> Result<Option<IpAddr>, Trouble> {
        if self.address.is_empty() {
            return Ok(None);
        }
        let parsed = self.address.parse();
        parsed
            .map(Some)
            .map_err(|error| Trouble::Question(format!("address {:?}: {error}", self.address)))
    }

    /// Whether it is to be the node's, and no container's.
    pub(crate) fn is_gateway(&self) -> bool {
        let kind = self.options.get("RequestAddressType");
        kind.is_some_and(|kind| kind == "com.docker.network.gateway")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{CreateEndpoint, CreateNetwork, OfAddress, Trouble, publishes, understood};

    #[test]
    fn a_network_is_read_as_docker_28_writes_it() {
        let asked: CreateNetwork = understood(&json!({
            "NetworkID": "a1", "IPv6Data": [],
            "Options": {
                "com.docker.network.enable_ipv4": true, "com.docker.network.enable_ipv6": false,
                "com.docker.network.generic": { "network": "lab" },
            },
            "IPv4Data": [{ "AddressSpace": "overlay", "Gateway": "10.244.1.1/24", "Pool": "10.244.1.0/24" }],
        }))
        .unwrap();
        assert_eq!(asked.own_options().unwrap()["network"], "lab");
        assert!(!asked.is_internal());
        let pools: Vec<_> = asked.pools().map(|it| it.pool.to_string()).collect();
        assert_eq!(pools, ["10.244.1.0/24"]);
    }

    #[test]
    fn a_question_that_lost_its_content_is_refused() {
        let asked = understood::<CreateEndpoint>(&serde_json::Value::Null);
        assert!(matches!(asked, Err(Trouble::Emptied)));
    }

    #[test]
    fn what_is_null_is_empty() {
        let asked: CreateEndpoint = understood(&json!({
            "NetworkID": "a1", "EndpointID": "b2", "Interface": null, "Options": null,
        }))
        .unwrap();
        assert_eq!(asked.addresses().unwrap(), [] as [std::net::IpAddr; 0]);
        assert!(!publishes(&asked.options));
        let asked: OfAddress =
            understood(&json!({ "PoolID": "p", "Address": "", "Options": null })).unwrap();
        assert_eq!(asked.address().unwrap(), None);
        assert!(!asked.is_gateway());
    }

    #[test]
    fn ports_that_are_published_are_seen_and_those_that_are_exposed_are_none() {
        let port = json!({ "Proto": 6, "IP": "", "Port": 80, "HostIP": "", "HostPort": 8080 });
        let asked: CreateEndpoint = understood(&json!({
            "NetworkID": "a1", "EndpointID": "b2",
            "Interface": { "Address": "10.244.1.9/24", "AddressIPv6": "", "MacAddress": "" },
            "Options": {
                "com.docker.network.endpoint.exposedports": [{ "Proto": 6, "Port": 80 }],
                "com.docker.network.portmap": [port],
            },
        }))
        .unwrap();
        assert!(publishes(&asked.options));
        assert_eq!(asked.mac(), None);
        let asked: CreateEndpoint = understood(&json!({
            "NetworkID": "a1", "EndpointID": "b2",
            "Interface": { "Address": "10.244.1.9/24", "AddressIPv6": "", "MacAddress": "02:00:00:00:00:09" },
            "Options": { "com.docker.network.portmap": [] },
        }))
        .unwrap();
        assert!(!publishes(&asked.options));
        assert_eq!(asked.mac().unwrap(), "02:00:00:00:00:09");
    }
}
