//! How a question is answered.

use std::net::IpAddr;

use hickory_proto::{
    op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, LowerName, Name, RData, Record, RecordType,
        rdata::{PTR, SOA},
    },
};

use crate::room::Room;

/// Seconds for which an answer, and the lack of one, may be remembered: containers come and go.
const TTL: u32 = 5;
/// Bytes of a datagram that arrives without being cut up, whatever the asker would take.
const MAX_DATAGRAM: u16 = 1232;

/// How a question is answered.
#[derive(Debug)]
pub enum Verdict {
    /// This is the answer.
    Answer(Vec<u8>),
    /// Others may know; with the answer if they do not.
    AskPeers(Box<Message>),
    /// Others are asked as it is.
    Forward,
    /// It is no question.
    Ignore,
}

/// How an answer gets to who has asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Udp,
    Tcp,
}

/// Decides what becomes of a datagram.
pub fn judge(bytes: &[u8], room: &Room) -> Verdict {
    decide(bytes, room, By::Udp)
}

pub(crate) fn decide(bytes: &[u8], room: &Room, by: By) -> Verdict {
    let Ok(question) = Message::from_vec(bytes) else {
        return malformed(bytes);
    };
    if question.metadata.message_type != MessageType::Query {
        return Verdict::Ignore;
    }
    let mut answer = response(&question);
    let fails = |mut answer: Message, code| {
        answer.metadata.response_code = code;
        finish(&answer, &question, by)
    };
    if question.metadata.op_code != OpCode::Query {
        return fails(answer, ResponseCode::NotImp);
    }
    let [query] = question.queries.as_slice() else {
        return fails(answer, ResponseCode::FormErr);
    };
    if query.query_class != DNSClass::IN {
        return fails(answer, ResponseCode::Refused);
    }
    let name = LowerName::new(query.name());
    let found = match place(room, &name) {
        Place::Here => room.hosts.get(&name).map(|all| records(query, all)),
        Place::Address(address) => room.names.get(&address).map(|host| pointer(query, host)),
        Place::Top => Some(Vec::new()),
        Place::Nowhere => None,
        Place::Elsewhere if question.metadata.recursion_desired => return Verdict::Forward,
        Place::Elsewhere => return fails(answer, ResponseCode::Refused),
    };
    answer.metadata.authoritative = true;
    let is_known = found.is_some();
    match found {
        Some(records) if !records.is_empty() => {
            answer.add_answers(records);
        }
        _ => {
            answer.add_authority(authority(room));
        }
    }
    if is_known {
        return finish(&answer, &question, by);
    }
    answer.metadata.response_code = ResponseCode::NXDomain;
    let others = !room.peers.is_empty() && question.metadata.recursion_desired;
    if others && !matches!(place(room, &name), Place::Nowhere) {
        return Verdict::AskPeers(Box::new(answer));
    }
    finish(&answer, &question, by)
}

/// Where a name belongs.
enum Place {
    /// To a host of the network
    Here,
    /// It stands for an address of the network
    Address(IpAddr),
    /// It is the domain itself, or what it is in
    Top,
    /// To a network that is not this one
    Nowhere,
    /// To others
    Elsewhere,
}

fn place(room: &Room, name: &LowerName) -> Place {
    let (origin, zone) = (room.origin.name(), room.zone.name());
    if name == origin || name == zone {
        return Place::Top;
    }
    if zone.zone_of(name) {
        return Place::Here;
    }
    if origin.zone_of(name) {
        return Place::Nowhere;
    }
    match Name::from(name.clone()).parse_arpa_name() {
        Ok(net) if net.prefix_len() == net.max_prefix_len() && room.is_home_of(net.addr()) => {
            Place::Address(net.addr())
        }
        _ => Place::Elsewhere,
    }
}

fn records(query: &Query, addresses: &[IpAddr]) -> Vec<Record> {
    let kind = query.query_type();
    let data = addresses.iter().map(|address| match *address {
        IpAddr::V4(address) => RData::A(address.into()),
        IpAddr::V6(address) => RData::AAAA(address.into()),
    });
    let wanted = data.filter(|it| kind == RecordType::ANY || it.record_type() == kind);
    wanted
        .map(|it| Record::from_rdata(query.name().clone(), TTL, it))
        .collect()
}

fn pointer(query: &Query, host: &LowerName) -> Vec<Record> {
    if !matches!(query.query_type(), RecordType::PTR | RecordType::ANY) {
        return Vec::new();
    }
    let data = RData::PTR(PTR(host.clone().into()));
    vec![Record::from_rdata(query.name().clone(), TTL, data)]
}

/// The SOA record of a negative answer, with its TTL.
fn authority(room: &Room) -> Record {
    let zone: Name = room.zone.name().clone().into();
    let seconds = i32::try_from(TTL).unwrap_or(i32::MAX);
    let data = SOA::new(
        zone.clone(),
        zone.clone(),
        1,
        seconds,
        seconds,
        seconds,
        TTL,
    );
    Record::from_rdata(zone, TTL, RData::SOA(data))
}

fn response(question: &Message) -> Message {
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.metadata = Metadata::response_from_request(&question.metadata);
    answer.metadata.recursion_available = true;
    answer.add_queries(question.queries.iter().cloned());
    if question.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(MAX_DATAGRAM);
        answer.set_edns(edns);
    }
    answer
}

fn finish(answer: &Message, question: &Message, by: By) -> Verdict {
    written(answer, question, by).map_or(Verdict::Ignore, Verdict::Answer)
}

/// As bytes that fit.
pub(crate) fn written(answer: &Message, question: &Message, by: By) -> Option<Vec<u8>> {
    let bytes = answer.to_vec().ok()?;
    let room = question.max_payload().min(MAX_DATAGRAM);
    if by == By::Tcp || bytes.len() <= usize::from(room) {
        return Some(bytes);
    }
    answer.truncate().to_vec().ok()
}

/// A malformed question is answered with an error, if it has an identifier.
fn malformed(bytes: &[u8]) -> Verdict {
    let [first, second, flags, ..] = *bytes else {
        return Verdict::Ignore;
    };
    if bytes.len() < 12 || flags & 0x80 != 0 {
        return Verdict::Ignore;
    }
    let id = u16::from_be_bytes([first, second]);
    let answer = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr);
    answer.to_vec().map_or(Verdict::Ignore, Verdict::Answer)
}

/// That it could not be found out.
pub(crate) fn failure(bytes: &[u8]) -> Option<Vec<u8>> {
    let question = Message::from_vec(bytes).ok()?;
    let mut answer = response(&question);
    answer.metadata.response_code = ResponseCode::ServFail;
    answer.to_vec().ok()
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::rdata::A;

    use super::*;

    fn room(peers: &[&str]) -> Room {
        let mut room = Room::new(
            "overlay.internal".parse().unwrap(),
            "lab",
            vec!["10.244.0.0/16".parse().unwrap()],
            peers.iter().map(|it| it.parse().unwrap()).collect(),
            Vec::new(),
        )
        .unwrap();
        room.add("web", &["10.244.1.2".parse().unwrap()]);
        room.add("Web", &["10.244.1.3".parse().unwrap()]);
        room.add("not a name", &["10.244.1.4".parse().unwrap()]);
        room
    }

    fn ask(name: &str, kind: RecordType, recursion: bool, room: &Room) -> Verdict {
        let mut question = Message::query();
        question.metadata.recursion_desired = recursion;
        question.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        judge(&question.to_vec().unwrap(), room)
    }

    fn answer(verdict: Verdict) -> Message {
        match verdict {
            Verdict::Answer(bytes) => Message::from_vec(&bytes).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn containers_are_known_by_name_and_by_address() {
        let room = room(&[]);
        let told = answer(ask("WEB.lab.overlay.internal.", RecordType::A, true, &room));
        assert!(told.metadata.authoritative);
        let addresses: Vec<_> = told.answers.iter().map(|it| it.data.clone()).collect();
        let both = [[10, 244, 1, 2], [10, 244, 1, 3]];
        assert_eq!(addresses, both.map(|it| RData::A(A(it.into()))));

        let told = answer(ask(
            "2.1.244.10.in-addr.arpa.",
            RecordType::PTR,
            true,
            &room,
        ));
        assert_eq!(
            told.answers[0].data.to_string(),
            "web.lab.overlay.internal."
        );
    }

    #[test]
    fn what_is_not_there_is_denied_by_who_may() {
        let room = room(&[]);
        for (name, kind, code, forward) in [
            (
                "web.lab.overlay.internal.",
                RecordType::AAAA,
                ResponseCode::NoError,
                false,
            ),
            (
                "db.lab.overlay.internal.",
                RecordType::A,
                ResponseCode::NXDomain,
                false,
            ),
            (
                "web.other.overlay.internal.",
                RecordType::A,
                ResponseCode::NXDomain,
                false,
            ),
            (
                "overlay.internal.",
                RecordType::A,
                ResponseCode::NoError,
                false,
            ),
            (
                "9.1.244.10.in-addr.arpa.",
                RecordType::PTR,
                ResponseCode::NXDomain,
                false,
            ),
            (
                "9.1.245.10.in-addr.arpa.",
                RecordType::PTR,
                ResponseCode::NoError,
                true,
            ),
            ("example.org.", RecordType::A, ResponseCode::NoError, true),
        ] {
            let verdict = ask(name, kind, true, &room);
            if forward {
                assert!(matches!(verdict, Verdict::Forward), "{name}: {verdict:?}");
                continue;
            }
            let told = answer(verdict);
            assert_eq!(told.metadata.response_code, code, "{name}");
            assert!(told.answers.is_empty(), "{name}");
            assert_eq!(told.authorities.len(), 1, "{name}");
        }
    }

    #[test]
    fn peers_are_asked_once_and_ask_nobody() {
        let room = room(&["10.244.2.1"]);
        let name = "db.lab.overlay.internal.";
        let verdict = ask(name, RecordType::A, true, &room);
        assert!(matches!(verdict, Verdict::AskPeers(_)), "{verdict:?}");
        let told = answer(ask(name, RecordType::A, false, &room));
        assert_eq!(told.metadata.response_code, ResponseCode::NXDomain);
        // A name of a network that is not this one is nobody's.
        let other = ask("db.other.overlay.internal.", RecordType::A, true, &room);
        assert_eq!(answer(other).metadata.response_code, ResponseCode::NXDomain);
        let refused = answer(ask("example.org.", RecordType::A, false, &room));
        assert_eq!(refused.metadata.response_code, ResponseCode::Refused);
    }

    #[test]
    fn what_does_not_fit_is_cut_and_what_is_no_question_ignored() {
        let mut room = room(&[]);
        let many = (0..200)
            .map(|it| IpAddr::from([10, 244, 2, it]))
            .collect::<Vec<_>>();
        room.add("many", &many);
        let told = answer(ask(
            "many.lab.overlay.internal.",
            RecordType::A,
            true,
            &room,
        ));
        assert!(told.metadata.truncation && told.answers.is_empty());

        let mut question = Message::query();
        question.metadata.message_type = MessageType::Response;
        let bytes = question.to_vec().unwrap();
        assert!(matches!(judge(&bytes, &room), Verdict::Ignore));
        assert!(matches!(judge(&[0; 5], &room), Verdict::Ignore));
        let told = answer(judge(&[1, 2, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 1], &room));
        assert_eq!(told.metadata.response_code, ResponseCode::FormErr);
    }
}
