//! Completion in the shells that there are: commands, options and the names of what runs.

use std::{fs, os::unix::fs::symlink, path::Path};

use anyhow::{Context as _, Result};
use overlay_tests::{guard::Guard, run, terminal::Terminal};
use tempfile::TempDir;

/// A folder for the search path with our program, and the scripts beside it.
struct Home(TempDir);

impl Home {
    fn of(program: &str) -> Result<Self> {
        let home = Self(tempfile::tempdir()?);
        symlink(
            fs::canonicalize(program)?,
            home.0.path().join("overlay-agent"),
        )?;
        let folder = home.0.path().display();
        run::checked(format!("{program} documents --into {folder}"))?;
        Ok(home)
    }

    fn script(&self, file: &str) -> String {
        let script = self.0.path().join("completions").join(file);
        script.to_string_lossy().into_owned()
    }

    /// Has a shell run a script with our program in its search path; what it prints, by lines.
    fn runs(&self, shell: &str, script: &str) -> Result<Vec<String>> {
        let path = std::env::var("PATH").context("a search path")?;
        let path = format!("PATH={}:{path}", self.0.path().display());
        let argv = ["env", &path, shell, "-c", script].map(str::to_owned);
        let out = run::checked(&argv)?;
        let lines = out.lines().map(|line| line.trim().to_owned());
        Ok(lines.filter(|line| !line.is_empty()).collect())
    }

    /// What bash offers for the last word of a line.
    fn bash(&self, line: &[&str]) -> Result<Vec<String>> {
        let quoted: Vec<String> = line.iter().map(|word| format!("'{word}'")).collect();
        let last = line.last().context("a word")?;
        let script = format!(
            "source {}; COMP_WORDS=({}); COMP_CWORD={}; COMP_TYPE=9; \
             _clap_complete_overlay_agent overlay-agent '{last}' x; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            self.script("overlay-agent.bash"),
            quoted.join(" "),
            line.len() - 1
        );
        self.runs("bash", &script)
    }

    /// The same of zsh, whose own menus need a terminal: what they would be given is printed.
    fn zsh(&self, line: &[&str]) -> Result<Vec<String>> {
        let quoted: Vec<String> = line.iter().map(|word| format!("'{word}'")).collect();
        let script = format!(
            "compdef() {{ : }}; _describe() {{ print -l -- ${{(P)3}} }}; words=({}); CURRENT={}; \
             source {}; _clap_dynamic_completer_overlay_agent",
            quoted.join(" "),
            line.len(),
            self.script("_overlay-agent")
        );
        let lines = self.runs("zsh", &script)?;
        // A value and its help.
        let values = lines.iter().filter_map(|line| line.split(':').next());
        Ok(values.map(str::to_owned).collect())
    }

    /// The same of fish.
    fn fish(&self, line: &[&str]) -> Result<Vec<String>> {
        let script = format!(
            "source {}; complete -C '{}'",
            self.script("overlay-agent.fish"),
            line.join(" ")
        );
        let lines = self.runs("fish", &script)?;
        let values = lines.iter().filter_map(|line| line.split('\t').next());
        Ok(values.map(str::to_owned).collect())
    }
}

/// What a user has typed into a shell who has installed the scripts where a package puts them.
struct Typed {
    home: Home,
    /// What starts the shell.
    started: String,
}

impl Typed {
    fn into(shell: &str, program: &str) -> Result<Self> {
        let home = Home::of(program)?;
        let folder = home.0.path().to_path_buf();
        // A prompt that says when the shell listens, and a list of what there is for one Tab.
        let ready = "PS1='ready> '\n";
        let bash = "bind 'set show-all-if-ambiguous on'\n";
        let bash = format!(
            "{ready}{bash}source {}\n",
            home.script("overlay-agent.bash")
        );
        let zsh = "autoload -Uz compinit\ncompinit -u -D\n";
        let zsh = format!(
            "{ready}fpath=({}/completions $fpath)\n{zsh}",
            folder.display()
        );
        let fish = folder.join("fish");
        fs::create_dir_all(fish.join("completions"))?;
        fs::copy(
            home.script("overlay-agent.fish"),
            fish.join("completions/overlay-agent.fish"),
        )?;
        let prompt = "function fish_prompt; echo -n 'ready> '; end\nset -g fish_greeting\n";
        fs::write(fish.join("config.fish"), prompt)?;
        fs::write(folder.join("bashrc"), bash)?;
        fs::write(folder.join(".zshrc"), zsh)?;
        let path = std::env::var("PATH").context("a search path")?;
        let interactive = match shell {
            "bash" => format!("bash --rcfile {}/bashrc -i", folder.display()),
            other => format!("{other} -i"),
        };
        let started = format!(
            "env PATH={0}:{path} HOME={0} ZDOTDIR={0} XDG_CONFIG_HOME={0} XDG_DATA_HOME={0} {interactive}",
            folder.display()
        );
        Ok(Self { home, started })
    }

    /// Types a line and Tab into a new shell, until all of that is on the screen. What fits has no
    /// more in common than what is typed: zsh would insert that first, and list nothing.
    fn completes(&self, number: usize, line: &str, shown: &[&str]) -> Result<()> {
        // A terminal that is being closed keeps its name for a while.
        let name = self.home.0.path().file_name().unwrap_or_default();
        let name = format!("ttyped-{}-{number}", name.display());
        let terminal = Terminal::open(&name, &self.started)?;
        terminal.shows(&["ready>"])?;
        terminal.write(line)?;
        terminal.shows(&[line])?;
        terminal.press("Tab")?;
        let shown = terminal.shows(shown);
        shown.with_context(|| format!("{line:?} in {}", self.home.0.path().display()))?;
        Ok(())
    }
}

fn is_there(shell: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .any(|folder| Path::new(folder).join(shell).exists())
}

type Shell = fn(&Home, &[&str]) -> Result<Vec<String>>;

#[test]
fn each_shell_offers_commands_options_and_live_names() -> Result<()> {
    let guard = Guard::overlay("tcomp")?;
    let agent = guard.agent(1);
    let home = Home::of(&agent.argv(&[])[0])?;
    let instance = agent.instance.as_str();
    let lines: [(&[&str], &[&str]); 8] = [
        (&["overlay-agent", "sta"], &["stats", "status"]),
        (&["overlay-agent", "fastpath", ""], &["off", "on"]),
        (&["overlay-agent", "status", "--outp"], &["--output"]),
        (&["overlay-agent", "status", "--output", "js"], &["json"]),
        (
            &[
                "overlay-agent",
                "endpoint",
                "del",
                "--instance",
                instance,
                "tcomp-n1",
            ],
            &["tcomp-n1c1", "tcomp-n1c2"],
        ),
        (
            &["overlay-agent", "peer", "show", "--instance", instance, ""],
            &["tcomp-n2"],
        ),
        (
            &["overlay-agent", "status", "--instance", "tcomp-"],
            &["tcomp-n1", "tcomp-n2"],
        ),
        (
            &[
                "overlay-agent",
                "endpoint",
                "add",
                "x",
                "--instance",
                instance,
                "--network",
                "l",
            ],
            &["lab"],
        ),
    ];
    let shells: [(&str, Shell); 3] = [
        ("bash", Home::bash),
        ("zsh", Home::zsh),
        ("fish", Home::fish),
    ];
    for (shell, complete) in shells {
        if !is_there(shell) {
            println!("skipped: there is no {shell} on this machine");
            continue;
        }
        for (line, expected) in lines {
            let mut offered = complete(&home, line)?;
            offered.sort();
            // Options of the command may come after the names.
            offered.retain(|word| {
                word.starts_with('-') == line.last().is_some_and(|last| last.starts_with('-'))
            });
            assert_eq!(offered, expected, "{shell}: {line:?}");
        }
        // What nobody should type is not offered.
        let all = complete(&home, &["overlay-agent", "--"])?;
        assert!(
            all.iter().any(|word| word == "--instance"),
            "{shell}: {all:?}"
        );
        let commands = complete(&home, &["overlay-agent", ""])?;
        for hidden in ["documents", "--state-dir", "--runtime-dir", "--bpf-dir"] {
            let is = |word: &String| word == hidden;
            assert!(
                !all.iter().any(is) && !commands.iter().any(is),
                "{shell}: {hidden}"
            );
        }
    }
    Ok(guard.down()?)
}

/// In a terminal, from the first Tab of a shell on.
#[test]
fn each_shell_completes_what_is_typed() -> Result<()> {
    let guard = Guard::overlay("ttyped")?;
    let agent = guard.agent(1);
    let program = &agent.argv(&[])[0];
    for shell in ["bash", "zsh", "fish"] {
        if !is_there(shell) {
            println!("skipped: there is no {shell} on this machine");
            continue;
        }
        let typed = Typed::into(shell, program)?;
        let instance = "--instance ttyped-n1";
        // fish leaves the beginning out of a list, which is in the line.
        let lines = [
            ("overlay-agent log-l".to_owned(), &["log-level"][..]),
            ("overlay-agent stat".to_owned(), &["stats", "status"]),
            ("overlay-agent fastpath o".to_owned(), &["off", "on"]),
            (
                "overlay-agent status --outp".to_owned(),
                &["status --output"],
            ),
            (
                format!("overlay-agent endpoint show {instance} ttyped-n1c"),
                &["n1c1", "n1c2"],
            ),
            (
                format!("overlay-agent peer show {instance} t"),
                &["ttyped-n1 ttyped-n2"],
            ),
            (
                "overlay-agent status --instance ttyped-n".to_owned(),
                &["n1", "n2"],
            ),
        ];
        for (number, (line, shown)) in lines.into_iter().enumerate() {
            typed
                .completes(number, &line, shown)
                .with_context(|| shell.to_owned())?;
        }
    }
    Ok(guard.down()?)
}
