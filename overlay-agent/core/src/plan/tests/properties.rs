//! What holds for any two states.

use proptest::prelude::{Strategy, any, proptest};

use super::node;
use crate::{
    objects::Objects,
    plan::{Step, plan},
};

/// A node of which parts are missing.
fn partial() -> impl Strategy<Value = Objects> {
    any::<[bool; 7]>().prop_map(
        |[
            bridge,
            vxlan,
            veth,
            addresses,
            neighbours,
            routes,
            attachments,
        ]| {
            let mut objects = node();
            objects.links.retain(|id, _| match id.name.as_str() {
                "ovlbr1" => bridge,
                "ovl1" => vxlan,
                _ => veth,
            });
            if !addresses {
                objects.addresses.clear();
            }
            if !neighbours {
                objects.peers.neighbours.clear();
            }
            if !routes {
                objects.peers.routes.clear();
            }
            if !attachments {
                objects.attachments.clear();
            }
            objects
        },
    )
}

proptest! {
    #[test]
    fn a_device_exists_before_it_is_used(observed in partial(), desired in partial()) {
        let mut there: Vec<_> = observed.links.keys().cloned().collect();
        for step in plan(&observed, &desired).steps() {
            if let (Some(id), Step::AddAddress { .. } | Step::ChangeLink { .. } | Step::Attach { .. }) =
                (step.device(), step)
                && desired.links.contains_key(&id)
            {
                assert!(there.contains(&id), "{step}");
            }
            match step {
                Step::CreateLink { id, link, .. } => {
                    there.push(id.clone());
                    if let crate::objects::LinkKind::Veth { peer } = &link.kind {
                        there.push(peer.clone());
                    }
                }
                Step::DeleteLink { id } => there.retain(|other| other != id),
                _ => {}
            }
        }
    }
}
