//! The one error of this layer.

use std::{borrow::Cow, fmt, io};

use nix::errno::Errno;

/// The result of this layer's functions.
pub type Result<T, E = KernelError> = std::result::Result<T, E>;

/// Something that the kernel did not do: `add route 10.244.2.0/24 dev ovl1: Network is down`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct KernelError {
    operation: String,
    cause: String,
    errno: Option<Errno>,
    cure: Option<Cow<'static, str>>,
    /// Whether privileges are missing, where no system call has said so.
    denied: bool,
}

/// Which limit keeps a user from watching one file more, in words; `None` where it is none.
pub fn watch_limit(errno: Errno) -> Option<String> {
    let limit = match errno {
        Errno::EMFILE => "max_user_instances",
        Errno::ENOSPC => "max_user_watches",
        _ => return None,
    };
    Some(format!(
        "all that fs.inotify.{limit} allows this user are in use; raise it with sysctl"
    ))
}

impl KernelError {
    /// For an operation with its object, and why it failed.
    pub(super) fn new(operation: impl Into<String>, cause: impl Into<String>) -> Self {
        Self {
            operation: operation.into(),
            cause: cause.into(),
            errno: None,
            cure: None,
            denied: false,
        }
    }

    /// For a system call that failed.
    pub(super) fn os(operation: impl Into<String>, errno: Errno) -> Self {
        let mut error = Self::new(operation, errno.desc());
        error.errno = Some(errno);
        if errno == Errno::EPERM {
            error.cure = Some("run the agent as root".into());
        }
        error
    }

    /// For an error of the standard library or aya, which wraps a system call's as a rule.
    pub fn io(operation: impl Into<String>, error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(number) => Self::os(operation, Errno::from_raw(number)),
            None => Self::new(operation, error.to_string()),
        }
    }

    /// Says that it takes privileges which are not there.
    pub(super) fn for_lack_of_rights(mut self) -> Self {
        self.denied = true;
        self
    }

    /// Adds what the kernel said beyond the number.
    pub(super) fn because(mut self, detail: impl fmt::Display) -> Self {
        self.cause = format!("{}: {detail}", self.cause);
        self
    }

    /// Adds what to do about it.
    pub(super) fn with_cure(mut self, cure: impl Into<Cow<'static, str>>) -> Self {
        self.cure = Some(cure.into());
        self
    }

    /// Number of the system error, if there was one.
    pub fn errno(&self) -> Option<i32> {
        self.errno.map(|errno| errno as i32)
    }

    /// Whether the kernel has refused it (`EACCES`).
    pub fn not_permitted(&self) -> bool {
        self.errno == Some(Errno::EACCES)
    }

    /// Why it failed.
    pub fn cause(&self) -> &str {
        &self.cause
    }

    /// The failed operation and its cause, without a cure.
    pub fn what(&self) -> String {
        format!("{}: {}", self.operation, self.cause)
    }

    /// The cure, if one is known.
    pub fn cure(&self) -> Option<&str> {
        self.cure.as_deref()
    }

    /// The kernel has refused because of who asked.
    pub fn is_denied(&self) -> bool {
        self.denied || matches!(self.errno, Some(Errno::EPERM | Errno::EACCES))
    }

    /// The thing that was to be made exists.
    pub fn already_there(&self) -> bool {
        self.errno == Some(Errno::EEXIST)
    }

    /// The thing that was to be changed or removed, or its device, does not exist.
    pub fn not_there(&self) -> bool {
        matches!(
            self.errno,
            Some(
                Errno::ENOENT | Errno::ESRCH | Errno::ENODEV | Errno::ENXIO | Errno::EADDRNOTAVAIL
            )
        )
    }
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.operation, self.cause)?;
        match &self.cure {
            Some(cure) => write!(f, "; {cure}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::KernelError;

    #[test]
    fn an_error_reads_as_operation_cause_cure() {
        let error = KernelError::os("add route 10.244.2.0/24 dev ovl1", Errno::ENETDOWN);
        assert_eq!(
            error.to_string(),
            "add route 10.244.2.0/24 dev ovl1: Network is down"
        );
        assert_eq!(error.errno(), Some(100));

        let error = KernelError::os("load programs", Errno::ENOSPC)
            .because("instruction 7")
            .with_cure("make them smaller");
        assert_eq!(
            error.to_string(),
            "load programs: No space left on device: instruction 7; make them smaller"
        );
    }

    #[test]
    fn what_is_already_so_can_be_told_from_a_failure() {
        let of = |errno| KernelError::os("x", errno);
        assert!(of(Errno::EEXIST).already_there());
        assert!(of(Errno::ESRCH).not_there());
        assert!(!of(Errno::EPERM).not_there());
        assert!(!KernelError::new("x", "y").already_there());
    }
}
