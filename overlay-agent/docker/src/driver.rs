//! The driver: networks and endpoints.

use std::{env, path::PathBuf};

use ipnet::IpNet;
use overlay_api::{Attached, Key, Kind, Wanted, client::Agent, netns};
use serde_json::{Map, Value, json};

use crate::{
    ipam,
    memory::{Endpoint, Network, Shelf},
    protocol::{CreateEndpoint, CreateNetwork, OfEndpoint, OfNetwork, publishes, understood},
    trouble::Trouble,
};

/// Docker names its own interfaces `eth` and a number, and counts those alone that it has made.
const PREFIX: &str = "ovl";
/// A container can be in so many overlay networks.
const MOST: usize = 16;

/// State behind the answers to Docker.
#[derive(Debug)]
pub(crate) struct Driver {
    networks: Shelf<Network>,
    endpoints: Shelf<Endpoint>,
}

impl Driver {
    /// With its memory where systemd says: networks outlive the machine's end, endpoints do not.
    pub(crate) fn of_environment() -> Self {
        let folder = |variable: &str, default: &str| {
            env::var_os(variable).map_or_else(|| PathBuf::from(default), PathBuf::from)
        };
        let lasting = folder("STATE_DIRECTORY", "/var/lib/overlay-docker");
        let passing = folder("RUNTIME_DIRECTORY", "/run/overlay-docker");
        Self {
            networks: Shelf::at(&lasting, "networks"),
            endpoints: Shelf::at(&passing, "endpoints"),
        }
    }

    /// Answers a question.
    pub(crate) fn answer(&self, method: &str, question: &Value) -> Result<Value, Trouble> {
        match method {
            "Plugin.Activate" => Ok(json!({ "Implements": ["NetworkDriver", "IpamDriver"] })),
            // Each node's Docker has its own; the networks are the same ones all the same.
            "NetworkDriver.GetCapabilities" => {
                Ok(json!({ "Scope": "local", "ConnectivityScope": "global" }))
            }
            "NetworkDriver.CreateNetwork" => self.create_network(question),
            "NetworkDriver.DeleteNetwork" => self.delete_network(question),
            "NetworkDriver.CreateEndpoint" => self.create_endpoint(question),
            "NetworkDriver.DeleteEndpoint" => self.delete_endpoint(question),
            "NetworkDriver.EndpointOperInfo" => Ok(json!({ "Value": {} })),
            "NetworkDriver.Join" => self.join(question),
            "NetworkDriver.Leave" => self.leave(question),
            "NetworkDriver.ProgramExternalConnectivity" => refuse_ports(question),
            "NetworkDriver.RevokeExternalConnectivity"
            // The agents know of each other without Docker.
            | "NetworkDriver.DiscoverNew"
            | "NetworkDriver.DiscoverDelete"
            | "IpamDriver.ReleasePool" => Ok(json!({})),
            "IpamDriver.GetCapabilities" => {
                Ok(json!({ "RequiresMACAddress": false, "RequiresRequestReplay": false }))
            }
            "IpamDriver.GetDefaultAddressSpaces" => Ok(ipam::address_spaces()),
            "IpamDriver.RequestPool" => ipam::request_pool(question),
            "IpamDriver.RequestAddress" => ipam::request_address(question),
            "IpamDriver.ReleaseAddress" => ipam::release_address(question),
            _ => Err(Trouble::NoMethod(method.to_owned())),
        }
    }

    fn create_network(&self, question: &Value) -> Result<Value, Trouble> {
        let asked: CreateNetwork = understood(question)?;
        let options = asked.own_options()?;
        ipam::known_only(&options)?;
        if asked.is_internal() {
            return Err(Trouble::Internal);
        }
        let pools: Vec<_> = asked.pools().collect();
        if pools.is_empty() || pools.iter().any(|pool| pool.address_space != ipam::SPACE) {
            return Err(Trouble::OtherIpam);
        }
        let subnets: Vec<IpNet> = pools.iter().map(|pool| pool.pool).collect();
        let option = |name: &str| options.get(name).map(String::as_str);
        let agent = Agent::find(option("instance"))?;
        let offers = agent.networks()?;
        let offer = ipam::chosen(&offers, option("network"), &subnets)?;
        if subnets.len() < offer.gateways.len() {
            return Err(Trouble::OneFamily(offer.network.clone()));
        }
        let network = Network {
            instance: agent.instance().to_owned(),
            network: offer.network.clone(),
        };
        self.networks.put(&asked.network, &network)?;
        Ok(json!({}))
    }

    fn delete_network(&self, question: &Value) -> Result<Value, Trouble> {
        let asked: OfNetwork = understood(question)?;
        self.networks.remove(&asked.network)?;
        Ok(json!({}))
    }

    fn create_endpoint(&self, question: &Value) -> Result<Value, Trouble> {
        let asked: CreateEndpoint = understood(question)?;
        if publishes(&asked.options) {
            return Err(Trouble::Ports);
        }
        let network = self.networks.get(&asked.network)?;
        let network = network.ok_or_else(|| Trouble::NoNetwork(asked.network.clone()))?;
        let endpoint = Endpoint {
            network,
            addresses: asked.addresses()?,
            mac: asked.mac(),
            wanted: asked.interface_name(),
            interface: None,
        };
        self.endpoints.put(&asked.endpoint, &endpoint)?;
        // Addresses and MAC are as they were asked for.
        Ok(json!({ "Interface": {} }))
    }

    fn delete_endpoint(&self, question: &Value) -> Result<Value, Trouble> {
        let asked: OfEndpoint = understood(question)?;
        if let Some(endpoint) = self.endpoints.get(&asked.endpoint)? {
            detach(&asked, &endpoint)?;
            self.endpoints.remove(&asked.endpoint)?;
        }
        Ok(json!({}))
    }

    /// The agent makes the interface where it belongs; Docker sets the default route, because it knows of
    /// the container's other networks.
    fn join(&self, question: &Value) -> Result<Value, Trouble> {
        let asked: OfEndpoint = understood(question)?;
        let endpoint = self.endpoints.get(&asked.endpoint)?;
        let mut endpoint = endpoint.ok_or_else(|| Trouble::NoEndpoint(asked.endpoint.clone()))?;
        let path = PathBuf::from(&asked.sandbox_key);
        let found = netns::look(&asked.sandbox_key);
        let netns = found.map_err(|cause| Trouble::Namespace { path, cause })?;
        let agent = Agent::find(Some(&endpoint.network.instance))?;
        let mut number = 0;
        let attached = loop {
            let interface = endpoint.wanted.clone();
            let interface = interface.unwrap_or_else(|| format!("{PREFIX}{number}"));
            // Known before it is there, so that it goes whatever becomes of this program.
            endpoint.interface = Some(interface.clone());
            self.endpoints.put(&asked.endpoint, &endpoint)?;
            let wanted = Wanted {
                key: key(&asked, interface),
                network: Some(endpoint.network.network.clone()),
                netns: netns.clone(),
                addresses: endpoint.addresses.clone(),
                mac: endpoint.mac.clone(),
                labels: [("docker_network".to_owned(), asked.network.clone())].into(),
                replace: true,
                routed_by_runtime: true,
            };
            match agent.add(wanted) {
                Ok(attached) => break attached,
                Err(error)
                    if error.kind() == Some(Kind::InterfaceTaken)
                        && endpoint.wanted.is_none()
                        && number < MOST =>
                {
                    number += 1;
                }
                Err(error) => return Err(error.into()),
            }
        };
        Ok(joined(&attached))
    }

    fn leave(&self, question: &Value) -> Result<Value, Trouble> {
        let asked: OfEndpoint = understood(question)?;
        if let Some(mut endpoint) = self.endpoints.get(&asked.endpoint)? {
            detach(&asked, &endpoint)?;
            endpoint.interface = None;
            self.endpoints.put(&asked.endpoint, &endpoint)?;
        }
        Ok(json!({}))
    }
}

/// Docker does not say which container an endpoint is for.
fn key(asked: &OfEndpoint, interface: String) -> Key {
    let network = asked.network.get(..12).unwrap_or(&asked.network);
    Key {
        source: format!("docker:{network}"),
        container: asked.endpoint.clone(),
        interface,
    }
}

/// Without a name of an interface Docker moves none.
fn joined(attached: &Attached) -> Value {
    let mut answer = Map::new();
    let names = json!({ "SrcName": "", "DstPrefix": "" });
    answer.insert("InterfaceName".to_owned(), names);
    for address in &attached.addresses {
        let field = if address.gateway.is_ipv6() {
            "GatewayIPv6"
        } else {
            "Gateway"
        };
        answer.insert(field.to_owned(), json!(address.gateway));
    }
    Value::Object(answer)
}

fn detach(asked: &OfEndpoint, endpoint: &Endpoint) -> Result<(), Trouble> {
    let Some(interface) = &endpoint.interface else {
        return Ok(());
    };
    let agent = match Agent::find(Some(&endpoint.network.instance)) {
        // Where no agent has ever been there is nothing to detach from.
        Err(error) if error.never_ran() => return Ok(()),
        agent => agent?,
    };
    if let Some(why) = agent.delete(&key(asked, interface.clone()))? {
        eprintln!(
            "overlay-docker: {why}; the agent detaches endpoint {} when it starts",
            asked.endpoint
        );
    }
    Ok(())
}

fn refuse_ports(question: &Value) -> Result<Value, Trouble> {
    let asked: OfEndpoint = understood(question)?;
    if publishes(&asked.options) {
        return Err(Trouble::Ports);
    }
    Ok(json!({}))
}
