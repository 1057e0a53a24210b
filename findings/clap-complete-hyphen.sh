#!/usr/bin/env bash
# clap_complete 4.6.11: in bash nothing is completed behind a subcommand of a program whose name has
# a hyphen; file names are offered instead.
#
# Expected: `my-tool status --<Tab>` offers --json, as `mytool status --<Tab>` does.
# Seen: nothing for my-tool, --json for mytool. The script that is generated notes the command that
# is being typed as "my__tool__subcmd__status", and the branch with what there is to complete is
# labelled "my__subcmd__tool__subcmd__status": the hyphen of the program's name is taken for the
# blank between two commands there.
# A way round: replace "my__subcmd__tool" by "my__tool" in the script.
#
# Needs cargo with Rust 1.85 or later, and bash 4.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"
[dependencies]
clap = { version = "=4.6.7", default-features = false, features = ["std"] }
clap_complete = "=4.6.11"
[workspace]
TOML
cat >src/main.rs <<'RUST'
use clap::{Arg, ArgAction, Command};
fn main() {
    let name: &'static str = Box::leak(std::env::args().nth(1).unwrap().into_boxed_str());
    let json = Arg::new("json").long("json").action(ArgAction::SetTrue);
    let mut tool = Command::new(name).subcommand(Command::new("status").arg(json));
    clap_complete::generate(clap_complete::Shell::Bash, &mut tool, name, &mut std::io::stdout());
}
RUST
cargo build --quiet

offered() { # PROGRAM
    ./target/debug/finding "$1" >script.bash
    bash -c '
        source ./script.bash
        COMP_WORDS=("$1" status --j) COMP_CWORD=2
        "_${1//-/__}" "$1" --j status
        echo "${COMPREPLY[*]}"' bash "$1"
}

hyphen=$(offered my-tool)
plain=$(offered mytool)
echo "clap_complete 4.6.11: my-tool status --j<Tab>: '$hyphen'; mytool status --j<Tab>: '$plain'"
[ -z "$hyphen" ] && [ "$plain" = "--json" ] || {
    echo "the behaviour has changed" >&2
    exit 1
}
