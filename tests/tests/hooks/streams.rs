//! Rules that only streams meet: by who has begun them, by what they have carried, and by which other one
//! has announced them.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Result, ensure};
use overlay_tests::{netns, packages::Release, poll};

use super::{SEVERAL, Stand, says};

/// That of FTP, and one on which its server awaits data.
const PORT: u16 = 21;
const DATA: u16 = 5001;
/// Long enough for what does not arrive.
const MOMENT: Duration = Duration::from_millis(500);

/// Rules that drop a stream's first packet.
struct OfStreams {
    what: &'static str,
    /// Those that another one has announced, or any.
    announced: bool,
    /// A part of what `status` says of it.
    told: &'static str,
    put: String,
    take: &'static str,
}

fn cases() -> Vec<OfStreams> {
    let told = "nft chain inet strangers c";
    let take = "nft delete table inet strangers";
    let forward = "type filter hook forward priority 0";
    let mut cases = vec![
        OfStreams {
            what: "a system that nobody knows",
            announced: false,
            told,
            put: format!(
                "nft 'table inet strangers {{ chain c {{ {forward}; osf name \"unknown\" drop; }}; }}'"
            ),
            take,
        },
        OfStreams {
            what: "what a helper expects",
            announced: true,
            told,
            put: format!(
                "nft 'table inet strangers {{ ct helper of {{ type \"ftp\" protocol tcp; }}; \
                 chain raw {{ type filter hook prerouting priority 0; tcp dport {PORT} ct helper set \"of\"; }}; \
                 chain c {{ {forward}; ct helper \"ftp\" drop; }}; }}'"
            ),
            take,
        },
    ];
    if let Some(packages) = Release::Bookworm.folder() {
        let restored = |rules: &str| {
            format!(
                "printf '{rules}' | chroot {} /usr/sbin/xtables-nft-multi iptables-nft-restore --noflush",
                packages.display()
            )
        };
        cases.extend([
            OfStreams {
                what: "what iptables asks of a connection's packets",
                announced: false,
                told: "nft chain ip filter FORWARD",
                put: restored(
                    "*filter\\n-A FORWARD -m connbytes --connbytes 0:1000000 --connbytes-dir original \
                     --connbytes-mode packets -j DROP\\nCOMMIT\\n",
                ),
                take: "nft delete table ip filter",
            },
            OfStreams {
                what: "what a helper of iptables expects",
                announced: true,
                told: "nft chain ip filter FORWARD",
                put: restored(
                    "*raw\\n-A PREROUTING -p tcp --dport 21 -j CT --helper ftp\\nCOMMIT\\n\
                     *filter\\n-A FORWARD -m helper --helper ftp -j DROP\\nCOMMIT\\n",
                ),
                take: "nft 'delete table ip filter; delete table ip raw'",
            },
        ]);
    }
    cases
}

/// A stream that is there, or no answer.
type Opened = Option<[TcpStream; 2]>;

impl Stand {
    fn opens(&self, port: u16) -> Result<Opened> {
        let to = (self.other(), port).into();
        let listener = netns::inside(self.container(2), || TcpListener::bind(to))??;
        let connect = || TcpStream::connect_timeout(&to, MOMENT);
        match netns::inside(self.container(1), connect)? {
            Ok(client) => Ok(Some([client, listener.accept()?.0])),
            Err(_) => Ok(None),
        }
    }

    fn other(&self) -> Ipv4Addr {
        self.guard.topology().nodes[1].containers[0].address
    }

    /// Whether a stream can be opened, or one for the data of another one (RFC 959 §4.1.2). What connection
    /// tracking's helpers are asked for are the latter: `ct helper` and `-m helper` are never true of the
    /// connection that is helped (`nft_ct_get_eval()` and `helper_mt()` of Linux 6.18 look at its master).
    fn connects(&self, announced: bool) -> Result<bool> {
        if !announced {
            return Ok(self.opens(PORT)?.is_some());
        }
        let Some([mut client, mut server]) = self.opens(PORT)? else {
            return Ok(false);
        };
        let octets = self
            .other()
            .octets()
            .map(|octet| octet.to_string())
            .join(",");
        let [high, low] = DATA.to_be_bytes();
        let answer = format!("227 Entering Passive Mode ({octets},{high},{low}).\r\n");
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(MOMENT * 10))?;
        }
        // The helper reads a line that follows another one (`find_nl_seq()`).
        let says = |from: &mut TcpStream, to: &mut TcpStream, line: &str| -> Result<()> {
            let mut heard = vec![0; line.len()];
            from.write_all(line.as_bytes())?;
            to.read_exact(&mut heard)?;
            ensure!(heard == line.as_bytes(), "not {line:?}: {heard:?}");
            Ok(())
        };
        says(&mut server, &mut client, "220 ready\r\n")?;
        says(&mut client, &mut server, "PASV\r\n")?;
        says(&mut server, &mut client, &answer)?;
        Ok(self.opens(DATA)?.is_some())
    }
}

#[test]
fn what_only_streams_meet_has_its_turn_on_both_paths() -> Result<()> {
    let stand = Stand::up("thookss", false)?;
    for on in [[true; 2], [false; 2]] {
        for (number, on) in (1..).zip(on) {
            stand.agent(number).fastpath(on)?;
        }
        stand.becomes_fast(on, "the switch");
        for case in cases() {
            let (what, announced) = (case.what, case.announced);
            let connects = || stand.connects(announced);
            ensure!(connects()?, "nothing stands in the way of {what}");
            super::shell(stand.node(1), &case.put)?;
            let until = |wanted: bool| {
                let outcome = poll::until_well(|| match connects() {
                    Ok(now) if now == wanted => None,
                    other => Some(format!("{what}, {on:?}: {other:?}")),
                });
                outcome.map_err(anyhow::Error::msg)
            };
            until(false)?;
            for _ in 0..SEVERAL {
                ensure!(!connects()?, "{what} is passed by, {on:?}");
            }
            if on[0] {
                let status = stand.agent(1).json(&["status"])?;
                let is_followed = status["networks"][0]["followed"].is_string();
                ensure!(says(&status, case.told) || is_followed, "{what}: {status}");
            }
            super::shell(stand.node(1), case.take)?;
            until(true)?;
            stand.becomes_fast(on, what);
        }
    }
    Ok(stand.guard.down()?)
}
