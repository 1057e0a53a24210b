//! Namespaces, sysctls, privileges.

use overlay_kernel::{capability, netns, sysctl};

use crate::namespace::Namespace;

#[test]
fn a_namespace_is_one_for_iproute2_too() {
    let namespace = Namespace::new();
    let id = netns::id(&namespace.path()).unwrap().unwrap();
    let inside = netns::run_in(&namespace.path(), || {
        netns::id("/proc/thread-self/ns/net".as_ref())
    });
    assert_eq!(inside.unwrap().unwrap(), Some(id));
    let own = netns::id("/proc/self/ns/net".as_ref()).unwrap().unwrap();
    assert_ne!(own, id);
    let loopback = namespace.run("ip -o link show dev lo");
    assert!(loopback.contains("LOOPBACK,UP"), "{loopback}");

    // Another one does not get the name, and is not taken for the one that has it.
    let other = netns::create().unwrap();
    let others = other.made.clone();
    let error = other.name(&namespace.name).unwrap_err();
    assert!(error.already_there(), "{error}");
    assert!(!netns::delete(&namespace.name, &others).unwrap());
    assert_eq!(netns::id(&namespace.path()).unwrap(), Some(id));

    let (name, made) = (namespace.name.clone(), namespace.made.clone());
    drop(namespace);
    assert_eq!(netns::id(&netns::path_of(&name)).unwrap(), None);
    assert!(!netns::delete(&name, &made).unwrap());
    assert_eq!(netns::id("/proc/self/status".as_ref()).unwrap(), None);
}

#[test]
fn sysctls_are_those_of_the_namespace() {
    let namespace = Namespace::new();
    let key = "net/ipv4/ip_forward";
    let read = || {
        netns::run_in(&namespace.path(), || sysctl::read(key))
            .unwrap()
            .unwrap()
    };
    let before = read().unwrap();
    let other = if before == "0" { "1" } else { "0" };
    netns::run_in(&namespace.path(), || sysctl::write(key, other))
        .unwrap()
        .unwrap();
    assert_eq!(read().as_deref(), Some(other));
    let here = sysctl::read("net/ipv4/conf/lo/rp_filter").unwrap();
    assert!(here.is_some());
}

#[test]
fn root_has_what_the_agent_needs() {
    capability::check_privileges().unwrap();
    capability::check_kernel_release().unwrap();
}
