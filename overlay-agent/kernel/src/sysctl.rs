//! Kernel settings below `/proc/sys`.
//!
//! Keys are paths (`net/ipv4/conf/eth0.5/rp_filter`), so interface names with a dot
//! need no quoting. Network settings are those of the calling thread's namespace.

use std::{fs, io, io::Write, path::PathBuf};

use super::{KernelError, Result};

/// The value without its line end; `None` where this kernel or device has no such setting.
pub fn read(key: &str) -> Result<Option<String>> {
    match fs::read_to_string(path(key)) {
        Ok(value) => Ok(Some(value.trim_end().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(KernelError::io(format!("read sysctl {key}"), &error)),
    }
}

/// Sets a value. A setting that does not exist is an error with
/// [`not_there`](KernelError::not_there).
pub fn write(key: &str, value: &str) -> Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .open(path(key))
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .map_err(|error| {
            let read_only = error.kind() == io::ErrorKind::ReadOnlyFilesystem;
            let error = KernelError::io(format!("set sysctl {key} to {value}"), &error);
            if read_only {
                error.with_cure("mount /proc/sys writable for the agent")
            } else {
                error
            }
        })
}

fn path(key: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(key)
}

#[cfg(test)]
mod tests {
    use super::{read, write};

    #[test]
    fn values_come_without_their_line_end() {
        let release = read("kernel/osrelease").unwrap().unwrap();
        assert!(!release.is_empty() && !release.contains('\n'));
    }

    #[test]
    fn a_missing_setting_is_told_from_a_failure() {
        assert_eq!(read("net/ipv4/no_such_setting").unwrap(), None);
        let error = write("net/ipv4/no_such_setting", "1").unwrap_err();
        assert!(error.not_there());
        assert!(
            error
                .to_string()
                .starts_with("set sysctl net/ipv4/no_such_setting to 1: ")
        );
    }
}
