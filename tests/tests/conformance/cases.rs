//! What is shot.

mod inner;
mod outer;
mod truncation;

use overlay_tests::families::Family;

use crate::shot::Shot;

/// Frames that belong together, such as the fragments of a packet.
pub(crate) type Burst = Vec<Vec<u8>>;

/// A case's bursts, made of a frame that arrives.
type Frames = Box<dyn Fn(&Shot) -> Vec<Burst>>;

/// What is told of a frame that arrives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shows {
    /// That it did.
    Arrival,
    /// Its ECN bits.
    Ecn,
}

/// One row of the document.
pub(crate) struct Case {
    pub(crate) name: String,
    /// The family inside the tunnel.
    pub(crate) inner: Family,
    pub(crate) shows: Shows,
    /// Makes it of a frame that arrives; all bursts must fare alike.
    pub(crate) frames: Frames,
}

/// All cases over an underlay of a family.
pub(crate) fn all(over: Family) -> Vec<Case> {
    let mut cases = outer::all(over);
    cases.extend(inner::both());
    cases.extend(inner::ipv4());
    cases.extend(inner::ipv6());
    cases.extend(truncation::all());
    cases
}

/// A case of a single frame, with IPv4 in the tunnel.
fn case(name: impl Into<String>, change: impl Fn(&mut Shot) + 'static) -> Case {
    one(name, Family::V4, move |shot| {
        let mut shot = shot.clone();
        change(&mut shot);
        shot.frame()
    })
}

/// A case of a single frame.
fn one(name: impl Into<String>, inner: Family, frame: impl Fn(&Shot) -> Vec<u8> + 'static) -> Case {
    many(name, inner, move |shot| vec![vec![frame(shot)]])
}

/// A case of several bursts.
fn many(
    name: impl Into<String>,
    inner: Family,
    frames: impl Fn(&Shot) -> Vec<Burst> + 'static,
) -> Case {
    Case {
        name: name.into(),
        inner,
        shows: Shows::Arrival,
        frames: Box::new(frames),
    }
}
