//! netavark's plugin protocol, version 1.0.0 (`plugin-API.md` of containers/netavark).
//!
//! podman asks `create` when a network is made, netavark `setup` and `teardown` for each container.
//! An error is `{"error": …}` on standard output, with exit code 1.

use std::{collections::BTreeMap, io::Read as _, net::IpAddr, process::ExitCode};

use overlay_api::{Attached, Key, Request, Wanted, client::Agent, netns};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::detach;

/// Newest version of the protocol; 1.0.0 since netavark 1.6.
const API_VERSION: &str = "1.0.0";

type Result<T> = std::result::Result<T, String>;

/// The command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Create,
    Setup,
    Teardown,
    Info,
}

impl Verb {
    pub(crate) fn from_argument(argument: &str) -> Option<Self> {
        match argument {
            "create" => Some(Self::Create),
            "setup" => Some(Self::Setup),
            "teardown" => Some(Self::Teardown),
            "info" => Some(Self::Info),
            _ => None,
        }
    }
}

/// Input of `setup` and `teardown`; fields that this plugin does not read are left out.
#[derive(Deserialize)]
struct Asked {
    container_id: String,
    container_name: Option<String>,
    port_mappings: Option<Vec<Value>>,
    network: Network,
    network_options: Options,
}

#[derive(Deserialize)]
struct Network {
    name: String,
    options: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Options {
    interface_name: String,
    static_ips: Option<Vec<IpAddr>>,
    static_mac: Option<String>,
}

impl Asked {
    fn read() -> Result<Self> {
        serde_json::from_value(input()?).map_err(|error| format!("understand the input: {error}"))
    }

    fn key(&self) -> Key {
        Key {
            source: format!("netavark:{}", self.network.name),
            container: self.container_id.clone(),
            interface: self.network_options.interface_name.clone(),
        }
    }

    fn option(&self, name: &str) -> Option<&str> {
        let options = self.network.options.as_ref()?;
        options.get(name).map(String::as_str)
    }
}

pub(crate) fn run(verb: Verb, netns: Option<&str>) -> ExitCode {
    let done = match verb {
        Verb::Info => Ok(Some(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "api_version": API_VERSION,
        }))),
        Verb::Create => create().map(Some),
        Verb::Setup => setup(netns).map(Some),
        Verb::Teardown => teardown().map(|()| None),
    };
    match done {
        Ok(answer) => {
            if let Some(answer) = answer {
                println!("{answer}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{}", json!({ "error": error }));
            ExitCode::FAILURE
        }
    }
}

/// Addresses are the agent's to give, and so is the network's name.
fn create() -> Result<Value> {
    let mut network = input()?;
    let fields = network.as_object_mut();
    let fields = fields.ok_or("understand the network: it is not an object")?;
    if fields
        .get("subnets")
        .and_then(Value::as_array)
        .is_some_and(|subnets| !subnets.is_empty())
    {
        return Err(
            "create the network: the agent gives the addresses of its own subnet; leave --subnet, \
             --gateway and --ip-range out"
                .to_owned(),
        );
    }
    if fields.get("internal") == Some(&Value::Bool(true)) {
        return Err(
            "create the network: the overlay does not keep containers from the world by itself; \
             leave --internal out, and see masquerade in the agent's configuration"
                .to_owned(),
        );
    }
    let option = |fields: &Map<String, Value>, name: &str| {
        let options = fields.get("options")?;
        Some(options.get(name)?.as_str()?.to_owned())
    };
    let wanted = option(fields, "network");
    let agent = Agent::find(option(fields, "instance").as_deref());
    let agent = agent.map_err(|error| error.to_string())?;
    let request = Request::AttachmentReady { network: wanted };
    agent.tell(&request).map_err(|error| error.to_string())?;
    // Else podman would give addresses, and have a name server listen on a bridge that is not there.
    fields.insert("dns_enabled".to_owned(), Value::Bool(false));
    fields.insert("ipam_options".to_owned(), json!({ "driver": "none" }));
    fields.remove("subnets");
    Ok(network)
}

fn setup(netns: Option<&str>) -> Result<Value> {
    let asked = Asked::read()?;
    if asked
        .port_mappings
        .as_ref()
        .is_some_and(|ports| !ports.is_empty())
    {
        return Err(format!(
            "publish ports of container {}: netavark leaves them to its plugin, and the overlay \
             publishes none; start it without -p",
            asked.container_id
        ));
    }
    let path =
        netns.ok_or("set up the container: its namespace is missing as the second argument")?;
    let found = netns::look(path).map_err(|error| format!("look at namespace {path}: {error}"))?;
    let agent = Agent::find(asked.option("instance")).map_err(|error| error.to_string())?;
    let name = asked.container_name.clone();
    let wanted = Wanted {
        key: asked.key(),
        network: asked.option("network").map(str::to_owned),
        netns: found,
        addresses: asked.network_options.static_ips.clone().unwrap_or_default(),
        mac: asked.network_options.static_mac.clone(),
        labels: name
            .map(|name| ("name".to_owned(), name))
            .into_iter()
            .collect(),
        replace: true,
        routed_by_runtime: false,
    };
    let attached = agent.add(wanted).map_err(|error| error.to_string())?;
    Ok(status_block(&attached))
}

/// netavark's `StatusBlock`.
fn status_block(attached: &Attached) -> Value {
    let subnets = attached.addresses.iter().map(|address| {
        let mut subnet = Map::new();
        subnet.insert("ipnet".to_owned(), json!(address.net));
        if address.default_route {
            subnet.insert("gateway".to_owned(), json!(address.gateway));
        }
        Value::Object(subnet)
    });
    let subnets: Vec<Value> = subnets.collect();
    let interface = json!({ "mac_address": attached.mac, "subnets": subnets });
    let mut interfaces = Map::new();
    interfaces.insert(attached.key.interface.clone(), interface);
    let (search, servers) = match &attached.dns {
        Some(dns) => (dns.search.as_slice(), dns.servers.as_slice()),
        None => (&[][..], &[][..]),
    };
    json!({ "dns_search_domains": search, "dns_server_ips": servers, "interfaces": interfaces })
}

fn teardown() -> Result<()> {
    let asked = Asked::read()?;
    match Agent::find(asked.option("instance")) {
        Ok(agent) => detach(&agent, &asked.key()).map_err(|error| error.to_string()),
        // Where no agent has ever been there is nothing to detach from.
        Err(error) if error.never_ran() => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

fn input() -> Result<Value> {
    let mut text = String::new();
    let read = std::io::stdin().read_to_string(&mut text);
    read.map_err(|error| format!("read the input: {error}"))?;
    serde_json::from_str(&text).map_err(|error| format!("understand the input: {error}"))
}
