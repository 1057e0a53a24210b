//! Translates aya's errors.

use std::{error::Error, io, iter};

use aya::{
    maps::MapError,
    programs::{ProgramError, tc::TcError},
};
use nix::errno::Errno;

use crate::KernelError;

/// The error of an operation from one of aya's, which has the system's inside.
pub(super) fn failed(operation: impl Into<String>, error: &(dyn Error + 'static)) -> KernelError {
    let chain = || iter::successors(Some(error), |&error| error.source());
    if let Some(MapError::KeyNotFound | MapError::ElementNotFound) = error.downcast_ref() {
        return KernelError::os(operation, Errno::ENOENT);
    }
    let system = match error.downcast_ref() {
        // Not a source of it, but the same error under another name.
        Some(ProgramError::TcError(TcError::IoError(error))) => Some(error),
        _ => chain().find_map(|error| error.downcast_ref::<io::Error>()),
    };
    if let Some(system) = system.filter(|error| error.raw_os_error().is_some()) {
        return KernelError::io(operation, system);
    }
    let mut texts: Vec<String> = chain().map(ToString::to_string).collect();
    // A transparent error says the same as its source.
    texts.dedup();
    KernelError::new(operation, texts.join(": "))
}

#[cfg(test)]
mod tests {
    use std::io;

    use aya::{
        EbpfError,
        maps::MapError,
        programs::{ProgramError, tc::TcError},
        sys::SyscallError,
    };

    use super::failed;

    #[test]
    fn the_system_s_error_is_found_inside() {
        let call = SyscallError {
            call: "bpf_map_update_elem",
            io_error: io::Error::from_raw_os_error(7),
        };
        let error = EbpfError::ProgramError(ProgramError::MapError(MapError::SyscallError(call)));
        let error = failed("set a", &error);
        assert_eq!(error.to_string(), "set a: Argument list too long");
        assert_eq!(error.errno(), Some(7));

        let missing = io::Error::from_raw_os_error(19);
        let error = failed(
            "attach a",
            &ProgramError::TcError(TcError::IoError(missing)),
        );
        assert_eq!(error.to_string(), "attach a: No such device");
    }

    #[test]
    fn an_error_of_aya_s_own_is_told_in_words() {
        let error = failed("load a", &EbpfError::MapError(MapError::ProgramNotLoaded));
        assert!(
            error.to_string().contains("the program is not loaded"),
            "{error}"
        );
        assert!(failed("get a", &MapError::KeyNotFound).not_there());
    }
}
