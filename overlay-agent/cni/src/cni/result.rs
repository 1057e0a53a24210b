//! Results, in the version that was asked with.

use ipnet::IpNet;
use overlay_api::Attached;
use serde_json::{Map, Value, json};

use super::{Code, Error, Result, config::Config, environment::Environment};

/// The result of an attachment, behind what plugins before this one have made.
pub(super) fn build(
    config: &Config,
    environment: &Environment,
    attached: &Attached,
) -> Result<Value> {
    let mut result = match &config.previous {
        Some(Value::Object(previous)) => previous.clone(),
        _ => Map::new(),
    };
    result.insert("cniVersion".to_owned(), json!(config.version));
    let interfaces = list(&mut result, "interfaces")?;
    interfaces.push(json!({ "name": attached.device }));
    let mut inside = json!({
        "name": environment.interface,
        "mac": attached.mac,
        "sandbox": environment.netns,
    });
    if config.version == "1.1.0" {
        inside["mtu"] = json!(attached.mtu);
    }
    interfaces.push(inside);
    let index = interfaces.len() - 1;
    let ips = list(&mut result, "ips")?;
    for address in &attached.addresses {
        let mut ip = json!({
            "address": address.net,
            "gateway": address.gateway,
            "interface": index,
        });
        if config.version.starts_with("0.") {
            ip["version"] = json!(if address.net.addr().is_ipv4() {
                "4"
            } else {
                "6"
            });
        }
        ips.push(ip);
    }
    let routes = list(&mut result, "routes")?;
    for address in attached
        .addresses
        .iter()
        .filter(|address| address.default_route)
    {
        let everything = if address.gateway.is_ipv4() {
            "0.0.0.0/0"
        } else {
            "::/0"
        };
        routes.push(json!({ "dst": everything, "gw": address.gateway }));
    }
    // Who has configured something else knows better.
    let ours = attached
        .dns
        .as_ref()
        .map(|dns| json!({ "nameservers": dns.servers, "search": dns.search }));
    if let Some(dns) = config.dns.clone().or(ours) {
        result.entry("dns").or_insert(dns);
    }
    Ok(Value::Object(result))
}

fn list<'a>(result: &'a mut Map<String, Value>, key: &str) -> Result<&'a mut Vec<Value>> {
    let list = result.entry(key).or_insert_with(|| json!([]));
    if list.is_null() {
        *list = json!([]);
    }
    list.as_array_mut().ok_or_else(|| {
        Error::new(
            Code::Decode,
            format!("read {key:?} of prevResult: it is not a list"),
        )
    })
}

/// The addresses that the container's interface should have by `prevResult`, and where routes by
/// the gateways of these addresses should lead.
pub(super) fn expected(
    config: &Config,
    environment: &Environment,
) -> Result<(Vec<IpNet>, Vec<IpNet>)> {
    let Some(previous) = &config.previous else {
        return Err(Error::new(
            Code::Config,
            "check the container: prevResult is missing; the runtime has to hand it over",
        ));
    };
    let all = |key: &str| {
        previous
            .get(key)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
    };
    let interfaces: Vec<&Value> = all("interfaces").collect();
    let is_ours = |ip: &&Value| {
        let index = ip.get("interface").and_then(Value::as_u64);
        let index = index.and_then(|index| usize::try_from(index).ok());
        let interface = index.and_then(|index| interfaces.get(index));
        interface.is_some_and(|interface| {
            let inside = interface.get("sandbox").and_then(Value::as_str);
            interface.get("name").and_then(Value::as_str) == Some(&environment.interface)
                && inside.is_some_and(|inside| !inside.is_empty())
        })
    };
    let ours: Vec<&Value> = all("ips").filter(is_ours).collect();
    if ours.is_empty() {
        return Err(Error::new(
            Code::Config,
            format!(
                "check the container: prevResult has no address of {}",
                environment.interface
            ),
        ));
    }
    let net = |value: Option<&Value>| {
        let text = value.and_then(Value::as_str).unwrap_or_default();
        text.parse::<IpNet>().map_err(|_| {
            Error::new(
                Code::Decode,
                format!("read prevResult: {text:?} is not an address with its length"),
            )
        })
    };
    let addresses = ours.iter().map(|ip| net(ip.get("address")));
    let by_ours = |route: &&Value| {
        let gateway = route.get("gw").filter(|gateway| gateway.is_string());
        gateway.is_some() && ours.iter().any(|ip| ip.get("gateway") == gateway)
    };
    let routes = all("routes").filter(by_ours);
    let routes = routes.map(|route| net(route.get("dst")));
    Ok((
        addresses.collect::<Result<_>>()?,
        routes.collect::<Result<_>>()?,
    ))
}
