//! sockperf: datagrams there and back, both ends spinning.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Bench;
use crate::bench::{
    labs::Way,
    load::datagrams::SIZE,
    tools::{Socket, Tool},
    witness::Known,
};

const PORT: u16 = 11_111;
/// What sockperf takes beyond its time.
const GRACE: Duration = Duration::from_secs(10);
/// A 99.9th percentile of fewer is chance.
const FEWEST: f64 = 1_000.0;

/// Microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct RoundTrips {
    pub(super) mean: f64,
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
}

/// Round trips of one datagram after the other.
pub(super) fn ping_pong(bench: &Bench, way: &Way) -> Result<(Known, RoundTrips)> {
    let (address, listening, seconds) = (way.address, way.listening, bench.times.rtt);
    let server = Tool::start(
        way,
        &way.server,
        bench.cores.server,
        &format!("sockperf server -i {listening} -p {PORT} --nonblocked"),
    )?
    .listening(Socket::Udp(listening, PORT))?;
    let client = Tool::start(
        way,
        &way.client,
        bench.cores.client,
        // Its warm-up takes two seconds; it leaves out the first 0.4 s of its time as well.
        &format!(
            "sockperf ping-pong -i {address} -p {PORT} -t {seconds} -m {SIZE} --nonblocked \
             --full-rtt --dontwarmup"
        ),
    )?;
    let report = client.finish(Duration::from_secs(seconds.into()) + GRACE)?;
    drop(server);
    parse(&report)
}

fn parse(report: &str) -> Result<(Known, RoundTrips)> {
    let number = |label: &str| {
        let (_, rest) = report.split_once(label)?;
        let rest = rest.trim_start_matches([' ', '=']);
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        rest[..end].parse::<f64>().ok()
    };
    let read = |label| {
        number(label).with_context(|| format!("sockperf did not report {label:?}: {report}"))
    };
    let trips = RoundTrips {
        mean: read("avg-rtt")?,
        p50: read("percentile 50.000")?,
        p99: read("percentile 99.000")?,
        p999: read("percentile 99.900")?,
    };
    let count = read("ReceivedMessages")?;
    ensure!(
        count >= FEWEST,
        "there were only {count} round trips: the machine is busy, or the path is broken"
    );
    Ok((Known::both(count), trips))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What sockperf 3.7 prints, its colours included.
    const REPORT: &str = "\
sockperf: \u{1b}[2;35m== version #3.7-no.git == \u{1b}[0m
sockperf[CLIENT] send on:sockperf: using recvfrom() to block on socket(s)
[ 0] IP = 10.244.2.10     PORT = 11111 # UDP
sockperf: Starting test...
sockperf: Test end (interrupted by timer)
sockperf: Test ended
sockperf: [Total Run] RunTime=1.000 sec; Warm up time=400 msec; SentMessages=3014; ReceivedMessages=3013
sockperf: ========= Printing statistics for Server No: 0
sockperf: [Valid Duration] RunTime=0.548 sec; SentMessages=1833; ReceivedMessages=1833
sockperf: \u{1b}[2;35m====> avg-rtt=298.863 (std-dev=2178.543)\u{1b}[0m
sockperf: # dropped messages = 0; # duplicated messages = 0; # out-of-order messages = 0
sockperf: Summary: Round trip is 298.863 usec
sockperf: \u{1b}[2;35mTotal 1833 observations\u{1b}[0m; each percentile contains 18.33 observations
sockperf: ---> <MAX> observation = 35872.897
sockperf: ---> percentile 99.999 = 35872.897
sockperf: ---> percentile 99.990 = 35872.897
sockperf: ---> percentile 99.900 = 21669.661
sockperf: ---> percentile 99.000 = 15991.681
sockperf: ---> percentile 90.000 =   18.853
sockperf: ---> percentile 50.000 =   15.268
sockperf: ---> <MIN> observation =   10.479
";

    #[test]
    fn a_report_is_read() {
        let (known, trips) = parse(REPORT).unwrap();
        assert_eq!(known, Known::both(3_013.0));
        let expected = RoundTrips {
            mean: 298.863,
            p50: 15.268,
            p99: 15_991.681,
            p999: 21_669.661,
        };
        assert_eq!(trips, expected);
    }

    #[test]
    fn a_handful_of_round_trips_is_no_result() {
        let few = REPORT.replace("ReceivedMessages=3013", "ReceivedMessages=13");
        assert!(parse(&few).is_err());
        assert!(parse("sockperf: ERROR").is_err());
    }
}
