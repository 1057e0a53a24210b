//! The words for what two cannot both have.

use ipnet::IpNet;

use super::{ADDRESS_TAKEN, attach};
use crate::{
    desired::Whose,
    model::{Clash, IfName, Name},
    trouble::Trouble,
};

pub(super) fn of_clash(clash: &Clash) -> Trouble {
    let delete = |endpoint: &Name| format!("\"overlay-agent endpoint del {endpoint}\"");
    match clash {
        Clash::Name { endpoint, netns } => attach(
            endpoint,
            format!(
                "another container has that name, which was added at run time in {}",
                netns.path().display()
            ),
            format!(
                "choose another name, or delete that one with {}",
                delete(endpoint)
            ),
        ),
        Clash::Address {
            endpoint,
            address,
            by,
        } => attach(
            endpoint,
            format!("endpoint {by}, which was added at run time, has {address}"),
            format!(
                "choose another address, or delete that one with {}",
                delete(by)
            ),
        ),
        Clash::Interface {
            endpoint,
            interface,
            by,
        } => attach(
            endpoint,
            format!("{interface} in its namespace is endpoint {by}, which was added at run time"),
            format!(
                "choose another interface, or delete that one with {}",
                delete(by)
            ),
        ),
        Clash::Network {
            endpoint, network, ..
        } => attach(
            endpoint,
            format!("there is no network {network} any more, in which it was added at run time"),
            format!(
                "bring the network back, or delete it with {}",
                delete(endpoint)
            ),
        ),
        Clash::Subnet {
            endpoint,
            network,
            address,
            ..
        } => attach(
            endpoint,
            format!(
                "{address}, with which it was added at run time, is not in this node's subnet of \
                 network {network} any more"
            ),
            format!(
                "bring the subnet back, or delete it with {} and add it again",
                delete(endpoint)
            ),
        ),
    }
}

pub(super) fn address_taken(
    network: &Name,
    net: IpNet,
    device: IfName,
    owner: Option<&Name>,
    whose: &Whose,
) -> Trouble {
    let address = net.addr();
    let of = match owner {
        Some(owner) => format!("{device}, a device of instance {owner},"),
        None => format!("{device} of this node"),
    };
    let what = match whose {
        Whose::Endpoint(_) => {
            format!("{of} has {address}, too, and what the node gets for it stays on the node")
        }
        Whose::Own => format!(
            "{of} has {address}, which is in this node's subnet: a container can be given it, and \
             what the node gets for it would stay on the node"
        ),
        Whose::Peer(peer) => format!(
            "{of} has {address}, which is in peer {peer}'s subnet: a container there that has it \
             cannot be reached from this node"
        ),
    };
    let cure = match (owner, whose) {
        (Some(_), _) => "change the configuration of either".to_owned(),
        (None, Whose::Endpoint(_)) => format!(
            "remove it there with \"ip address del {net} dev {device}\", or give the container \
             another address"
        ),
        (None, _) => format!("remove it there with \"ip address del {net} dev {device}\""),
    };
    let trouble = Trouble::new(ADDRESS_TAKEN, address, what, cure);
    match whose {
        Whose::Endpoint(endpoint) => trouble
            .during(format!("reach endpoint {endpoint}"))
            .of_endpoint(endpoint),
        Whose::Own | Whose::Peer(_) => trouble.during(format!("network {network}")),
    }
}
