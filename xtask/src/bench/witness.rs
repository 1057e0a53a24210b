//! The counters' word that the packets took the path under test.

use anyhow::{Context as _, Result, ensure};
use overlay_tests::{
    counters::{self, Carried},
    run,
};
use serde_json::Value;

use super::{ceiling, labs::Way, subject::Subject};

/// What share of the expected packets must be seen: counters are not read at the very
/// moment at which a tool begins and ends to count.
const MOST: f64 = 0.95;
/// What share may stray: ARP, a handshake, a keep-alive.
const STRAY: f64 = 0.02;

/// What a measurement knows that it sent through the path.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Known {
    /// Packets that left the client, at least.
    pub(crate) sent: f64,
    /// Packets that arrived at the server, at least.
    pub(crate) received: f64,
}

impl Known {
    /// As many here as there.
    pub(crate) const fn both(packets: f64) -> Self {
        Self {
            sent: packets,
            received: packets,
        }
    }
}

/// Counters of the client's node for what was sent, of the server's for what was received.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Counters {
    /// Packets and bytes sent on the underlay.
    underlay: Traffic,
    /// Packets through the tunnel device, where there is one; for the ceiling, packets
    /// between its bridge and the stack, or from its bridge to the other container.
    tunnel_sent: f64,
    tunnel_received: f64,
    /// Packets through overlay's programs.
    programs_sent: f64,
    programs_received: f64,
    /// Packets that overlay's programs delivered on the client's node.
    programs_local: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Traffic {
    packets: f64,
    bytes: f64,
}

/// Does the work, then sees to it that what it sent took the way.
pub(crate) fn watched<T>(
    way: &Way,
    work: impl FnOnce() -> Result<(Known, T)>,
) -> Result<(T, Counters)> {
    let before = Counters::read(way)?;
    let (known, result) = work()?;
    let moved = Counters::read(way)?.since(&before);
    moved
        .judge(way, known)
        .with_context(|| format!("not the path of {}", way.subject))?;
    Ok((result, moved))
}

impl Counters {
    fn read(way: &Way) -> Result<Self> {
        let (sent, _) = device(&way.client_node, Way::UNDERLAY)?;
        let mut counters = Self {
            underlay: sent,
            ..Self::default()
        };
        if way.subject == Subject::Ceiling && way.is_local() {
            let (sent, _) = device(&way.client_node, ceiling::OTHER_VETH)?;
            counters.tunnel_sent = sent.packets;
        } else if let Some(tunnel) = way.tunnel() {
            let (sends, receives) = way.tunnelled();
            let of = |is_there: bool, node: &str| {
                let none = (Traffic::default(), Traffic::default());
                if is_there {
                    device(node, &tunnel)
                } else {
                    Ok(none)
                }
            };
            let client = of(sends, &way.client_node)?;
            let server = of(receives, &way.server_node)?;
            // The stack receives from the bridge what the container sends.
            (counters.tunnel_sent, counters.tunnel_received) = match way.subject {
                Subject::Ceiling => (client.1.packets, server.0.packets),
                _ => (client.0.packets, server.1.packets),
            };
        }
        let (sends, receives) = way.ours();
        if sends {
            let Carried { sent, local, .. } = counters::carried(&way.client_node)?;
            counters.programs_sent = count(sent);
            counters.programs_local = count(local);
        }
        if receives {
            let Carried { received, .. } = counters::carried(&way.server_node)?;
            counters.programs_received = count(received);
        }
        Ok(counters)
    }

    fn since(&self, earlier: &Self) -> Self {
        Self {
            underlay: Traffic {
                packets: self.underlay.packets - earlier.underlay.packets,
                bytes: self.underlay.bytes - earlier.underlay.bytes,
            },
            tunnel_sent: self.tunnel_sent - earlier.tunnel_sent,
            tunnel_received: self.tunnel_received - earlier.tunnel_received,
            programs_sent: self.programs_sent - earlier.programs_sent,
            programs_received: self.programs_received - earlier.programs_received,
            programs_local: self.programs_local - earlier.programs_local,
        }
    }

    /// Bytes per frame that the underlay carried.
    pub(crate) fn mean_frame(&self) -> f64 {
        self.underlay.bytes / self.underlay.packets.max(1.0)
    }

    /// Frames on the underlay for each packet that came out of the tunnel; none without a tunnel.
    pub(crate) fn merged(&self, way: &Way) -> Option<f64> {
        let packets = match way.subject {
            // Only one of two uplinks is looked at, and another build's counters can be others.
            Subject::Bare
            | Subject::Ceiling
            | Subject::Direct
            | Subject::Tun
            | Subject::OneUplink
            | Subject::TwoUplinks
            | Subject::Baseline => return None,
            Subject::Vxlan | Subject::OverlayOff | Subject::MixedBack | Subject::ServicesVxlan => {
                self.tunnel_received
            }
            Subject::Overlay | Subject::Mixed | Subject::Services => self.programs_received,
        };
        Some(self.underlay.packets / packets.max(1.0))
    }

    fn judge(&self, way: &Way, known: Known) -> Result<()> {
        let passed = |name: &str, seen: f64, expected: f64| {
            ensure!(
                seen >= expected * MOST,
                "{name} counted {seen} packets of {expected}"
            );
            Ok(())
        };
        let strayed = |name: &str, seen: f64| {
            ensure!(
                seen <= known.sent * STRAY + 10.0,
                "{name} counted {seen} packets where there should be none, beside {} that were sent",
                known.sent
            );
            Ok(())
        };
        if way.is_local() {
            strayed("the underlay", self.underlay.packets)?;
            return match way.subject {
                Subject::Overlay => passed("local delivery", self.programs_local, known.sent),
                Subject::Ceiling => strayed("the bridge", self.tunnel_sent),
                _ => strayed("local delivery", self.programs_local),
            };
        }
        let sent_by_kernel = || passed("the VXLAN device", self.tunnel_sent, known.sent);
        let received_by_kernel = || {
            let device = "the peer's VXLAN device";
            passed(device, self.tunnel_received, known.received)
        };
        let sent_by_programs = || passed("the fast path", self.programs_sent, known.sent);
        let received_by_programs = || {
            let path = "the peer's fast path";
            passed(path, self.programs_received, known.received)
        };
        let by_kernel = || sent_by_kernel().and_then(|()| received_by_kernel());
        let by_programs = || sent_by_programs().and_then(|()| received_by_programs());
        match way.subject {
            // There is no tunnel in this lab that they could have taken.
            Subject::Bare | Subject::Direct => {}
            Subject::Ceiling => strayed("the bridge", self.tunnel_sent + self.tunnel_received)?,
            // What does not fit into its queue is lost before it is counted.
            Subject::Tun => passed("the tunnel device", self.tunnel_received, known.received)?,
            Subject::Vxlan | Subject::ServicesVxlan => by_kernel()?,
            // What the node has translated passes the device's egress, where it is sent fast.
            Subject::Services => by_programs()?,
            Subject::OneUplink | Subject::TwoUplinks => {
                by_programs()?;
                return strayed("the VXLAN device", self.tunnel_sent);
            }
            Subject::Mixed => {
                sent_by_kernel()?;
                received_by_programs()?;
            }
            Subject::MixedBack => {
                sent_by_programs()?;
                received_by_kernel()?;
            }
            Subject::OverlayOff => {
                by_kernel()?;
                strayed("the fast path", self.programs_sent + self.programs_received)?;
            }
            Subject::Baseline => {
                strayed("the VXLAN device", self.tunnel_sent + self.tunnel_received)?;
            }
            Subject::Overlay => {
                by_programs()?;
                strayed("the VXLAN device", self.tunnel_sent)?;
            }
        }
        passed("the underlay", self.underlay.packets, known.received)
    }
}

/// How many packets a device of a namespace has sent.
pub(crate) fn packets_sent(namespace: &str, name: &str) -> Result<f64> {
    Ok(device(namespace, name)?.0.packets)
}

/// What a device of a namespace sent and received.
fn device(namespace: &str, name: &str) -> Result<(Traffic, Traffic)> {
    let line = format!("ip -n {namespace} -s -j link show dev {name}");
    let text = run::checked(&line)?;
    parse(&text).with_context(|| format!("the output of `{line}` is not understood: {text}"))
}

fn parse(text: &str) -> Option<(Traffic, Traffic)> {
    let value: Value = serde_json::from_str(text).ok()?;
    let traffic = |direction: &str| {
        let counters = &value.get(0)?["stats64"][direction];
        Some(Traffic {
            packets: counters["packets"].as_f64()?,
            bytes: counters["bytes"].as_f64()?,
        })
    };
    Some((traffic("tx")?, traffic("rx")?))
}

/// Counts are far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 packets")]
const fn count(packets: u64) -> f64 {
    packets as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(subject: Subject, local: bool) -> Way {
        Way {
            subject,
            lab: "bm".parse().unwrap(),
            client: "bm-n1c1".into(),
            server: "bm-n2c1".into(),
            address: [10, 244, 2, 10].into(),
            listening: [10, 244, 2, 10].into(),
            client_node: "bm-n1".into(),
            server_node: if local { "bm-n1" } else { "bm-n2" }.into(),
        }
    }

    fn through_programs() -> Counters {
        Counters {
            underlay: Traffic {
                packets: 1000.0,
                bytes: 150_000.0,
            },
            programs_sent: 1000.0,
            programs_received: 1000.0,
            ..Counters::default()
        }
    }

    fn through_tunnel() -> Counters {
        Counters {
            tunnel_sent: 1000.0,
            tunnel_received: 1000.0,
            programs_sent: 0.0,
            programs_received: 0.0,
            ..through_programs()
        }
    }

    #[test]
    fn the_fast_path_is_told_from_the_kernels() {
        let known = Known::both(1000.0);
        let (on, off) = (
            way(Subject::Overlay, false),
            way(Subject::OverlayOff, false),
        );
        through_programs().judge(&on, known).unwrap();
        through_tunnel().judge(&off, known).unwrap();
        through_tunnel()
            .judge(&way(Subject::Vxlan, false), known)
            .unwrap();
        for (counters, way) in [
            (through_tunnel(), &on),
            (through_programs(), &off),
            (
                Counters {
                    tunnel_sent: 100.0,
                    ..through_programs()
                },
                &on,
            ),
            (Counters::default(), &way(Subject::Bare, false)),
        ] {
            assert!(counters.judge(way, known).is_err(), "{counters:?}");
        }
    }

    #[test]
    fn another_build_is_known_by_what_the_kernel_does_not_carry() {
        let (known, baseline) = (Known::both(1000.0), way(Subject::Baseline, false));
        through_programs().judge(&baseline, known).unwrap();
        assert!(through_tunnel().judge(&baseline, known).is_err());
        assert!(Counters::default().judge(&baseline, known).is_err());
    }

    #[test]
    fn the_ceiling_is_told_from_routing() {
        let (known, ceiling) = (Known::both(1000.0), way(Subject::Ceiling, false));
        through_programs().judge(&ceiling, known).unwrap();
        assert!(through_tunnel().judge(&ceiling, known).is_err());
    }

    #[test]
    fn local_delivery_is_told_from_the_bridge() {
        let known = Known::both(1000.0);
        let delivered = Counters {
            programs_local: 1000.0,
            ..Counters::default()
        };
        let (on, off) = (way(Subject::Overlay, true), way(Subject::OverlayOff, true));
        delivered.judge(&on, known).unwrap();
        Counters::default().judge(&off, known).unwrap();
        assert!(delivered.judge(&off, known).is_err());
        assert!(Counters::default().judge(&on, known).is_err());
        assert!(through_programs().judge(&off, known).is_err());

        let ceiling = way(Subject::Ceiling, true);
        Counters::default().judge(&ceiling, known).unwrap();
        let bridged = Counters {
            tunnel_sent: 1000.0,
            ..Counters::default()
        };
        assert!(bridged.judge(&ceiling, known).is_err());
    }

    #[test]
    fn a_devices_counters_are_read() {
        let text = r#"[{"ifindex":6,"ifname":"ovl1","mtu":1450,"stats64":{"rx":{"bytes":840,
            "packets":10,"errors":0},"tx":{"bytes":98,"packets":1,"errors":0,"dropped":9}}}]"#;
        let (sent, received) = parse(text).unwrap();
        assert_eq!((sent.packets, sent.bytes), (1.0, 98.0));
        assert_eq!((received.packets, received.bytes), (10.0, 840.0));
        assert_eq!(parse("[]"), None);
    }
}
