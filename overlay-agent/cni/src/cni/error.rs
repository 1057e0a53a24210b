//! Errors with CNI's codes.

use overlay_api::{
    Kind,
    client::{NoAnswer, NoInstance},
};
use serde_json::{Value, json};

use super::VERSIONS;

/// Codes of the specification up to 99; ours from 100 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    Version = 1,
    Unsupported = 2,
    UnknownContainer = 3,
    Environment = 4,
    Io = 5,
    Decode = 6,
    Config = 7,
    /// `ErrInvalidNetNS` of libcni.
    Namespace = 8,
    TryAgain = 11,
    Unavailable = 50,
    InterfaceTaken = 100,
    AddressTaken = 101,
    Full = 102,
    Differs = 103,
    Failed = 104,
    ExistsElsewhere = 105,
}

#[derive(Debug)]
pub(super) struct Error {
    pub(super) code: Code,
    message: String,
}

impl Error {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// As it stands on standard output, in the version that was asked with.
    pub(super) fn answer(&self, version: Option<&str>) -> Value {
        let version = version.unwrap_or(VERSIONS[VERSIONS.len() - 1]);
        json!({
            "cniVersion": version,
            "code": self.code as u32,
            "msg": self.message,
        })
    }
}

impl From<NoAnswer> for Error {
    fn from(error: NoAnswer) -> Self {
        let code = match error.kind() {
            // Nobody answers now; somebody will.
            None | Some(Kind::Busy) => Code::TryAgain,
            Some(Kind::NotFound) => Code::UnknownContainer,
            Some(Kind::ExistsElsewhere | Kind::Alive) => Code::ExistsElsewhere,
            Some(Kind::InterfaceTaken) => Code::InterfaceTaken,
            Some(Kind::AddressTaken) => Code::AddressTaken,
            Some(Kind::Full) => Code::Full,
            Some(Kind::NoNetwork | Kind::Invalid) => Code::Config,
            Some(Kind::NoNamespace) => Code::Io,
            Some(Kind::NodeNamespace) => Code::Namespace,
            Some(Kind::Differs) => Code::Differs,
            Some(Kind::Failed) => Code::Failed,
        };
        Self::new(code, error.to_string())
    }
}

impl From<NoInstance> for Error {
    fn from(error: NoInstance) -> Self {
        let code = match error {
            NoInstance::None | NoInstance::Absent { .. } => Code::TryAgain,
            NoInstance::Several(_) | NoInstance::Name(_) => Code::Config,
            NoInstance::Unreadable { .. } => Code::Io,
        };
        Self::new(code, error.to_string())
    }
}
