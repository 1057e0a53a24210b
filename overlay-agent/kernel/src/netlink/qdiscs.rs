//! Queueing disciplines, as far as it matters that there are some.

use std::collections::BTreeMap;

use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcHandle, TcHeader, TcMessage},
};

use super::blocking;
use crate::Result;

/// The qdisc of devices that have no queue.
const NOQUEUE: &str = "noqueue";
/// `TC_H_CLSACT`, which is `TC_H_INGRESS`, too.
const INGRESS: TcHandle = TcHandle {
    major: 0xffff,
    minor: 0xfff1,
};

/// The queueing disciplines of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Qdiscs {
    /// The kind of the one that what it sends waits in, unless nothing waits there.
    pub root: Option<String>,
    /// `ingress` or `clsact`: there may be filters.
    pub filters: Option<String>,
}

/// Those of all devices of the calling thread's namespace, by index.
pub fn qdiscs() -> Result<BTreeMap<u32, Qdiscs>> {
    let message = TcMessage::from_parts(TcHeader::default(), Vec::new());
    let answers = blocking::dump(RouteNetlinkMessage::GetQueueDiscipline(message))
        .map_err(|refusal| refusal.during("list queueing disciplines"))?;
    let mut found: BTreeMap<u32, Qdiscs> = BTreeMap::new();
    for answer in answers {
        let RouteNetlinkMessage::NewQueueDiscipline(message) = answer else {
            continue;
        };
        let kind = message.attributes.into_iter().find_map(|of| match of {
            TcAttribute::Kind(kind) => Some(kind),
            _ => None,
        });
        let of_device = found.entry(message.header.index.cast_unsigned());
        let of_device = of_device.or_default();
        if message.header.parent == TcHandle::ROOT {
            of_device.root = kind.filter(|kind| kind != NOQUEUE);
        } else if message.header.parent == INGRESS {
            of_device.filters = kind;
        }
    }
    Ok(found)
}
