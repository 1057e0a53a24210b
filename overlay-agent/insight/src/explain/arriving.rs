//! A packet from another node, as it comes to this one.

use overlay_control::explain::Received;
use overlay_core::objects::Hook;

use super::{
    case::{Place, Scene, Start},
    stage,
};

/// Bytes of the two MACs at the head of a frame.
const MACS: usize = 12;
/// The sender's, of which nothing depends: locally administered.
const SENDER: [u8; 6] = [0x02, 0x6f, 0x76, 0x6c, 0, 1];

pub(super) async fn start(known: &Scene<'_>, received: &Received) -> Result<Start, String> {
    let mut frame = hex::decode(&received.frame)
        .map_err(|error| format!("read the frame: {error}; give it in hexadecimal"))?;
    let to = stage::vtep(&frame).ok_or("read the frame: there is no IP in it")?;
    let links = &known.observed.around.links;
    let mut underlay = known.facts.underlay.iter().filter_map(|name| {
        let link = links.get(name)?;
        let has = link.addresses.iter().any(|net| net.addr() == to);
        Some((*name, link.index, has))
    });
    let Some((device, ifindex, _)) = underlay.find(|(_, _, has)| *has) else {
        return Err(format!(
            "cannot continue on the peer: node {} does not own {to}; ask the one that does: with --peer INSTANCE, or \
             --received there",
            known.model.node.name
        ));
    };
    let link = known.netlink.link_by_index(ifindex).await;
    let mac = link
        .map_err(|error| error.to_string())?
        .and_then(|link| link.mac)
        .ok_or_else(|| format!("cannot continue on the peer: its device {device} has no MAC"))?;
    // What the underlay writes on the way.
    let Some(macs) = frame.get_mut(..MACS) else {
        return Err("read the frame: it is too short".to_owned());
    };
    macs.copy_from_slice(&[mac, SENDER].concat());

    let attached = &known.observed.objects.attachments;
    let guards = [Hook::GuardNative, Hook::GuardGeneric];
    let guard = guards
        .into_iter()
        .find(|hook| attached.contains_key(&(device, *hook)));
    let hooks = guard.into_iter().chain([Hook::FromUnderlay]);
    let places = hooks.map(|hook| Place {
        hook,
        device,
        ifindex,
    });
    Ok(Start::Programs(places.collect(), frame))
}
