//! Whether an attachment is as its runtime believes.

use ipnet::IpNet;
use overlay_api::{Believed, Kind};
use overlay_core::{
    desired::veth_name,
    model::{Endpoint, Family},
};
use overlay_kernel::{self as kernel, netlink::Netlink};

use super::{Reconciler, Result, refused};

impl Reconciler {
    pub(super) async fn check(&mut self, believed: &Believed) -> Result<()> {
        let container = &believed.key.container;
        let what = format!("check container {container}");
        let Some(there) = self.by_key(&believed.key) else {
            return Err(refused(
                Kind::NotFound,
                format!("{what}: it is not attached; start it again"),
            ));
        };
        let found = self.same_namespace(&believed.netns, &what)?;
        if !self.store.content().is_bound(&there.name, found) {
            let text = format!(
                "{what}: endpoint {} is in another namespace; start it again",
                there.name
            );
            return Err(refused(Kind::ExistsElsewhere, text));
        }
        // What is there now, not what a round has seen.
        let missing = missing(&there, believed).await;
        let missing = missing.map_err(|error| refused(Kind::Failed, format!("{what}: {error}")))?;
        let host = veth_name(&there.name);
        let attached = self.attached(&there, true).is_some();
        match (missing, host) {
            (None, _) if attached => Ok(()),
            (None, Some(host)) => Err(refused(
                Kind::Differs,
                format!("{what}: {host} is not connected; see \"overlay-agent status\""),
            )),
            (missing, _) => Err(refused(
                Kind::Differs,
                format!(
                    "{what}: {} has no {}; put it back, or start the container again",
                    there.interface,
                    missing.unwrap_or_default()
                ),
            )),
        }
    }
}

/// The first thing that an endpoint's interface lacks now.
async fn missing(endpoint: &Endpoint, believed: &Believed) -> kernel::Result<Option<String>> {
    let path = endpoint.netns.path();
    let netlink = Netlink::open_in(&path)?;
    let interface = endpoint.interface.as_str();
    let Some(link) = netlink.link_by_name(interface).await? else {
        return Ok(Some("device".to_owned()));
    };
    let addresses = netlink.addresses().await?;
    let has = |wanted: &_| {
        let mut there = addresses.iter();
        there.any(|address| address.index == link.index && address.net == *wanted)
    };
    if let Some(address) = believed.addresses.iter().find(|address| !has(*address)) {
        return Ok(Some(format!("address {address}")));
    }
    for family in Family::ALL {
        let routes = netlink.routes(family).await?;
        let leads = |wanted: &&IpNet| {
            let mut there = routes.iter();
            there.any(|route| route.oif == Some(link.index) && route.destination == **wanted)
        };
        let mut wanted = believed.routes.iter();
        let of_family = |net: &&IpNet| Family::of(net.addr()) == family;
        if let Some(route) = wanted.find(|net| of_family(net) && !leads(net)) {
            return Ok(Some(format!("route to {route}")));
        }
    }
    Ok(None)
}
