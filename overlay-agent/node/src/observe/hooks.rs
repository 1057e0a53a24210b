//! Programs and hooks of others on the kernel's path.

use std::collections::{BTreeMap, BTreeSet};

use overlay_core::{
    desired::underlay_devices,
    model::{Family, IfName, Model},
    surroundings::{ForeignHook, Side, Surroundings},
};
use overlay_kernel::{self as kernel, bpf::AtDevice, netlink::LinkInfo, xfrm};

use crate::node::Node;

/// The hooks found at devices, until an event says that they may have changed.
#[derive(Default)]
pub(super) struct Hooks {
    at: BTreeMap<(IfName, u32), AtDevice>,
}

impl Hooks {
    pub(super) fn forget_all(&mut self) {
        self.at.clear();
    }

    pub(super) fn forget(&mut self, device: IfName) {
        self.at.retain(|(name, _), _| *name != device);
    }

    fn update(&mut self, node: &Node, devices: &BTreeSet<(IfName, u32)>) -> kernel::Result<()> {
        self.at.retain(|device, _| devices.contains(device));
        let unknown = devices
            .iter()
            .filter(|device| !self.at.contains_key(device));
        let unknown: Vec<(IfName, u32)> = unknown.copied().collect();
        self.at.extend(node.hooked_in(&unknown)?);
        Ok(())
    }
}

/// At our devices and at the underlay's.
pub(super) async fn observe(
    node: &Node,
    model: &Model,
    ours: &[&LinkInfo],
    known: &mut Hooks,
    around: &mut Surroundings,
) -> kernel::Result<()> {
    let underlay = underlay_devices(&model.node.underlay, &around.links);
    let underlay = underlay.into_iter().filter_map(|name| {
        let link = around.links.get(&name)?;
        Some((name, link.index))
    });
    let devices = ours.iter().map(|link| (link.name, link.index));
    known.update(node, &underlay.chain(devices).collect())?;
    for ((device, index), at) in &known.at {
        around
            .programs
            .insert((*device, *index), at.programs.clone());
        if !at.foreign.is_empty() {
            around.hooks.insert(*device, at.foreign.clone());
        }
    }
    for link in ours.iter().filter(|link| link.faces_xdp) {
        // A redirected packet is the other side's at once, behind its driver.
        let hooks = around.hooks.entry(link.name).or_default();
        hooks.push(ForeignHook {
            side: Side::Egress,
            what: "native XDP on the other side".to_owned(),
            spares_redirected: false,
        });
    }
    around.policies = match xfrm::policies() {
        // Whoever may not ask hears from doctor what it lacks.
        Err(error) if error.is_denied() => Vec::new(),
        found => found?,
    };
    for family in Family::ALL {
        let rules = node.netlink.routing_rules(family).await?;
        around.routing.rules.insert(family, rules);
    }
    Ok(())
}
