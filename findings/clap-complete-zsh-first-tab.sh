#!/usr/bin/env bash
# clap_complete 4.6.11: in zsh the first Tab of each shell offers nothing, where the script that a
# program registers itself with lies in a folder of $fpath, as its first line "#compdef" asks for.
#
# Expected: `mytool sta<Tab>` offers status, as the second Tab does.
# Seen: nothing for the first one. zsh loads such a file when Tab is pressed, and what the file does
# is the completion; but the script only defines a function and has compdef call that one from then on.
# A way round: end the file with
#     if [[ "$funcstack[1]" = _mytool ]]; then _clap_dynamic_completer_mytool "$@"; fi
#
# Needs cargo with Rust 1.85 or later, and zsh.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
mkdir src functions
cat >Cargo.toml <<'TOML'
[package]
name = "mytool"
version = "0.0.0"
edition = "2021"
[dependencies]
clap = { version = "=4.6.7", default-features = false, features = ["std"] }
clap_complete = { version = "=4.6.11", features = ["unstable-dynamic"] }
[workspace]
TOML
cat >src/main.rs <<'RUST'
use clap::Command;
fn main() {
    clap_complete::CompleteEnv::with_factory(|| Command::new("mytool").subcommand(Command::new("status")))
        .complete();
}
RUST
cargo build --quiet
PATH="$work/target/debug:$PATH"
COMPLETE=zsh mytool | sed "s|$work/target/debug/||" >functions/_mytool

cat >.zshrc <<ZSH
fpath=($work/functions \$fpath)
autoload -Uz compinit
compinit -u -D
keep() { print -r -- \$BUFFER >$work/line }
zle -N keep
bindkey '^X' keep
ZSH

cat >driver.zsh <<'ZSH'
zmodload zsh/zpty
zpty -b shell zsh -i
sleep 2
zpty -w -n shell "mytool sta"
repeat $1 { zpty -w -n shell $'\t'; sleep 1 }
zpty -w -n shell $'\x18'
sleep 1
zpty -d shell
ZSH

# What stands in a new zsh's line after "mytool sta" and so many Tabs.
line() { # TABS
    rm -f line
    ZDOTDIR=$work zsh -f driver.zsh "$1"
    cat line
}

first=$(line 1)
second=$(line 2)
echo "clap_complete 4.6.11, $(zsh --version): after one Tab '$first', after two '$second'"
[ "$first" = "mytool sta" ] && [ "$second" = "mytool status " ] || {
    echo "the behaviour has changed" >&2
    exit 1
}
