//! The devices of chains, which nft up to 1.0.6 leaves out of its JSON.

use std::{collections::BTreeMap, io};

use serde_json::Value;

use super::dump::{CHAIN_NAME, INET, Kind, NETDEV, OF_TABLE, attribute, attributes, dump_of, name};

/// `NFTA_CHAIN_HOOK`
const HOOK: u16 = 4;
/// `NFTA_HOOK_DEV`, `NFTA_HOOK_DEVS`, and `NFTA_DEVICE_NAME` in that.
const DEVICE: u16 = 3;
const DEVICES: u16 = 4;
const DEVICE_NAME: u16 = 1;

/// Family, table and chain.
type Chain = (&'static str, String, String);

/// Writes into listed chains at devices whose they are, where the listing lacks it.
pub(super) fn name_devices(objects: &mut [Value]) -> io::Result<()> {
    let lacks = |object: &&mut Value| {
        let chain = &object["chain"];
        let at_device = matches!(chain["hook"].as_str(), Some("ingress" | "egress"));
        at_device && chain["dev"].is_null()
    };
    let mut lacking = objects.iter_mut().filter(lacks).peekable();
    if lacking.peek().is_none() {
        return Ok(());
    }
    let mut known = BTreeMap::new();
    for (family, word) in [(NETDEV, "netdev"), (INET, "inet")] {
        let chains = dump_of(family, Kind::Chains, &[])?;
        known.extend(chains.iter().filter_map(|chain| devices(word, chain)));
    }
    for object in lacking {
        let chain = &mut object["chain"];
        let text = |field: &str| chain[field].as_str().unwrap_or_default().to_owned();
        let found = known.iter().find(|((family, table, name), _)| {
            *family == text("family") && *table == text("table") && *name == text("name")
        });
        if let Some((_, devices)) = found {
            chain["dev"] = devices.as_slice().into();
        }
    }
    Ok(())
}

/// The devices of a chain of a hook.
fn devices(family: &'static str, chain: &[u8]) -> Option<(Chain, Vec<String>)> {
    let hook = attribute(chain, HOOK)?;
    let all = attribute(hook, DEVICES).unwrap_or_default();
    let mut devices: Vec<String> = attributes(all)
        .filter(|(kind, _)| *kind == DEVICE_NAME)
        .filter_map(|(_, value)| std::str::from_utf8(value.strip_suffix(&[0])?).ok())
        .map(str::to_owned)
        .collect();
    if devices.is_empty() {
        devices.extend(name(hook, DEVICE).map(str::to_owned));
    }
    let own = |wanted: u16| name(chain, wanted).map(str::to_owned);
    Some(((family, own(OF_TABLE)?, own(CHAIN_NAME)?), devices))
}
