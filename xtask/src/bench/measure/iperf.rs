//! iperf3: streams of TCP and floods of UDP.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::Bench;
use crate::bench::{
    labs::Way,
    load::datagrams::SIZE,
    tools::{Socket, Tool},
    witness::Known,
};

const PORT: u16 = 5201;
/// The most that a super-packet carries.
const SUPER_PACKET: f64 = 65_536.0;
/// What iperf3 takes beyond its time.
const GRACE: Duration = Duration::from_secs(10);

/// Packets per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rates {
    pub(crate) sent: f64,
    pub(crate) received: f64,
}

/// Gigabits of payload per second that arrived.
pub(super) fn tcp(bench: &Bench, way: &Way, streams: u32) -> Result<(Known, f64)> {
    let load = format!("-P {streams} -C {}", bench.congestion);
    let seconds = if streams == 1 {
        bench.times.tcp
    } else {
        bench.times.many
    };
    let end = run(bench, way, seconds, &load)?;
    let received = field(&end, "sum_received", "bytes")?;
    let bits = field(&end, "sum_received", "bits_per_second")?;
    Ok((Known::both(received / SUPER_PACKET), bits / 1e9))
}

/// Datagrams that one core could send, and that arrived.
pub(super) fn udp(bench: &Bench, way: &Way, flows: u32) -> Result<(Known, Rates)> {
    let load = format!("-P {flows} -u -l {SIZE} -b 0");
    let seconds = if flows == 1 {
        bench.times.udp
    } else {
        bench.times.many
    };
    rates(&run(bench, way, seconds, &load)?)
}

fn rates(end: &Value) -> Result<(Known, Rates)> {
    #[expect(clippy::cast_precision_loss, reason = "64 is exact")]
    let packets = |sum: &str| Ok::<_, anyhow::Error>(field(end, sum, "bytes")? / SIZE as f64);
    let (sent, received) = (packets("sum_sent")?, packets("sum_received")?);
    let rates = Rates {
        sent: sent / field(end, "sum_sent", "seconds")?,
        received: received / field(end, "sum_received", "seconds")?,
    };
    Ok((Known { sent, received }, rates))
}

/// The `end` of the client's report, which has the server's figures too.
fn run(bench: &Bench, way: &Way, seconds: u32, load: &str) -> Result<Value> {
    let (address, listening): (Ipv4Addr, _) = (way.address, way.listening);
    let server = Tool::start(
        way,
        &way.server,
        bench.cores.server,
        &format!("iperf3 -s -1 -B {listening} -p {PORT}"),
    )?
    .listening(Socket::Tcp(listening, PORT))?;
    let client = Tool::start(
        way,
        &way.client,
        bench.cores.client,
        &format!("iperf3 -c {address} -p {PORT} -t {seconds} {load} --json"),
    )?;
    let report = client.finish(Duration::from_secs(seconds.into()) + GRACE)?;
    drop(server);
    end_of(&report)
}

fn end_of(report: &str) -> Result<Value> {
    let mut report: Value = serde_json::from_str(report).context("iperf3 did not report JSON")?;
    if let Some(error) = report["error"].as_str() {
        bail!("iperf3: {error}");
    }
    Ok(report["end"].take())
}

fn field(end: &Value, sum: &str, name: &str) -> Result<f64> {
    end[sum][name]
        .as_f64()
        .with_context(|| format!("iperf3 did not report end.{sum}.{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The end of a report of iperf3 3.12, less what is not read.
    const UDP: &str = r#"{"start": {}, "intervals": [], "end": {
        "streams": [],
        "sum": {"seconds": 1.007398, "bytes": 4792960, "lost_packets": 48029, "packets": 74890},
        "sum_sent": {"start": 0, "end": 1.003507, "seconds": 1.003507, "bytes": 4792960,
            "bits_per_second": 38209678.65695008, "packets": 74890, "sender": true},
        "sum_received": {"start": 0, "end": 1.007398, "seconds": 1.007398, "bytes": 1718784,
            "bits_per_second": 13649294.519147348, "lost_packets": 48029, "packets": 74885,
            "sender": false}}}"#;

    #[test]
    fn what_was_sent_is_told_from_what_arrived() {
        let (known, rates) = rates(&end_of(UDP).unwrap()).unwrap();
        assert_eq!((known.sent, known.received), (74_890.0, 26_856.0));
        let rounded = (rates.sent.round(), rates.received.round());
        assert_eq!(rounded, (74_628.0, 26_659.0));
    }

    #[test]
    fn an_error_is_not_taken_for_a_result() {
        let refused = r#"{"start": {}, "end": {}, "error": "unable to connect to server"}"#;
        let error = end_of(refused).unwrap_err().to_string();
        assert_eq!(error, "iperf3: unable to connect to server");
        let error = field(&end_of(r#"{"end": {}}"#).unwrap(), "sum_sent", "bytes").unwrap_err();
        assert_eq!(
            error.to_string(),
            "iperf3 did not report end.sum_sent.bytes"
        );
    }
}
