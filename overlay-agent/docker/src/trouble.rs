//! Why a question gets no answer. Docker prints the text to whoever gave the command.

use std::{io, net::IpAddr, path::PathBuf};

use hyper::StatusCode;
use ipnet::IpNet;
use overlay_api::client::{NoAnswer, NoInstance};

/// Tells what was tried, with what, why it failed, and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// The protocol has it, or will have it; here it does not exist.
    #[error("there is no {0} here")]
    NoMethod(String),
    /// It is not what the protocol says.
    #[error("understand the question: {0}; this driver is for Docker 28 and later")]
    Question(String),
    /// dockerd asks again when a driver ends before its answer, but has nothing left to send.
    #[error(
        "understand the question: it is empty, as Docker repeats it when the driver was ended before it could \
         answer; try again"
    )]
    Emptied,
    /// The thread ended.
    #[error("answer: {0}; see the log of overlay-docker")]
    Ended(String),
    #[error(transparent)]
    Instance(#[from] NoInstance),
    #[error(transparent)]
    Agent(#[from] NoAnswer),
    #[error("{operation} {}: {cause}; run overlay-docker as root", path.display())]
    Memory {
        operation: &'static str,
        path: PathBuf,
        cause: io::Error,
    },
    #[error("{0:?} is not an id of Docker's; ask with one")]
    Id(String),
    #[error(
        "create the network: Docker would give the addresses, and the agent has to; add \"--ipam-driver \
         overlay-agent\""
    )]
    OtherIpam,
    #[error(
        "create the network: the overlay does not keep containers from the world by itself; leave --internal \
         out, and see masquerade in the agent's configuration"
    )]
    Internal,
    #[error(
        "create the network: there is no option {0:?}; \"network\" and \"instance\" can be set"
    )]
    Option(String),
    #[error(
        "create the network: the agent has {networks}; name one of them with \"--ipam-opt network=NAME\""
    )]
    WhichNetwork { networks: String },
    #[error(
        "create the network: network {network} has no addresses {asked}; it has {has}; choose that subnet"
    )]
    OtherSubnet {
        network: String,
        asked: String,
        has: String,
    },
    #[error(
        "create the network: network {0} has IPv4 and IPv6, and Docker would switch the other one off inside; add \
         --ipv6, and leave --ipv4=false out"
    )]
    OneFamily(String),
    #[error(
        "create the network: the agent gives addresses of all of its subnet; leave --ip-range out, and ask for \
         single ones with --ip"
    )]
    Part,
    #[error("create the network: its gateway is {is}, not {asked}; leave --gateway out")]
    Gateway { asked: IpAddr, is: IpNet },
    #[error("find pool {0:?}: it is none of this driver's; create the network again")]
    Pool(String),
    #[error("find network {0}: this driver does not know it; remove it, and create it again")]
    NoNetwork(String),
    #[error("find endpoint {0}: this driver does not know it; start the container again")]
    NoEndpoint(String),
    #[error(
        "publish ports of the container: Docker leaves them to the network's driver, and the overlay publishes \
         none; start it without -p, or connect it to a bridge network too and publish there"
    )]
    Ports,
    #[error("look at namespace {}: {cause}; the container has to run", path.display())]
    Namespace { path: PathBuf, cause: io::Error },
}

impl Trouble {
    /// Docker takes 404 for a driver that is older than itself, and goes on.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::NoMethod(_) => StatusCode::NOT_FOUND,
            _ => StatusCode::OK,
        }
    }
}
