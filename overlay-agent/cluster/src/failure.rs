//! Calls that fail: what, why, and what can be done.

use std::fmt;

use tonic::{Code, Status};

use crate::problem::Problem;

/// A call that failed.
#[derive(Debug)]
pub enum ClientError {
    /// The text is no URL.
    Url(String),
    /// The credentials are invalid.
    Access {
        /// The fault.
        what: String,
        /// The cure.
        cure: &'static str,
    },
    /// No connection.
    Connect {
        /// The member.
        url: String,
        /// Why.
        cause: String,
    },
    /// The member does not know this client's token any more, or has no token of it.
    Token {
        /// The call.
        call: &'static str,
        /// The member's words.
        cause: String,
    },
    /// It was refused, or the connection ended.
    Refused {
        /// The call.
        call: &'static str,
        /// The member's words.
        cause: String,
    },
    /// No answer in time.
    Timeout(&'static str),
}

impl std::error::Error for ClientError {}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem().fmt(f)
    }
}

const AWAY: &str =
    "start etcd, or correct cluster.etcd; all members are tried again every few seconds";
const OWN_CERTIFICATE: &str =
    "give in cluster.cert and cluster.key a certificate that the members' trusted CA has signed";

impl ClientError {
    /// The problem with its cure.
    pub fn problem(&self) -> Problem {
        let (what, cure) = match self {
            Self::Url(url) => (
                format!("{url:?} is not a URL of an etcd member"),
                "write it as http://192.0.2.1:2379",
            ),
            Self::Access { what, cure } => (format!("connect to etcd: {what}"), *cure),
            Self::Connect { url, cause } => (
                format!("connect to etcd at {url}: {cause}"),
                of_connection(cause),
            ),
            Self::Token { call, cause } | Self::Refused { call, cause } => {
                (format!("{call} in etcd: {cause}"), of_refusal(cause))
            }
            Self::Timeout(call) => (format!("{call} in etcd: no answer for 5 seconds"), AWAY),
        };
        Problem::new("etcd", what, cure)
    }

    /// From a member's answer.
    pub(crate) fn of(call: &'static str, status: &Status) -> Self {
        let message = status.message();
        let cause = match std::error::Error::source(status) {
            Some(source) => format!("{:?}: {message}: {}", status.code(), whole(source)),
            None => format!("{:?}: {message}", status.code()),
        };
        // A token of before users or roles were changed is as good as none.
        let old = status.code() == Code::Unauthenticated || message.contains("auth store is old");
        if old {
            Self::Token { call, cause }
        } else {
            Self::Refused { call, cause }
        }
    }
}

/// The cure when there is no connection.
fn of_connection(cause: &str) -> &'static str {
    let cures: [(&[&str], &str); 5] = [
        (
            &["UnknownIssuer", "BadSignature"],
            "give in cluster.ca the CA that has signed the members' certificates",
        ),
        (
            &["not valid for name", "NotValidForName"],
            "write the member in cluster.etcd by a name or an address that its certificate has",
        ),
        (
            &["Expired", "expired", "NotValidYet", "not valid yet"],
            "renew the member's certificate, or set this node's clock",
        ),
        (
            &["InvalidContentType"],
            "the member speaks no TLS, so write it as http:// in cluster.etcd",
        ),
        (
            &["fatal alert", "KeyMismatch", "InconsistentKeys"],
            OWN_CERTIFICATE,
        ),
    ];
    find(&cures, cause).unwrap_or(AWAY)
}

/// The cure when a member refuses something, or ends the connection.
fn of_refusal(cause: &str) -> &'static str {
    let cures: [(&[&str], &str); 6] = [
        (
            &["invalid user ID or password"],
            "correct cluster.user, or the password in cluster.password_file",
        ),
        (
            &["permission denied"],
            "grant the role that \"overlay-agent cluster init --config FILE --role\" prints to this node's user",
        ),
        (
            &["user name is empty", "invalid auth token"],
            "give cluster.user and cluster.password_file, because etcd demands a user",
        ),
        (
            &["no leader", "leader changed", "request timed out"],
            "the member has lost the others, so start enough of them for a majority",
        ),
        (&["fatal alert"], OWN_CERTIFICATE),
        (
            &["NOSPACE", "database space exceeded"],
            "make room in etcd: compact, defragment and disarm its alarm",
        ),
    ];
    find(&cures, cause).unwrap_or(AWAY)
}

fn find(cures: &[(&[&str], &'static str)], cause: &str) -> Option<&'static str> {
    let applies = |words: &[&str]| words.iter().any(|word| cause.contains(word));
    let mut cures = cures.iter();
    cures
        .find(|(words, _)| applies(words))
        .map(|(_, cure)| *cure)
}

/// An error with its causes.
pub(crate) fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some repeat what is below them.
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
