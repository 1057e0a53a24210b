//! A key that takes another one's place, step by step, as the node of that key sees it and as a peer does.

use std::collections::BTreeSet;

use super::{wireguard::encrypted, *};
use crate::{model::PublicKey, plan::Step};

const PEER: &str = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";
const OLD: PublicKey = PublicKey::new([1; PublicKey::LENGTH]);
const NEW: PublicKey = PublicKey::new([2; PublicKey::LENGTH]);

fn peer() -> PublicKey {
    PEER.parse().unwrap()
}

fn first() -> IfName {
    name("ovlwg7")
}

fn second() -> IfName {
    name("ovlwgn7")
}

/// What is there once all that was wanted has been done.
fn done(mut observed: Observed, wanted: &Desired) -> Observed {
    observed.objects = wanted.objects.clone();
    for (index, device) in (20..).zip([first(), second()]) {
        let link = NodeLink {
            index,
            ours: true,
            ..NodeLink::default()
        };
        observed.around.links.insert(device, link);
    }
    observed
}

/// By which devices the peers' packets go, on either path.
fn ways(wanted: &Desired) -> Vec<(String, IfName)> {
    let fdb = wanted.objects.peers.fdb.values();
    let by_kernel = fdb.map(|outer| (outer.vtep.to_string(), outer.via.unwrap()));
    let by_kernel: BTreeSet<_> = by_kernel.collect();
    let rows = wanted.objects.peers.entries.subnets.values();
    let fast = rows.filter_map(|row| match row.underlay {
        crate::objects::LinkRef::Name(link) => Some((row.vtep.to_string(), link)),
        crate::objects::LinkRef::Gone(_) => None,
    });
    let fast: BTreeSet<_> = fast.collect();
    assert!(fast.is_subset(&by_kernel), "{fast:?} {by_kernel:?}");
    by_kernel.into_iter().collect()
}

fn both_by(one: IfName, other: IfName) -> Vec<(String, IfName)> {
    vec![
        ("192.168.56.12".to_owned(), one),
        ("192.168.60.13".to_owned(), other),
    ]
}

/// The steps from what is there to what is wanted, but for what programs and settings need.
fn steps(observed: &Observed, wanted: &Desired) -> Vec<String> {
    let plan = plan(&observed.objects, &wanted.objects);
    let steps = plan.steps().iter();
    let of_keys = steps.filter(|step| {
        matches!(
            step,
            Step::SetWireguard { .. }
                | Step::SetWireguardPeer { .. }
                | Step::SetWireguardKeepalive { .. }
                | Step::DeleteWireguardPeer { .. }
                | Step::CreateLink { .. }
                | Step::DeleteLink { .. }
                | Step::SetGuard { .. }
        )
    });
    of_keys.map(ToString::to_string).collect()
}

fn agreed(observed: &mut Observed, device: IfName, keys: &[PublicKey]) {
    let keys = keys.iter().copied().collect();
    observed.around.agreed.insert(device, keys);
}

#[test]
fn a_node_gets_another_key_without_a_moment_in_which_a_peer_does_not_know_it() {
    let config = encrypted();
    let mut start = bare();
    start.around.public_key = Some(OLD);
    let before = build(&config, &start).unwrap();
    let mut observed = done(start, &before);
    observed.around.links.remove(&second());
    assert!(!before.objects.wireguard.contains_key(&second()));

    // The next key: another device, behind a guard that lets in what it decrypts. Nothing is sent by it.
    observed.around.next_public_key = Some(NEW);
    let wanted = build(&config, &observed).unwrap();
    let told = steps(&observed, &wanted);
    let place = |text: &str| told.iter().position(|step| step.contains(text));
    let (made, guarded) = (place("add wireguard ovlwgn7"), place("guard UDP"));
    let spoken = place(&format!("set wireguard ovlwgn7 peer {PEER}"));
    assert!(made < guarded && guarded < spoken, "{told:#?}");
    assert!(
        !told.iter().any(|step| step.contains("ovlwg7 ")),
        "{told:#?}"
    );
    let settings = &wanted.objects.wireguard[&second()];
    assert_eq!((settings.public_key, settings.port), (Some(NEW), 51_821));
    assert!(settings.peers.values().all(|peer| peer.keepalive > 0));
    assert_eq!(ways(&wanted), both_by(first(), first()));
    let guard = wanted.facts.guard.as_ref().unwrap();
    let devices = &guard.encrypted.values().next().unwrap().1;
    assert_eq!(*devices, BTreeSet::from([first(), second()]));

    // One of the peers has agreed: only what is for it goes by that device.
    observed = done(observed, &wanted);
    agreed(&mut observed, first(), &[peer()]);
    agreed(&mut observed, second(), &[peer()]);
    let wanted = build(&config, &observed).unwrap();
    assert_eq!(ways(&wanted), both_by(second(), first()));
    assert_eq!(steps(&observed, &wanted), [""; 0]);
    // And back where that does not hold any more.
    agreed(&mut observed, second(), &[]);
    let back = build(&config, &observed).unwrap();
    assert_eq!(ways(&back), both_by(first(), first()));

    // The other one, too; then the old key goes. What was agreed on by it counts no more.
    let other = "B6N8vBQgk8i3VdwbEOhstCY3StFqqFPtC9/AsrhtHHw=";
    let both = [peer(), other.parse().unwrap()];
    observed = done(observed, &wanted);
    agreed(&mut observed, first(), &both);
    agreed(&mut observed, second(), &both);
    observed = done(observed.clone(), &build(&config, &observed).unwrap());
    (observed.around.public_key, observed.around.next_public_key) = (Some(NEW), None);
    let wanted = build(&config, &observed).unwrap();
    assert_eq!(ways(&wanted), both_by(second(), second()));
    let told = steps(&observed, &wanted);
    assert!(
        told.len() == 3 && told.iter().all(|step| step.contains("ovlwg7 ")),
        "the first device's key and two peers: {told:#?}"
    );

    // The first device has agreed with the new key, and takes over; not one address is told anew.
    observed = done(observed, &wanted);
    agreed(&mut observed, first(), &[]);
    assert_eq!(
        ways(&build(&config, &observed).unwrap()),
        both_by(second(), second())
    );
    agreed(&mut observed, first(), &both);
    let wanted = build(&config, &observed).unwrap();
    assert_eq!(ways(&wanted), both_by(first(), first()));
    let told = steps(&observed, &wanted);
    assert_eq!(told.len(), 4, "{told:#?}");
    assert!(told.iter().all(|step| step.contains("keepalive 0 s")));

    // Somebody may still send by the second one: it goes when nobody does.
    observed = done(observed, &wanted);
    let wanted = build(&config, &observed).unwrap();
    assert_eq!(steps(&observed, &wanted), [""; 0]);
    observed.around.silent.insert(second());
    let wanted = build(&config, &observed).unwrap();
    let told = steps(&observed, &wanted);
    assert!(
        told.iter()
            .any(|step| step.contains("delete") && step.contains("ovlwgn7")),
        "{told:#?}"
    );
    assert!(!wanted.objects.links.contains_key(&LinkId::node(second())));
}

#[test]
fn a_peer_s_next_key_is_spoken_with_beside_the_one_of_now() {
    let old = peer();
    let next = NEW.to_string();
    let config = encrypted().replace(
        &format!("public_key = \"{PEER}\""),
        &format!("public_key = \"{PEER}\"\nnext_public_key = \"{next}\""),
    );
    let mut observed = bare();
    observed.around.public_key = Some(OLD);
    let wanted = build(&config, &observed).unwrap();
    let settings = &wanted.objects.wireguard;
    assert!(settings[&first()].peers.contains_key(&old));
    assert_eq!(settings[&second()].public_key, Some(OLD));
    let keys: Vec<_> = settings[&second()].peers.keys().copied().collect();
    assert_eq!(keys, [NEW], "only with whom something changes");
    observed = done(observed, &wanted);
    agreed(&mut observed, second(), &[NEW]);
    let wanted = build(&config, &observed).unwrap();
    assert_eq!(ways(&wanted), both_by(second(), first()));

    // It is the peer's key now. Nothing changes by the second device until the first one has agreed.
    observed = done(observed, &wanted);
    let config = encrypted().replace(PEER, &next);
    let wanted = build(&config, &observed).unwrap();
    assert_eq!(ways(&wanted), both_by(second(), first()));
    let told = steps(&observed, &wanted);
    let expected = [
        format!("delete peer {PEER} of wireguard ovlwg7"),
        format!("set wireguard ovlwg7 peer {next} 192.168.56.12"),
    ];
    assert_eq!(told, expected);
    observed = done(observed, &wanted);
    agreed(&mut observed, first(), &[NEW]);
    let wanted = build(&config, &observed).unwrap();
    assert_eq!(ways(&wanted), both_by(first(), first()));
}
