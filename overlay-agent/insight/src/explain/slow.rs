//! What stands in the way of a packet besides the programs: a device that is down, and, of what
//! the kernel carries, the packet filter.

use overlay_common::reasons::PassReason;
use overlay_control::explain::{Attached, End};

use super::{
    case::Case,
    kernel, ours, packet_filter,
    stage::{Outcome, Seen},
    underlay,
};

/// Where the packet ends, and what the kernel does with it before.
pub(super) type Told = (Vec<String>, End);

/// What becomes of a packet after the last program that it was given to.
pub(super) async fn after(case: &Case, last: &Seen) -> Told {
    let (sentences, end) = match &last.outcome {
        _ if last.stage.attached == Attached::Nothing => without_program(case, last).await,
        Outcome::Dropped => (Vec::new(), End::Dropped),
        Outcome::Delivered(end) => (Vec::new(), end.clone()),
        Outcome::Passed(reason) => {
            let left = kernel::Left {
                hook: last.hook,
                reason: *reason,
                frame: &last.frame,
            };
            let (mut sentences, delivers) = kernel::takes_over(case, &left).await;
            if *reason == Some(PassReason::Hooked) {
                sentences.extend(case.hooks.iter().cloned());
            }
            let delivers = delivers && !is_filtered(case, last, &mut sentences).await;
            (sentences, End::Kernel { delivers })
        }
    };
    leaves(case, sentences, end).await
}

/// The program was run, but is not attached: the kernel has the packet as it came, and no rule of
/// the program's is asked. What the program makes of it, encapsulated or not, the kernel makes too.
async fn without_program(case: &Case, last: &Seen) -> Told {
    let device = last.stage.device;
    let mut sentences = vec![format!(
        "no program is attached to {device}: the kernel's VXLAN device carries the packet"
    )];
    if let Some(dropped) = ours::drops_too(case, last) {
        sentences.push(dropped);
        return (sentences, End::Kernel { delivers: false });
    }
    let left = kernel::Left {
        hook: last.hook,
        reason: None,
        frame: &last.arrived,
    };
    let (more, delivers) = kernel::takes_over(case, &left).await;
    sentences.extend(more);
    if !delivers {
        return (sentences, End::Kernel { delivers });
    }
    if is_filtered(case, last, &mut sentences).await {
        return (sentences, End::Kernel { delivers: false });
    }
    let end = match &last.outcome {
        Outcome::Delivered(end) => end.clone(),
        Outcome::Dropped | Outcome::Passed(_) => End::Kernel { delivers },
    };
    (sentences, end)
}

/// Whether the packet filter drops it where the kernel carries it; it is told.
async fn is_filtered(case: &Case, last: &Seen, sentences: &mut Vec<String>) -> bool {
    match packet_filter::drops(case, last).await {
        Ok(Some(place)) => {
            sentences.push(format!("packet filter: {place} drops it"));
            return true;
        }
        Ok(None) => {}
        Err(error) => sentences.push(format!("packet filter: not looked at: {error}")),
    }
    false
}

/// Whether the underlay takes what is sent by it.
async fn leaves(case: &Case, mut sentences: Vec<String>, end: End) -> Told {
    let End::Underlay {
        device: Some(device),
        vtep,
        ..
    } = &end
    else {
        return (sentences, end);
    };
    match underlay::by_program(case, *device, *vtep).await {
        Ok(()) => (sentences, end),
        Err(why) => {
            sentences.push(format!("underlay: {why}"));
            (sentences, End::Kernel { delivers: false })
        }
    }
}
