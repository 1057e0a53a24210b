//! How the kernel says no.

use std::io;

use nix::errno::Errno;
use rtnetlink::{
    packet_core::{NLM_F_ACK_TLVS, NetlinkMessage, NetlinkPayload, NlasIterator},
    packet_route::RouteNetlinkMessage,
};

use crate::KernelError;

/// The error number in words is the attribute of this type (`NLMSGERR_ATTR_MSG`).
const MESSAGE: u16 = 1;
/// With `NETLINK_CAP_ACK`, the header of the request precedes the attributes.
const REQUEST_HEADER: usize = 16;

/// A request that was not carried out.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(super) errno: Errno,
    text: Option<String>,
}

impl Refusal {
    /// The refusal in an answer; `None` when it is data or a success.
    pub(super) fn of(message: &NetlinkMessage<RouteNetlinkMessage>) -> Option<Self> {
        let (code, attributes) = match &message.payload {
            NetlinkPayload::Error(error) => (error.raw_code(), error.header.get(REQUEST_HEADER..)),
            NetlinkPayload::Done(done) => (done.code, Some(done.extended_ack.as_slice())),
            _ => return None,
        };
        if code >= 0 {
            return None;
        }
        let explained = message.header.flags & NLM_F_ACK_TLVS != 0;
        let text = attributes.filter(|_| explained).and_then(text);
        Some(Self {
            errno: Errno::from_raw(code.saturating_neg()),
            text,
        })
    }

    /// The connection ended before the answer came.
    pub(super) fn unanswered() -> Self {
        Self {
            errno: Errno::ECONNRESET,
            text: Some("the netlink socket is closed".to_owned()),
        }
    }

    /// The kernel's own sentence, where it has one for this.
    pub(crate) fn into_text(self) -> Option<String> {
        self.text
    }

    /// As the error of this layer.
    pub(crate) fn during(self, operation: impl Into<String>) -> KernelError {
        let error = KernelError::os(operation, self.errno);
        match self.text {
            Some(text) => error.because(text),
            None => error,
        }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(number) => Self {
                errno: Errno::from_raw(number),
                text: None,
            },
            None => Self {
                errno: Errno::EIO,
                text: Some(error.to_string()),
            },
        }
    }
}

fn text(attributes: &[u8]) -> Option<String> {
    let message = NlasIterator::new(attributes)
        .map_while(Result::ok)
        .find(|attribute| attribute.kind() == MESSAGE)?;
    let text = String::from_utf8_lossy(message.value());
    Some(text.trim_end_matches('\0').to_owned())
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;
    use rtnetlink::{packet_core::NetlinkMessage, packet_route::RouteNetlinkMessage};

    use super::Refusal;

    /// `NLMSG_ERROR` for a request of `kind`, with `flags` of its own.
    fn answer(code: i32, flags: u16, attributes: &[u8]) -> NetlinkMessage<RouteNetlinkMessage> {
        let length = u32::try_from(36 + attributes.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(2_u16.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(code.to_ne_bytes());
        bytes.extend([0; 16]);
        bytes.extend(attributes);
        NetlinkMessage::deserialize(&bytes).unwrap()
    }

    #[test]
    fn the_kernel_s_words_are_kept() {
        let mut attribute = 11_u16.to_ne_bytes().to_vec();
        attribute.extend(1_u16.to_ne_bytes());
        attribute.extend(b"no way\0\0");
        let refusal = Refusal::of(&answer(-22, 0x300, &attribute)).unwrap();
        assert_eq!(refusal.errno, Errno::EINVAL);
        assert_eq!(
            refusal.during("try").to_string(),
            "try: Invalid argument: no way"
        );
    }

    #[test]
    fn a_success_is_no_refusal() {
        assert!(Refusal::of(&answer(0, 0x100, &[])).is_none());
        let plain = Refusal::of(&answer(-17, 0x100, &[])).unwrap();
        assert_eq!(plain.during("try").to_string(), "try: File exists");
    }
}
