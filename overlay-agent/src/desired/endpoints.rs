//! An endpoint's veth, address, default route and map entries.

use std::net::{IpAddr, Ipv4Addr};

use bytemuck::Zeroable as _;
use ipnet::{IpNet, Ipv4Net};
use overlay_common::maps;

use super::{Derived, Desired, Node, Problem, address_of, names, networks};
use crate::{
    model::{Endpoint, IfName, Mac, NetnsRef},
    objects::{
        Address, AttachmentState, EndpointEntry, Hook, Link, LinkId, LinkKind, LinkRef, Objects,
        Route, RouteKey, Scope,
    },
    surroundings::EndpointPlace,
};

/// An endpoint with what was derived for it.
struct Attached<'a> {
    node: &'a Node<'a>,
    derived: &'a Derived<'a>,
    endpoint: &'a Endpoint,
    address: Ipv4Addr,
    mac: Mac,
    /// The node's side of its veth.
    host: IfName,
    /// The container's side.
    inside: LinkId,
}

pub(super) fn build(
    node: &Node<'_>,
    derived: &Derived<'_>,
    endpoint: &Endpoint,
    desired: &mut Desired,
) {
    let name = &endpoint.name;
    let Some(address) = address_of(node.inputs.store, endpoint) else {
        desired.problems.push(Problem::NoAddress {
            endpoint: name.clone(),
            subnet: derived.network.subnet,
        });
        return;
    };
    let (Some(host), Some(mac)) = (names::veth_name(name), names::endpoint_mac(address)) else {
        return;
    };
    if let Some(problem) = problem(node, endpoint, &LinkId::node(host), desired) {
        desired.problems.push(problem);
        return;
    }
    let inside = LinkId {
        scope: Scope::Endpoint(name.clone()),
        name: endpoint.interface,
    };
    let attached = Attached {
        node,
        derived,
        endpoint,
        address,
        mac,
        host,
        inside,
    };
    attached.add_devices(&mut desired.objects);
    attached.add_default_route(desired);
    attached.add_entries(&mut desired.objects);
}

impl Attached<'_> {
    fn add_devices(&self, objects: &mut Objects) {
        if let NetnsRef::Name(netns) = &self.endpoint.netns {
            objects.namespaces.insert(netns.clone());
        }
        let mtu = u32::from(self.derived.mtu);
        objects.links.insert(
            LinkId::node(self.host),
            Link {
                kind: LinkKind::Veth {
                    peer: self.inside.clone(),
                },
                mac: None,
                mtu,
                up: true,
                master: Some(self.derived.bridge),
                alias: Some(names::endpoint_alias(
                    self.node.instance,
                    &self.endpoint.name,
                )),
            },
        );
        objects.links.insert(
            self.inside.clone(),
            Link {
                kind: LinkKind::VethPeer { host: self.host },
                mac: Some(self.mac),
                mtu,
                up: true,
                master: None,
                alias: None,
            },
        );
        objects.addresses.insert(Address {
            link: self.inside.clone(),
            net: networks::prefixed(self.address, self.derived.network.subnet),
        });
    }

    fn add_default_route(&self, desired: &mut Desired) {
        let place = self.node.around.endpoints.get(&self.endpoint.name);
        if let Some(EndpointPlace::There {
            default_route: Some(device),
            ..
        }) = place
        {
            desired.problems.push(Problem::OtherDefaultRoute {
                endpoint: self.endpoint.name.clone(),
                device: device.clone(),
            });
            return;
        }
        let key = RouteKey {
            scope: self.inside.scope.clone(),
            destination: IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
        };
        let route = Route {
            dev: self.endpoint.interface,
            via: IpAddr::V4(self.derived.network.gateway()),
            onlink: false,
            source: None,
        };
        desired.objects.routes.insert(key, route);
    }

    fn add_entries(&self, objects: &mut Objects) {
        let vni = self.derived.network.vni;
        // Only a network that the programs carry is in the maps.
        let Some(&network) = objects.entries.networks.get(&vni) else {
            return;
        };
        let link = LinkRef::Name(self.host);
        let entry = EndpointEntry {
            link,
            mac: self.mac,
        };
        let key = (vni, IpAddr::V4(self.address));
        objects.entries.endpoints.insert(key, entry);
        let port = maps::Port {
            network,
            address: self.address.octets(),
            mac: self.mac.octets(),
            ..maps::Port::zeroed()
        };
        objects.entries.ports.insert(link, port);
        objects
            .attachments
            .insert((self.host, Hook::FromEndpoint), AttachmentState::Current);
    }
}

/// Why an endpoint cannot be attached.
fn problem(
    node: &Node<'_>,
    endpoint: &Endpoint,
    host: &LinkId,
    desired: &Desired,
) -> Option<Problem> {
    let name = endpoint.name.clone();
    let path = endpoint.netns.path();
    if desired.objects.links.contains_key(host) {
        return Some(Problem::SameDeviceName {
            endpoint: name,
            device: host.name,
        });
    }
    if node
        .around
        .links
        .get(&host.name)
        .is_some_and(|link| !link.ours)
    {
        return Some(Problem::DeviceTaken {
            endpoint: name,
            device: host.name,
        });
    }
    match node.around.endpoints.get(&name) {
        Some(EndpointPlace::Node) => Some(Problem::NodeNamespace {
            endpoint: name,
            path,
        }),
        Some(EndpointPlace::There {
            interface_taken: true,
            ..
        }) => Some(Problem::InterfaceTaken {
            endpoint: name,
            interface: endpoint.interface,
            path,
        }),
        Some(EndpointPlace::There { .. }) => None,
        Some(EndpointPlace::Absent) | None => match endpoint.netns {
            // It will be made.
            NetnsRef::Name(_) => None,
            NetnsRef::Path(_) | NetnsRef::Pid(_) => Some(Problem::NoNamespace {
                endpoint: name,
                path,
            }),
        },
    }
}
