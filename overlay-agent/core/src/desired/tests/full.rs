//! Maps that have no room for all.

use super::{CONFIG, bare, build_within, name};
use crate::{
    desired::{Desired, Problem},
    objects::{Capacity, Hook, LinkId},
};

#[test]
fn what_a_full_map_has_no_room_for_is_left_to_the_kernel_or_refused() {
    let all = Capacity::default();
    let left_out = |capacity| {
        let Desired {
            objects, problems, ..
        } = build_within(CONFIG, &bare(), capacity).unwrap();
        // The other peer has no way.
        let problems = problems.into_iter();
        let problems = problems.filter(|problem| !matches!(problem, Problem::NoWay { .. }));
        (objects, problems.collect::<Vec<_>>())
    };
    let veth = LinkId::node(name("ovl-web"));
    let program = (name("ovl-web"), Hook::FromEndpoint);

    let (objects, problems) = left_out(Capacity {
        endpoints: [0; 2],
        ..all
    });
    assert!(matches!(problems[..], [Problem::AddressesLeftOut { .. }]));
    assert!(objects.entries.endpoints.is_empty());
    assert!(objects.links.contains_key(&veth) && objects.attachments.contains_key(&program));

    for tunnels in [1, 0] {
        let (objects, problems) = left_out(Capacity {
            ports: tunnels,
            ..all
        });
        let refused = |problem: &Problem| matches!(problem, Problem::EndpointLeftOut { .. });
        assert!(problems.iter().any(refused), "{problems:?}");
        assert!(!objects.links.contains_key(&veth) && objects.namespaces.is_empty());
        assert_eq!(objects.entries.ports.len(), tunnels);
    }

    let (objects, problems) = left_out(Capacity { networks: 0, ..all });
    assert!(matches!(problems[..], [Problem::NetworkLeftOut { .. }]));
    assert!(objects.entries.networks.is_empty() && objects.links.contains_key(&veth));
    assert!(!objects.attachments.contains_key(&program));

    let (objects, problems) = left_out(Capacity { cidrs: 0, ..all });
    assert!(matches!(problems[..], [Problem::RangeLeftOut { .. }]));
    assert!(objects.entries.cidrs.is_empty() && objects.attachments.contains_key(&program));
}
