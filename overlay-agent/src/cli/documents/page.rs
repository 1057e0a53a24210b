//! A command's manual page: what the library writes, with a synopsis and the text behind the options
//! as man-pages(7) asks for them.

use std::{fmt::Write as _, io};

use clap::{Arg, ArgAction, Command};
use clap_mangen::Man;

use super::roff::{escaped, protected};

/// Headings of the text behind the options that are sections of a page.
const SECTIONS: [(&str, &str); 6] = [
    ("Example:", "EXAMPLES"),
    ("Examples:", "EXAMPLES"),
    ("Environment:", "ENVIRONMENT"),
    ("Files:", "FILES"),
    ("Exit status:", "EXIT STATUS"),
    ("Keys:", "KEYS"),
];

/// The page of a command of section 8.
pub(super) fn of_command(command: &Command, page: &Man) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    page.render_title(&mut out)?;
    page.render_name_section(&mut out)?;
    out.extend(format!(".SH SYNOPSIS\n{}\n", synopsis(command)).into_bytes());
    page.render_description_section(&mut out)?;
    page.render_options_section(&mut out)?;
    if command.has_subcommands() {
        page.render_subcommands_section(&mut out)?;
    }
    if let Some(help) = command.get_after_help() {
        out.extend(behind(&help.to_string()).into_bytes());
    }
    page.render_version_section(&mut out)?;
    Ok(out)
}

/// The command with its options, their values and its arguments.
fn synopsis(command: &Command) -> String {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let mut parts = vec![format!("\\fB{}\\fR", escaped(name))];
    let shown = |arg: &&Arg| !arg.is_hide_set() && !is_help(arg);
    let required: Vec<Vec<&Arg>> = command
        .get_groups()
        .filter(|group| group.is_required_set())
        .map(|group| {
            let named = group.get_args();
            let named =
                named.filter_map(|id| command.get_arguments().find(|arg| arg.get_id() == id));
            named.filter(shown).collect()
        })
        .filter(|group: &Vec<&Arg>| !group.is_empty())
        .collect();
    let is_grouped = |arg: &Arg| {
        required
            .iter()
            .flatten()
            .any(|other| other.get_id() == arg.get_id())
    };
    let options = command.get_arguments().filter(shown);
    let options = options.filter(|arg| !arg.is_positional() && !is_grouped(arg));
    let (needed, free): (Vec<&Arg>, Vec<&Arg>) = options.partition(|arg| arg.is_required_set());
    parts.extend(free.into_iter().map(|arg| format!("[{}]", option(arg))));
    parts.extend(needed.into_iter().map(option));
    for group in &required {
        let choices: Vec<String> = group.iter().map(|arg| option(arg)).collect();
        parts.push(format!("{{{}}}", choices.join(" | ")));
    }
    for arg in command.get_positionals().filter(shown) {
        let value = value(arg);
        parts.push(if arg.is_required_set() {
            value
        } else {
            format!("[{value}]")
        });
    }
    if command.has_subcommands() {
        parts.push("\\fICOMMAND\\fR".to_owned());
    }
    parts.join(" ")
}

fn is_help(arg: &Arg) -> bool {
    matches!(
        arg.get_action(),
        ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version
    )
}

fn option(arg: &Arg) -> String {
    let mut text = String::new();
    let names = [
        arg.get_short().map(|short| format!("-{short}")),
        arg.get_long().map(|long| format!("--{long}")),
    ];
    for (number, name) in names.into_iter().flatten().enumerate() {
        let or = if number > 0 { "|" } else { "" };
        // Writing to a string cannot fail.
        let _written = write!(text, "{or}\\fB{}\\fR", escaped(&name));
    }
    if arg.get_action().takes_values() {
        text += " ";
        text += &value(arg);
    }
    text
}

fn value(arg: &Arg) -> String {
    let names = arg.get_value_names().unwrap_or_default();
    let names: Vec<String> = names.iter().map(|name| escaped(name)).collect();
    let more = if matches!(arg.get_action(), ArgAction::Append) {
        " ..."
    } else {
        ""
    };
    format!("\\fI{}\\fR{more}", names.join(" "))
}

/// The text behind the options: each line as it stands, in sections by its headings.
fn behind(help: &str) -> String {
    let mut out = String::new();
    let mut lines = Vec::new();
    let mut section = "NOTES";
    for line in help.lines() {
        if let Some((_, heading)) = SECTIONS.iter().find(|(mark, _)| *mark == line) {
            add(&mut out, section, &lines);
            lines.clear();
            section = heading;
        } else {
            lines.push(line);
            // What is not indented belongs to no list any more.
            let is_prose = !line.is_empty() && !line.starts_with(' ');
            if is_prose && section != "NOTES" && section != "EXIT STATUS" {
                let prose = lines.pop();
                add(&mut out, section, &lines);
                lines = prose.into_iter().collect();
                section = "NOTES";
            }
        }
    }
    add(&mut out, section, &lines);
    out
}

fn add(out: &mut String, section: &str, lines: &[&str]) {
    let text = lines.join("\n");
    let text = text.trim_matches('\n');
    if text.is_empty() {
        return;
    }
    let lines: Vec<String> = text.lines().map(|line| protected(&escaped(line))).collect();
    // Writing to a string cannot fail.
    let _written = write!(out, ".SH {section}\n.nf\n{}\n.fi\n", lines.join("\n"));
}

#[cfg(test)]
mod tests {
    use clap::{Arg, ArgAction, ArgGroup, Command};

    use super::{behind, synopsis};

    #[test]
    fn a_synopsis_has_values_choices_and_what_can_be_left_out() {
        let command = Command::new("tool")
            .arg(
                Arg::new("config")
                    .long("config")
                    .value_name("FILE")
                    .required(true),
            )
            .arg(
                Arg::new("output")
                    .short('o')
                    .long("output")
                    .value_name("FORMAT"),
            )
            .arg(Arg::new("watch").long("watch").action(ArgAction::SetTrue))
            .arg(Arg::new("secret").long("secret").hide(true))
            .arg(Arg::new("netns").long("netns").value_name("NETNS"))
            .arg(Arg::new("pid").long("pid").value_name("PID"))
            .group(
                ArgGroup::new("container")
                    .required(true)
                    .args(["netns", "pid"]),
            )
            .arg(Arg::new("name").value_name("NAME").required(true))
            .arg(
                Arg::new("filter")
                    .value_name("FILTER")
                    .action(ArgAction::Append),
            );
        let mut command = command;
        command.build();
        let text = synopsis(&command).replace("\\fB", "").replace("\\fI", "");
        assert_eq!(
            text.replace("\\fR", "").replace("\\-", "-"),
            "tool [-o|--output FORMAT] [--watch] --config FILE {--netns NETNS | --pid PID} NAME [FILTER ...]"
        );
    }

    #[test]
    fn what_is_behind_the_options_has_its_sections() {
        let page = behind(
            "Examples:\n  tool run    # so\n\nFiles:\n  /etc/tool\n\nIt is remembered.\nEverywhere.",
        );
        assert_eq!(
            page,
            ".SH EXAMPLES\n.nf\n  tool run    # so\n.fi\n.SH FILES\n.nf\n  /etc/tool\n.fi\n\
             .SH NOTES\n.nf\nIt is remembered.\nEverywhere.\n.fi\n"
        );
    }
}
