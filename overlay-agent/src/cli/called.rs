//! How this program is called in the commands that it prints, so that they can be pasted: a lab
//! runs one that is in no folder of `PATH`.

use std::{
    borrow::Cow, env, ffi::OsStr, fs, os::unix::fs::PermissionsExt as _, path::Path, sync::OnceLock,
};

use overlay_core::trouble::is_for_another_node;

const NAME: &str = "overlay-agent";
/// The text before a printed command: a quote, or a prompt.
const BEFORE: [&str; 2] = ["\"", "# "];

/// Whether its name alone finds it, or another one of its kind.
pub(super) fn by_its_name() -> bool {
    path().is_none()
}

/// A text in which commands of this program are called as the user has called it, but for those that
/// another node is to run.
pub(super) fn pasteable(text: &str) -> Cow<'_, str> {
    match path() {
        Some(path) => Cow::Owned(called_by(text, path)),
        None => Cow::Borrowed(text),
    }
}

fn called_by(text: &str, path: &str) -> String {
    let is_here = |at: usize| {
        let (before, command) = text.split_at(at);
        let quoted = before.strip_suffix('"');
        let is_called = BEFORE.iter().any(|it| before.ends_with(it));
        // What is behind the quote that ends it.
        let elsewhere = quoted.zip(command.split_once('"'));
        let elsewhere =
            elsewhere.is_some_and(|(before, (_, after))| is_for_another_node(before, after));
        is_called && !elsewhere
    };
    let mut called = String::with_capacity(text.len());
    let mut done = 0;
    for (at, _) in text.match_indices(&format!("{NAME} ")) {
        if is_here(at) {
            called += &text[done..at];
            called += path;
            done = at + NAME.len();
        }
    }
    called + &text[done..]
}

/// How it is called by those who do not find it by its name.
fn path() -> Option<&'static str> {
    static PATH: OnceLock<Option<String>> = OnceLock::new();
    PATH.get_or_init(|| {
        if is_in(&env::var_os("PATH")?) {
            return None;
        }
        let typed = env::args().next().filter(|typed| typed.contains('/'));
        let own = || Some(env::current_exe().ok()?.to_str()?.to_owned());
        Some(quoted(typed.or_else(own)?))
    })
    .as_deref()
}

/// Whether a program of this name is in one of these folders.
fn is_in(folders: &OsStr) -> bool {
    let is_program = |path: &Path| {
        fs::metadata(path)
            .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    env::split_paths(folders).any(|folder| is_program(&folder.join(NAME)))
}

/// As a shell takes it for one word.
fn quoted(path: String) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if path.chars().all(plain) {
        path
    } else {
        format!("'{}'", path.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::{called_by, quoted};

    #[test]
    fn commands_are_called_as_the_program_was() {
        let text = "cure: \"overlay-agent down\"\n        # overlay-agent fastpath on\nthe overlay-agent 1";
        assert_eq!(
            called_by(text, "./x/overlay-agent"),
            "cure: \"./x/overlay-agent down\"\n        # ./x/overlay-agent fastpath on\nthe overlay-agent 1"
        );
    }

    #[test]
    fn what_another_node_is_to_run_is_called_by_its_name() {
        for text in [
            "write what \"overlay-agent key\" prints on that node, 44 characters",
            "on that node, \"overlay-agent key\" prints its key, which has to be k here",
            r#"{"cure":"see on that node, with \"overlay-agent doctor\", whether it has VNI 1"}"#,
        ] {
            assert_eq!(called_by(text, "./x"), text);
        }
        assert_eq!(
            called_by(
                "start it on that node; see \"overlay-agent status\"\n\"overlay-agent top\"",
                "./x"
            ),
            "start it on that node; see \"./x status\"\n\"./x top\""
        );
    }

    #[test]
    fn a_path_stays_one_word() {
        assert_eq!(quoted("./a-b/c".to_owned()), "./a-b/c");
        assert_eq!(quoted("/a b".to_owned()), "'/a b'");
    }
}
