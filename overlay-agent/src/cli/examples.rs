//! Examples at the end of each command's help and manual page.

pub(super) const AGENT: &str = "\
Examples:
  overlay-agent check --config /etc/overlay/node.toml
  overlay-agent run --config /etc/overlay/node.toml
  overlay-agent status
  overlay-agent status --output json | jq '.networks[].peers[] | {name, traffic}'

Environment:
  OVERLAY_CONFIG     the file for --config
  OVERLAY_INSTANCE   the name for --instance
  OVERLAY_LOG        what is logged: error, warn, info (the default), debug, trace
  NO_COLOR           not empty: no colours, on a terminal either

Files:
  /etc/overlay/node.toml   the configuration, watched for changes
  /run/overlay/INSTANCE    socket and lock
  /var/lib/overlay         what must survive a restart
  /sys/fs/bpf/overlay      maps and links, which forward without the agent

Exit status:
  0 fine
  1 it ran and found a problem, or failed
  2 the command line, the configuration or the request is wrong; nothing was changed
  3 no agent runs for the instance
  4 the user may not do it
  5 what is named does not exist
  6 what was to be made exists, or runs already
With --output json, errors are JSON on standard error.";

pub(super) const RUN: &str = "\
Examples:
  overlay-agent run --config /etc/overlay/node.toml
  OVERLAY_LOG=debug overlay-agent run --config node.toml
  overlay-agent run --config node.toml --netns lab-n1    # that namespace is the node

Ending it, by Ctrl-C, SIGTERM or otherwise, changes no forwarding; SIGHUP reads the configuration
again, as a change of the file does. \"overlay-agent down\" removes what it has made.";

pub(super) const CLUSTER: &str = "\
Examples:
  overlay-agent cluster init --config node.toml --cidr 10.244.0.0/16    # once, on any node
  overlay-agent cluster status
  overlay-agent down && overlay-agent cluster leave --config node.toml";

pub(super) const CLUSTER_INIT: &str = "\
Examples:
  overlay-agent cluster init --config node.toml --cidr 10.244.0.0/16
  overlay-agent cluster init --config node.toml --cidr 10.244.0.0/16 --cidr6 fd00:244::/48 --vni 7
  overlay-agent cluster init --config node.toml --role    # for an etcd that demands users

What is written is what flannel reads. A configuration that is there already is left as it is.";

pub(super) const CLUSTER_STATUS: &str = "\
Examples:
  overlay-agent cluster status
  overlay-agent cluster status --output json | jq .subnet

What is wrong there is told with the time since when.";

pub(super) const CLUSTER_LEAVE: &str = "\
Examples:
  overlay-agent down && overlay-agent cluster leave --config node.toml

An agent that merely ends keeps its subnet for a day, and has it again when it comes back.";

pub(super) const CHECK: &str = "\
Examples:
  overlay-agent check --config node.toml && sudo cp node.toml /etc/overlay/node.toml
  overlay-agent check --config node.toml --output json";

pub(super) const PLAN: &str = "\
Examples:
  sudo overlay-agent plan --config /etc/overlay/node.toml
  sudo overlay-agent plan --config node.toml --output json | jq -r '.texts[]'";

pub(super) const STATUS: &str = "\
Examples:
  sudo overlay-agent status
  sudo overlay-agent status --instance node01
  sudo overlay-agent status --output json | jq '.problems'

With probe = \"5s\" or another interval in [node], a line for each peer tells who hears whom:
  n1 <-> n2  rtt 0.21 ms  jitter 0.03 ms  loss 0 %  path mtu 1450
  n1 <-- n3  one way: heard 1 s ago, does not hear this node
  n1 -x- n4  silent, answered 14 s ago
  n1 --- n5  no agent answers

A capture that is under way is told with who has started it, and the log level that is set.";

pub(super) const ENDPOINT: &str = "\
Examples:
  sudo overlay-agent endpoint add web --network lab --netns web
  sudo overlay-agent endpoint list
  sudo overlay-agent endpoint del web";

pub(super) const ENDPOINT_ADD: &str = "\
Examples:
  sudo overlay-agent endpoint add web --network lab --netns web
  sudo overlay-agent endpoint add web --network lab --pid 4711
  sudo overlay-agent endpoint add web --network lab --netns web \\
      --address 10.244.1.80 --address fd00:244:0:1::80 --interface net1
  sudo overlay-agent endpoint add router --network lab --netns router \\
      --forwarding --allowed-source 10.244.99.0/24";

pub(super) const ENDPOINT_DEL: &str = "\
Example:
  sudo overlay-agent endpoint del web";

pub(super) const ENDPOINT_SHOW: &str = "\
Examples:
  sudo overlay-agent endpoint show web
  sudo overlay-agent endpoint show web --output json | jq '.traffic.tx.packets'";

pub(super) const PEER: &str = "\
Examples:
  sudo overlay-agent peer list
  sudo overlay-agent peer show node02";

pub(super) const PEER_LIST: &str = "\
Examples:
  sudo overlay-agent peer list
  sudo overlay-agent peer list --output json | jq -r '.[] | [.name, .vtep] | @tsv'";

pub(super) const PEER_SHOW: &str = "\
Examples:
  sudo overlay-agent peer show node02
  sudo overlay-agent peer show node02 --output json | jq '.peers[].health'";

pub(super) const CONFIG: &str = "\
Examples:
  overlay-agent config example > node.toml
  sudo overlay-agent config show";

pub(super) const CONFIG_SHOW: &str = "\
Examples:
  sudo overlay-agent config show
  overlay-agent config show --config node.toml
  overlay-agent config show --config node.toml --output json | jq '.networks[].security'

What it prints is a configuration file again; containers that were added at run time are in it.";

pub(super) const CONFIG_EXAMPLE: &str = "\
Example:
  overlay-agent config example > node.toml";

pub(super) const ENDPOINT_LIST: &str = "\
Examples:
  sudo overlay-agent endpoint list
  sudo overlay-agent endpoint list --output json | jq -r '.[].addresses[]'";

pub(super) const FASTPATH: &str = "\
Examples:
  sudo overlay-agent fastpath off    # the kernel's VXLAN device carries everything
  sudo overlay-agent fastpath on

No packet is lost by it, and it is remembered over restarts.";

pub(super) const DOWN: &str = "\
Examples:
  sudo overlay-agent down
  sudo overlay-agent down --instance node01

It works without a running daemon, too. What others have made stays.";

pub(super) const STATS: &str = "\
Examples:
  sudo overlay-agent stats
  sudo overlay-agent stats --watch
  sudo overlay-agent stats --output json | jq '.programs[] | {program, delivered, passed, dropped}'";

pub(super) const TOP: &str = "\
Examples:
  sudo overlay-agent top
  sudo overlay-agent top --instance node01

Keys:
  q ends it, Tab and the arrows choose the view, s sorts it by another column

Health shows a line for each peer, with bars for the last round trips; x is a lost one:
  lab n2   <-> answers     0.21 ms   0.03 ms   0 %  1450 ▅▄▅▅█▅▄▅
  lab n3   -x- silent            -         -  12 %     - ▅▅▅xxxxx
It takes probe = \"5s\" or another interval in [node].";

pub(super) const DOCTOR: &str = "\
Examples:
  sudo overlay-agent doctor
  sudo overlay-agent doctor --config /etc/overlay/node.toml    # before there is an agent
  sudo overlay-agent doctor --output json | jq -r '.findings[].cure.commands[]'";

pub(super) const EXPLAIN: &str = "\
Examples:
  sudo overlay-agent explain web db --proto tcp --dport 5432
  sudo overlay-agent explain web 10.244.2.10 --size 1500 --df
  sudo overlay-agent explain node 10.244.2.10 --size 1400 --df
  sudo overlay-agent explain web 10.244.2.10 --source 10.244.1.99    # what if it pretended?
  sudo overlay-agent explain 10.244.1.10 10.244.2.10 --peer node02 --output json
  sudo overlay-agent explain --received - <frame.hex    # what a node sends to this one

Exit status:
  0 when it arrives, as far as it can be told
  1 when it does not";

pub(super) const CAPTURE: &str = "\
Examples:
  sudo overlay-agent capture -w all.pcapng --seconds 10
  sudo overlay-agent capture -w - --endpoint web | wireshark -k -i -
  sudo overlay-agent capture -w - --peer node02 | tshark -r - -T fields -e frame.comment
  sudo overlay-agent capture -w drops.pcapng --reason dropped -c 100
  sudo overlay-agent capture -c 10 host 10.244.1.10 and not tcp port 22
  sudo overlay-agent capture -s 64 -c 10 --output json udp | jq -c '[.verdict, .flow]'

Each packet is there as it came to a program and, where it was sent, as it went, with what
became of it as a comment. While it runs, the attached programs are ones that tell; they
forward the same packets. Ends with Ctrl-C, or when nobody reads it.";

pub(super) const LOG_LEVEL: &str = "\
Examples:
  sudo overlay-agent log-level warn     # each drop, with its reason
  sudo overlay-agent log-level debug    # and each packet that is left to the kernel
  sudo overlay-agent log-level off      # takes the code out again";

pub(super) const MONITOR: &str = "\
Examples:
  sudo overlay-agent monitor
  sudo overlay-agent monitor --reason dropped --endpoint web
  sudo overlay-agent monitor --peer node02 --reason forwarded -c 10
  sudo overlay-agent monitor net 10.244.2.0/24 and icmp
  sudo overlay-agent monitor --seconds 10 --output json | jq -c '[.reason, .flow]'

It takes a capture's place: one of the two at a time. Without either the programs tell nothing.";

pub(super) const KEY: &str = "\
Examples:
  sudo overlay-agent key --config node.toml    # before the first start, too
  sudo overlay-agent key --output json | jq -r .public_key
  sudo overlay-agent key --rotate              # the next key, for next_public_key of this node
  sudo overlay-agent key --finish              # when all peers are sent to with it

The private half is made where there is none, and stays in the state folder. Peers have what is
printed as public_key of this node.";

pub(super) const PING: &str = "\
Examples:
  sudo overlay-agent ping node02
  sudo overlay-agent ping 10.244.2.10 --from web --count 10
  sudo overlay-agent ping node02 --size 1450 --output json | jq '{lost, rtt, path_mtu}'

The packets leave the container's own interface, so the same programs carry them that carry
its traffic. They are datagrams for port 33434, which whoever gets them refuses; a kernel does
so about once a second.";

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use clap::{Command, CommandFactory as _, error::ErrorKind};

    use super::super::Cli;

    /// The calls of our program in a line of a shell, without what is piped, redirected or remarked.
    fn calls(line: &str) -> Vec<String> {
        let line = line
            .trim()
            .trim_start_matches("$ ")
            .trim_start_matches("# ");
        let line = line.split_once(" #").map_or(line, |(line, _)| line);
        let parts = line
            .split(['|', ';', '>'])
            .flat_map(|part| part.split("&&"));
        let parts = parts.map(|part| {
            let is_program = |word: &&str| {
                let is_set = word.starts_with("OVERLAY_") && word.contains('=');
                *word != "sudo" && *word != "oa" && !is_set
            };
            let words: Vec<&str> = part.split_whitespace().collect();
            let first = words.iter().position(is_program);
            words[first.unwrap_or(words.len())..].join(" ")
        });
        // What stands for something else is no example.
        let placeholder = |part: &String| part.contains(['…', '[', '<', '\\', '$', '\'', '"', '`']);
        parts
            .filter(|part| part.starts_with("overlay-agent ") && !placeholder(part))
            .collect()
    }

    fn of_help(command: &Command, found: &mut Vec<String>) {
        let help = command.get_after_help().map(ToString::to_string);
        let help = help.unwrap_or_default().replace("\\\n", " ");
        found.extend(
            help.lines()
                .filter(|line| line.starts_with("  "))
                .flat_map(calls),
        );
        for below in command.get_subcommands() {
            of_help(below, found);
        }
    }

    fn of_pages(folder: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                of_pages(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                of_page(&path, found);
            }
        }
    }

    /// The commands in the blocks of a page.
    fn of_page(path: &Path, found: &mut Vec<String>) {
        let text = fs::read_to_string(path).unwrap().replace("\\\n", " ");
        let blocks = text.split("\n```").skip(1).step_by(2);
        for block in blocks {
            let typed = block.lines().filter(|line| line.starts_with(['$', '#']));
            found.extend(typed.flat_map(calls));
        }
    }

    #[test]
    fn every_example_of_help_and_documentation_is_understood() {
        let mut found = Vec::new();
        of_help(&Cli::command(), &mut found);
        assert!(found.len() > 50, "{} in the help texts", found.len());
        let of_help = found.len();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        of_pages(&root.join("docs"), &mut found);
        of_page(&root.join("README.md"), &mut found);
        assert!(
            found.len() > of_help + 50,
            "{} on pages",
            found.len() - of_help
        );
        let faults = found.iter().filter_map(|call| {
            // A number's place is held by a word.
            let words = call.split_whitespace();
            let words = words.map(|word| if word == "PID" { "4711" } else { word });
            let error = Cli::command().try_get_matches_from(words).err()?;
            (error.kind() != ErrorKind::DisplayHelp).then(|| format!("{call}\n{error}"))
        });
        assert_eq!(faults.collect::<Vec<_>>(), Vec::<String>::new());
    }
}
