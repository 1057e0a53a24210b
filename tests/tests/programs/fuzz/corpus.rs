//! Inputs as text, so that a failing one can be kept and read.

use std::{
    fmt::Write as _,
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
};

/// A packet for a program.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Input {
    /// The program's name.
    pub(super) program: String,
    /// `gso_size` of its context.
    pub(super) segment: u32,
    /// The frame.
    pub(super) packet: Vec<u8>,
}

impl Input {
    /// Three lines: program, segment size, bytes.
    fn to_text(&self) -> String {
        let mut bytes = String::new();
        for byte in &self.packet {
            write!(bytes, "{byte:02x}").unwrap();
        }
        format!("{}\n{}\n{bytes}\n", self.program, self.segment)
    }

    fn from_text(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let program = lines.next()?.to_owned();
        let segment = lines.next()?.parse().ok()?;
        let digits = lines.next()?.as_bytes();
        let packet = digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok())
            .collect::<Option<_>>()?;
        Some(Self {
            program,
            segment,
            packet,
        })
    }
}

/// The folder of inputs that failed once.
pub(super) struct Regressions {
    folder: PathBuf,
}

impl Regressions {
    pub(super) fn here() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/fuzz/regressions");
        Self { folder }
    }

    /// Every kept input.
    pub(super) fn all(&self) -> Vec<(PathBuf, Input)> {
        let entries = fs::read_dir(&self.folder).unwrap();
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
        paths.sort();
        let read = |path: PathBuf| {
            let text = fs::read_to_string(&path).unwrap();
            let input = Input::from_text(&text)
                .unwrap_or_else(|| panic!("{} is not an input", path.display()));
            (path, input)
        };
        paths.into_iter().map(read).collect()
    }

    /// Keeps an input under a name that is its own.
    pub(super) fn keep(&self, input: &Input) -> PathBuf {
        let mut hasher = DefaultHasher::new();
        input.hash(&mut hasher);
        let name = format!("{}-{:016x}.txt", input.program, hasher.finish());
        let path = self.folder.join(name);
        fs::write(&path, input.to_text()).unwrap();
        path
    }
}

#[test]
fn an_input_survives_being_written_down() {
    let input = Input {
        program: "from_host".to_owned(),
        segment: 1400,
        packet: vec![0, 0xff, 0x10],
    };
    assert_eq!(Input::from_text(&input.to_text()), Some(input));
}
