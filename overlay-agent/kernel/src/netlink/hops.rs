//! All next hops of a way, where a route has several.

use overlay_core::surroundings::{Hop, Question};
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    route::{RouteAttribute, RouteFlags, RouteNextHop, RouteNextHopFlags},
};

use super::{
    Bulk, Netlink, Request,
    routes::{address, via},
    ways::{asking, no_way},
};
use crate::Result;

impl Netlink {
    /// The next hops that the kernel chooses among: those that live; none where the route has one.
    pub async fn hops_of(&self, question: Question) -> Result<Vec<Hop>> {
        match self.get(message(question)).await {
            Ok(answer) => Ok(hops(&answer)),
            Err(refusal) => no_way(refusal, question.to).map(|_| Vec::new()),
        }
    }
}

impl Bulk {
    /// As [`Netlink::hops_of`], for each of many questions.
    pub fn hops_of(&mut self, questions: &[Question]) -> Result<Vec<Vec<Hop>>> {
        let ask = |question: &Question| Request {
            message: message(*question),
            flags: 0,
        };
        let answers = self.ask(questions.iter().map(ask).collect());
        let answered = questions.iter().zip(answers);
        let hops = answered.map(|(question, answer)| match answer {
            Ok(answer) => Ok(answer.as_ref().map(hops).unwrap_or_default()),
            Err(refusal) => no_way(refusal, question.to).map(|_| Vec::new()),
        });
        hops.collect()
    }
}

/// Asks for the route that the answer is from, with all that it has (`RTM_F_FIB_MATCH`).
fn message(question: Question) -> RouteNetlinkMessage {
    let mut message = asking(question);
    message.header.flags |= RouteFlags::FibMatch;
    RouteNetlinkMessage::GetRoute(message)
}

fn hops(answer: &RouteNetlinkMessage) -> Vec<Hop> {
    let RouteNetlinkMessage::NewRoute(route) = answer else {
        return Vec::new();
    };
    let lists = route.attributes.iter().filter_map(|attribute| {
        if let RouteAttribute::MultiPath(hops) = attribute {
            Some(hops)
        } else {
            None
        }
    });
    // One without a carrier counts as dead where the kernel is told to pass over it.
    let lives = |hop: &&RouteNextHop| !hop.flags.contains(RouteNextHopFlags::Dead);
    lists.flatten().filter(lives).map(hop).collect()
}

fn hop(hop: &RouteNextHop) -> Hop {
    let gateway = hop.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(found) => address(found),
        RouteAttribute::Via(found) => via(found),
        _ => None,
    });
    Hop {
        oif: hop.interface_index,
        gateway,
        // `rtnh_hops` is one less than the weight.
        weight: u16::from(hop.hops) + 1,
    }
}
