//! How long packets may be that are merged on a device, or sent by it in one piece (BIG TCP).

use nix::errno::Errno;
use rtnetlink::packet_route::link::LinkAttribute;

use super::{
    Netlink,
    links::{numbered, of},
};
use crate::{KernelError, Result};

/// `GSO_LEGACY_MAX_SIZE`, which devices are born with: longer packets have a length that no header
/// can tell. A tunnel's would have to.
const MOST: u32 = 65_536;

impl Netlink {
    /// Whether those of a device in another namespace are too big for tunnels; of that namespace the
    /// number is given that this one has for it. False where there is no such device any more.
    pub async fn has_big_sizes(&self, namespace: i32, index: u32) -> Result<bool> {
        let mut message = numbered(index);
        // `IFLA_TARGET_NETNSID` of newer headers.
        let attribute = LinkAttribute::IfNetnsId(namespace);
        message.attributes.push(attribute);
        let device = format!("with ifindex {index} in namespace {namespace}");
        let there = match self.link_message(message, &device).await {
            // It has gone with its namespace (`rtnl_get_net_ns_capable()`).
            Err(error) if error.errno() == Some(Errno::EINVAL as i32) => None,
            there => there?,
        };
        Ok(there.is_some_and(|there| are_too_big(&there.attributes)))
    }

    /// Brings sizes that are too big for tunnels back to what devices are born with; smaller ones
    /// stay.
    pub async fn limit_sizes(&self, index: u32) -> Result<()> {
        let device = format!("with ifindex {index}");
        let Some(there) = self.link_message(numbered(index), &device).await? else {
            return Err(KernelError::os(
                format!("look at device {device}"),
                Errno::ENODEV,
            ));
        };
        let mut message = of(index);
        message.attributes = limited(&there.attributes);
        self.set(message, |device| {
            format!("set device {device} gso_max_size gro_max_size")
        })
        .await
    }
}

/// Whether any of the sizes is greater.
pub(super) fn are_too_big(attributes: &[LinkAttribute]) -> bool {
    !limited(attributes).is_empty()
}

/// The sizes that are greater, as they should be. A kernel that does not tell of one cannot be given
/// it either.
pub(super) fn limited(attributes: &[LinkAttribute]) -> Vec<LinkAttribute> {
    let limited = attributes.iter().filter_map(|attribute| match *attribute {
        LinkAttribute::GsoMaxSize(size) => (size > MOST).then_some(LinkAttribute::GsoMaxSize(MOST)),
        LinkAttribute::GroMaxSize(size) => (size > MOST).then_some(LinkAttribute::GroMaxSize(MOST)),
        LinkAttribute::GsoIpv4MaxSize(size) => {
            (size > MOST).then_some(LinkAttribute::GsoIpv4MaxSize(MOST))
        }
        LinkAttribute::GroIpv4MaxSize(size) => {
            (size > MOST).then_some(LinkAttribute::GroIpv4MaxSize(MOST))
        }
        _ => None,
    });
    limited.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_smaller_stays() {
        let there = [
            LinkAttribute::GsoMaxSize(180_000),
            LinkAttribute::GroMaxSize(65_536),
            LinkAttribute::GsoIpv4MaxSize(9_000),
            LinkAttribute::GroIpv4MaxSize(65_537),
            LinkAttribute::TsoMaxSize(524_280),
        ];
        let expected = [
            LinkAttribute::GsoMaxSize(MOST),
            LinkAttribute::GroIpv4MaxSize(MOST),
        ];
        assert_eq!(limited(&there), expected);
        assert!(are_too_big(&there));
        assert!(!are_too_big(&expected));
    }
}
