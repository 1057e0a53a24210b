//! A path over IPv6 that is narrower than the link. A router on it would tell; here a route
//! does, which the kernel reports in the same words.

use anyhow::Result;
use overlay_tests::{
    check::path_mtu,
    families::{Families, Family},
    guard::Guard,
    poll, run,
    script::inside,
    shape::{Scenario, Shape},
    topology::UNDERLAY,
    traffic::Pair,
};

#[test]
fn what_it_carries_is_told_to_containers() -> Result<()> {
    let shape = Shape::of("tpath", Scenario::Overlay, 2, 1)?;
    let guard = Guard::up(shape.speaking(Families::V6, Families::Both)?)?;
    let [here, there] = guard.topology().two_nodes();
    let (from, to) = (&here.containers[0].namespace, &there.containers[0]);
    let vtep = there.underlay_at(Family::V6);
    let path = format!("{vtep}/128 dev {UNDERLAY}");
    let route = |change: &str| run::checked(format!("ip -n {} -6 route {change}", here.namespace));
    route(&format!("add {path} mtu 1400"))?;

    for family in [Family::V4, Family::V6] {
        let address = to.at(family);
        let ping = |size: u16| {
            let data = size - family.header() - 8;
            let line = format!("ping -n -c 1 -W 5 -M do -s {data} {address}");
            run::output(inside(from, line))
        };
        let told = poll::until_well(|| match ping(1331) {
            Ok(answer) if answer.success => Some(answer.stdout),
            Ok(_) => match path_mtu(from, address) {
                Ok(1330) => None,
                other => Some(format!("{other:?}")),
            },
            Err(error) => Some(error.to_string()),
        });
        assert_eq!(told, Ok(()), "{address}");
        let fits = ping(1330)?;
        assert!(fits.success, "{}{}", fits.stdout, fits.stderr);
        let pair = Pair {
            client: from,
            server: &to.namespace,
            address,
        };
        pair.tcp(&[1 << 20])?;
    }

    route(&format!("del {path}"))?;
    let widened = poll::until_well(|| match route("show proto 111") {
        Ok(routes) => routes.contains("mtu").then_some(routes),
        Err(error) => Some(error.to_string()),
    });
    assert_eq!(widened, Ok(()));
    Ok(guard.down()?)
}
