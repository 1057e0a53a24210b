//! Reads files that others have written, without waiting for what may never come.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _},
    os::{fd::AsFd as _, unix::fs::FileTypeExt as _, unix::fs::OpenOptionsExt as _},
    path::Path,
    time::{Duration, Instant},
};

use nix::{
    libc::O_NONBLOCK,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

/// So long somebody may take who writes into a pipe, such as a shell's `<(…)`.
const PATIENCE: Duration = Duration::from_secs(1);

/// The whole text of a file, or of a pipe that somebody writes into now. Whatever else has its
/// path, such as a device without an end, is an error.
pub fn read(path: &Path) -> io::Result<String> {
    let mut text = Vec::new();
    let mut file = open(path)?;
    if file.metadata()?.file_type().is_fifo() {
        read_pipe(&mut file, &mut text)?;
    } else {
        file.read_to_end(&mut text)?;
    }
    let invalid = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "stream did not contain valid UTF-8",
        )
    };
    String::from_utf8(text).map_err(|_| invalid())
}

/// A file, or a pipe, for reading.
pub fn open(path: &Path) -> io::Result<File> {
    // A pipe is not waited for until somebody writes.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(O_NONBLOCK)
        .open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        Err(io::ErrorKind::IsADirectory.into())
    } else if kind.is_file() || kind.is_fifo() {
        Ok(file)
    } else {
        Err(io::Error::other("it is a device, and no file"))
    }
}

fn read_pipe(pipe: &mut File, text: &mut Vec<u8>) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match pipe.read_to_end(text) {
            Ok(_) if text.is_empty() => {
                return Err(io::Error::other("it is a pipe into which nobody writes"));
            }
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(io::Error::other(
                        "it is a pipe whose writer does not come to an end",
                    ));
                }
                let mut wanted = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
                let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
                // An interrupted wait is a short one.
                let _ = poll(&mut wanted, left);
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, OpenOptions},
        io::Write as _,
        path::Path,
        thread,
    };

    use nix::{sys::stat::Mode, unistd::mkfifo};

    use super::read;

    #[test]
    fn what_never_ends_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        for (path, why) in [
            (pipe.as_path(), "nobody writes"),
            (Path::new("/dev/zero"), "device"),
            (folder.path(), "directory"),
        ] {
            let error = read(path).unwrap_err().to_string();
            assert!(error.contains(why), "{}: {error}", path.display());
        }
        // One who writes nothing, and one who ends.
        let writer = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&pipe)
            .unwrap();
        let error = read(&pipe).unwrap_err().to_string();
        assert!(error.contains("does not come to an end"), "{error}");
        let text = "x".repeat(1 << 18);
        let written = {
            let text = text.clone();
            let mut writer = writer;
            thread::spawn(move || writer.write_all(text.as_bytes()))
        };
        assert_eq!(read(&pipe).unwrap(), text);
        written.join().unwrap().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, [0xff]).unwrap();
        assert!(read(&file).unwrap_err().to_string().contains("UTF-8"));
        fs::write(&file, "a").unwrap();
        assert_eq!(read(&file).unwrap(), "a");
    }
}
