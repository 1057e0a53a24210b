//! Settings of bridges and their ports: what they are made with, and whether they still are.

use rtnetlink::packet_route::link::{
    BridgePortState, BridgeStpState, InfoBridge, InfoBridgePort, InfoData, InfoKind, LinkInfo,
};

/// The settings of a bridge that decide what it forwards.
pub(super) fn made_with() -> Vec<LinkInfo> {
    bridge(vec![
        InfoBridge::ForwardDelay(0),
        InfoBridge::StpState(BridgeStpState::Disabled),
        InfoBridge::GroupFwdMask(0),
    ])
}

/// The one of them that the others depend on.
pub(super) fn without_stp() -> Vec<LinkInfo> {
    bridge(vec![InfoBridge::StpState(BridgeStpState::Disabled)])
}

fn bridge(settings: Vec<InfoBridge>) -> Vec<LinkInfo> {
    vec![
        LinkInfo::Kind(InfoKind::Bridge),
        LinkInfo::Data(InfoData::Bridge(settings)),
    ]
}

/// Whether one of those settings is another one.
pub(super) fn is_altered(settings: &[InfoBridge]) -> bool {
    settings.iter().any(|setting| match setting {
        InfoBridge::ForwardDelay(delay) => *delay != 0,
        InfoBridge::StpState(state) => *state != BridgeStpState::Disabled,
        InfoBridge::GroupFwdMask(mask) => *mask != 0,
        _ => false,
    })
}

/// Whether a port has flags that it was not born with.
pub(super) fn is_port_altered(settings: &[InfoBridgePort]) -> bool {
    settings.iter().any(|setting| match setting {
        InfoBridgePort::State(state) => matches!(
            state,
            BridgePortState::Listening | BridgePortState::Learning | BridgePortState::Blocking
        ),
        InfoBridgePort::Learning(on)
        | InfoBridgePort::UnicastFlood(on)
        | InfoBridgePort::MulticastFlood(on)
        | InfoBridgePort::BroadcastFlood(on) => !on,
        InfoBridgePort::HairpinMode(on)
        | InfoBridgePort::Guard(on)
        | InfoBridgePort::Protect(on)
        | InfoBridgePort::ProxyARP(on)
        | InfoBridgePort::ProxyARPWifi(on)
        | InfoBridgePort::VlanTunnel(on)
        | InfoBridgePort::NeighSupress(on)
        | InfoBridgePort::Isolated(on)
        | InfoBridgePort::Locked(on) => *on,
        _ => false,
    })
}
