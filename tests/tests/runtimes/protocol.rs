//! netavark's protocol, spoken by hand.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use overlay_tests::guard::Guard;
use serde_json::json;

use crate::{ID, Temporary, nothing_is_left, plugin::netavark, reaches, veths};

#[test]
fn netavark_is_answered_in_its_protocol() -> Result<()> {
    let guard = Guard::pair("tcnm")?;
    let agent = guard.agent(1);
    let before = veths(&agent)?;
    let _place = Temporary::make("tcnm-a")?;
    let node = "tcnm-n1";
    let info = netavark(node, &["info"], &json!({}))?.well()?;
    ensure!(info["api_version"] == "1.0.0");
    let options = json!({ "instance": node, "network": "lab" });
    let network = json!({
        "name": "pods", "id": ID, "driver": "overlay-cni", "created": "2026-01-01T00:00:00Z",
        "ipv6_enabled": false, "internal": false, "dns_enabled": true, "options": options,
    });
    let made = netavark(node, &["create"], &network)?.well()?;
    ensure!(made["dns_enabled"] == false && made["ipam_options"]["driver"] == "none");
    ensure!(made["id"] == ID && made["driver"] == "overlay-cni" && made["options"] == options);
    let mut wrong = network.clone();
    wrong["options"]["network"] = json!("none");
    let refused = netavark(node, &["create"], &wrong)?;
    ensure!(
        !refused.success
            && refused.value()?["error"]
                .as_str()
                .is_some_and(|it| it.contains("none"))
    );

    let asked = json!({
        "container_id": ID, "container_name": "web", "port_mappings": null, "network": made,
        "network_options": {
            "aliases": null, "interface_name": "eth0", "options": null,
            "static_ips": ["10.244.1.88"], "static_mac": null,
        },
    });
    let path = "/run/netns/tcnm-a";
    let block = netavark(node, &["setup", path], &asked)?.well()?;
    let interface = &block["interfaces"]["eth0"];
    ensure!(
        interface["subnets"][0]["ipnet"] == "10.244.1.88/24",
        "{block}"
    );
    ensure!(interface["subnets"][0]["gateway"] == "10.244.1.1");
    reaches("tcnm-n2c1", IpAddr::from([10, 244, 1, 88]))?;
    ensure!(netavark(node, &["setup", path], &asked)?.well()? == block);
    let mut published = asked.clone();
    published["port_mappings"] = json!([{ "container_port": 80, "host_port": 8080 }]);
    ensure!(!netavark(node, &["setup", path], &published)?.success);
    for _ in 0..2 {
        netavark(node, &["teardown", path], &asked)?.well()?;
    }
    nothing_is_left(&agent, before)
}
