//! The VXLAN data plane: three TC programs that take packets out of the kernel's overlay,
//! and an XDP program that spares the kernel what it would drop.
//!
//! ```text
//!   container ─ veth ──► from_endpoint ─┬─► another container here
//!   node ───── vxlan ──► from_host ─────┴─► encapsulate ──► underlay
//!   underlay ─ underlay_guard ─► from_underlay ─► decapsulate ──► container
//! ```
//!
//! Each program reads a packet, decides everything, and only then changes it. What it
//! does not understand continues unchanged into the kernel's own bridge, routes and
//! VXLAN device, which would have delivered it as well. Read on in [`egress`] and
//! [`ingress`]: the journey goes down the page, for both families of IP. What sets those
//! apart is in [`family`], [`v4`] and [`v6`].

#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]
#![expect(
    clippy::inline_always,
    reason = "a call passes no packet pointers that the verifier could follow"
)]

mod addresses;
mod bare;
mod checksum;
mod decap;
mod ecn;
mod egress;
mod encap;
mod family;
mod fits;
mod flows;
mod frame;
mod guard;
mod headers;
mod ingress;
#[cfg_attr(not(feature = "watched"), path = "journal/nobody.rs")]
mod journal;
#[cfg(feature = "watched")]
mod messages;
mod neighbours;
mod outer;
mod own;
mod packet;
mod padding;
mod raw;
mod received;
mod stats;
mod strip;
mod tables;
mod v4;
mod v6;
mod verdict;
mod verified;
mod verifier;

use aya_ebpf::{
    bindings::{TC_ACT_REDIRECT, TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use overlay_common::programs::Program;

use crate::{
    packet::Packet,
    raw::Raw,
    received::Received as _,
    verdict::{Exit, Sent},
};

/// TC ingress on the host side of an endpoint's veth.
#[classifier]
fn from_endpoint(ctx: TcContext) -> i32 {
    let (program, mut packet) = (Program::FromEndpoint, Packet::new(ctx));
    let bytes = came(program, &packet);
    let outcome = egress::from_endpoint(&mut packet);
    went(program, &packet, bytes, outcome)
}

/// TC egress on the VXLAN device.
#[classifier]
fn from_host(ctx: TcContext) -> i32 {
    let (program, mut packet) = (Program::FromHost, Packet::new(ctx));
    let bytes = came(program, &packet);
    let outcome = egress::from_host(&mut packet);
    went(program, &packet, bytes, outcome)
}

/// TC egress on the host side of an endpoint's veth: what the kernel delivers.
#[classifier]
fn to_endpoint(ctx: TcContext) -> i32 {
    // It decides nothing, so there is nothing to count.
    let _ = flows::to_endpoint(&mut Packet::new(ctx));
    TC_ACT_UNSPEC
}

/// TC ingress on an underlay interface.
#[classifier]
// Left alone, LLVM makes it a function that the program calls.
#[inline(always)]
fn from_underlay(ctx: TcContext) -> i32 {
    let (program, mut packet) = (Program::FromUnderlay, Packet::new(ctx));
    let bytes = came(program, &packet);
    let outcome = ingress::from_underlay(&mut packet);
    went(program, &packet, bytes, outcome)
}

/// XDP in the driver of an underlay interface: what passes it reaches [`from_underlay`].
#[xdp(frags)]
fn underlay_guard(ctx: XdpContext) -> u32 {
    guarded(ctx)
}

/// The same in the stack, on any device, with packets in one buffer: behind a program of several
/// buffers Linux 6.18 shows programs of TC packets without their Ethernet headers.
#[xdp]
fn generic_guard(ctx: XdpContext) -> u32 {
    guarded(ctx)
}

#[inline(always)]
fn guarded(ctx: XdpContext) -> u32 {
    let mut packet = Raw::new(ctx);
    journal::came(Program::UnderlayGuard, &packet);
    match guard::underlay_guard(&mut packet) {
        // Whoever lets a packet pass does not count it: the next program does.
        Ok(()) | Err(Exit::Pass(..)) => xdp_action::XDP_PASS,
        Err(Exit::Drop(reason, sender)) => {
            let bytes = packet.length();
            stats::dropped(Program::UnderlayGuard, 0, reason, sender, bytes);
            journal::dropped(Program::UnderlayGuard, &packet, reason, sender);
            xdp_action::XDP_DROP
        }
    }
}

/// A packet has come, of so many bytes.
// Not one function with what comes and what goes, around a given one: that would be called, and
// the kernel does not take the type of what it returns.
#[inline(always)]
fn came(program: Program, packet: &Packet) -> usize {
    journal::came(program, packet);
    packet.length()
}

/// Here every packet gets its one action and its one count.
#[inline(always)]
fn went(program: Program, packet: &Packet, bytes: usize, outcome: Result<Sent, Exit>) -> i32 {
    match outcome {
        Ok(sent) => {
            stats::sent(&sent);
            journal::sent(program, packet, &sent);
            TC_ACT_REDIRECT
        }
        Err(Exit::Pass(reason, sender)) => {
            stats::passed(program, packet.interface(), reason, sender, bytes);
            journal::passed(program, packet, reason);
            // Not "accept": other programs on the device have their turn.
            TC_ACT_UNSPEC
        }
        Err(Exit::Drop(reason, sender)) => {
            stats::dropped(program, packet.interface(), reason, sender, bytes);
            journal::dropped(program, packet, reason, sender);
            TC_ACT_SHOT
        }
    }
}

/// The helpers that redirect packets are open to GPL-compatible programs only.
#[cfg(target_arch = "bpf")]
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// The verifier rejects a program from which this loop can be reached.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
