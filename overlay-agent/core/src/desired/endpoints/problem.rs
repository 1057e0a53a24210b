//! Why an endpoint cannot be attached.

use super::super::{Desired, Node, Problem};
use crate::{
    model::{Endpoint, NetnsRef},
    objects::LinkId,
    surroundings::EndpointPlace,
};

/// Why an endpoint cannot be attached.
pub(in crate::desired) fn problem(
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
    if node.is_of_others(host.name) {
        return Some(Problem::DeviceTaken {
            endpoint: name,
            device: host.name,
            owner: node.owner_of(host.name),
        });
    }
    match node.around.endpoints.get(&name) {
        Some(EndpointPlace::Node) => Some(Problem::NodeNamespace {
            endpoint: name,
            path,
            other: None,
        }),
        Some(EndpointPlace::OtherNode(other)) => Some(Problem::NodeNamespace {
            endpoint: name,
            path,
            other: Some(other.clone()),
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
            NetnsRef::Pid(pid) => {
                let mut added = node.inputs.store.endpoints.iter();
                let added = added.any(|other| other.name == endpoint.name);
                Some(Problem::ProcessEnded {
                    endpoint: name,
                    pid,
                    added_to: added.then(|| node.instance.clone()),
                })
            }
            NetnsRef::Path(_) => Some(Problem::NoNamespace {
                endpoint: name,
                path,
            }),
        },
    }
}
