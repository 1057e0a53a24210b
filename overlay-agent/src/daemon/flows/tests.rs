use std::collections::BTreeMap;

use bytemuck::Zeroable as _;
use overlay_common::maps::{
    self,
    network_flags::{HOOKED, ONE_PATH, TRACKED},
};
use overlay_core::{
    objects::{AttachmentState, Hook, Objects},
    plan::plan,
};

use super::begins;

/// A node that has a network with these flags, if it has it, and programs on these hooks.
fn node(flags: Option<u32>, hooks: &[Hook]) -> Objects {
    let mut objects = Objects::default();
    let rows = flags.map(|flags| {
        let network = maps::Network {
            flags,
            ..maps::Network::zeroed()
        };
        (7.try_into().unwrap(), network)
    });
    objects.entries.networks = BTreeMap::from_iter(rows);
    let attached = hooks.iter().map(|hook| {
        let device = "eth1".parse().unwrap();
        ((device, *hook), AttachmentState::Current)
    });
    objects.attachments.extend(attached);
    objects
}

#[test]
fn connection_tracking_is_asked_only_where_the_programs_have_missed_something() {
    let fast = Some(0);
    for (before, after, expected) in [
        // A network that comes, or that rules do not follow any more.
        (None, fast, true),
        (None, Some(HOOKED), true),
        (Some(TRACKED), fast, true),
        (Some(TRACKED), Some(HOOKED), true),
        (Some(TRACKED | HOOKED), Some(ONE_PATH), true),
        // One that is left to the kernel, in part or as a whole.
        (fast, Some(TRACKED), false),
        (fast, Some(HOOKED), false),
        (fast, Some(ONE_PATH), false),
        (None, Some(TRACKED), false),
        (Some(TRACKED), Some(TRACKED | HOOKED), false),
        // What leaves the kernel was looked at all the time.
        (Some(HOOKED), fast, false),
        (Some(ONE_PATH), fast, false),
        (fast, None, false),
    ] {
        let (before, after) = (node(before, &[]), node(after, &[]));
        let plan = plan(&before, &after);
        assert!(!plan.is_empty());
        let begins = begins(&plan, &before.entries.networks);
        assert_eq!(begins, expected, "{plan}");
    }
}

#[test]
fn programs_that_come_have_missed_what_was_before() {
    for (hook, expected) in [
        (Hook::FromUnderlay, true),
        (Hook::FromHost, true),
        (Hook::GuardNative, true),
        // Of a container's programs: looked for behind.
        (Hook::FromEndpoint, false),
    ] {
        let before = node(Some(0), &[]);
        let plan = plan(&before, &node(Some(0), &[hook]));
        assert!(!plan.is_empty());
        let begins = begins(&plan, &before.entries.networks);
        assert_eq!(begins, expected, "{plan}");
    }
    let before = node(Some(0), &[Hook::FromUnderlay]);
    let goes = plan(&before, &node(Some(0), &[]));
    assert!(!goes.is_empty());
    assert!(!begins(&goes, &before.entries.networks));
}
