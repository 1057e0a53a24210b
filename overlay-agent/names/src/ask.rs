//! Questions that are put to the node's own name servers: those for names that are nobody's here.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use hickory_proto::op::Message;

use crate::room::Room;

/// How long each of the node's name servers may take.
const SERVER_PATIENCE: Duration = Duration::from_secs(2);
/// Servers that are tried.
const MAX_SERVERS: usize = 3;
/// Larger than any datagram.
pub(crate) const BUFFER: usize = 1 << 16;
/// Length of a message's header.
const HEADER: usize = 12;

/// How a question gets to a server, and its answer back.
pub(crate) type Exchange = fn(&[u8], SocketAddr) -> io::Result<Vec<u8>>;

/// An identifier that nobody can guess.
fn identifier() -> u16 {
    Message::query().metadata.id
}

/// Hands a question on, as it is but for its identifier, and the answer back. None when nobody
/// answers.
pub(crate) fn forward(question: &[u8], room: &Room, by: Exchange) -> Option<Vec<u8>> {
    let own = question.get(..2)?;
    let mut handed = question.to_vec();
    handed[..2].copy_from_slice(&identifier().to_be_bytes());
    let mut servers = room.forward.iter().take(MAX_SERVERS);
    let mut answer = servers.find_map(|server| by(&handed, *server).ok())?;
    answer[..2].copy_from_slice(own);
    Some(answer)
}

/// One exchange of datagrams.
pub(crate) fn by_udp(question: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.connect(server)?;
    socket.send(question)?;
    let deadline = Instant::now() + SERVER_PATIENCE;
    let mut buffer = vec![0; BUFFER];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let length = socket.recv(&mut buffer)?;
        if answers(&buffer[..length], question) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

/// One exchange over a connection of its own.
pub(crate) fn by_tcp(question: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server, SERVER_PATIENCE)?;
    stream.set_read_timeout(Some(SERVER_PATIENCE))?;
    stream.set_write_timeout(Some(SERVER_PATIENCE))?;
    write_framed(&mut stream, question)?;
    let answer = read_framed(&mut stream)?;
    if answers(&answer, question) {
        return Ok(answer);
    }
    Err(io::ErrorKind::InvalidData.into())
}

/// Whether bytes are the answer to a question: the same identifier, and the same text of the
/// question, which has no abbreviations as the first of a message.
fn answers(answer: &[u8], question: &[u8]) -> bool {
    let Some(asked) = text(question) else {
        return false;
    };
    let is_answer = answer.get(2).is_some_and(|flags| flags & 0x80 != 0);
    is_answer && answer.get(..2) == question.get(..2) && text(answer) == Some(asked)
}

/// The name, kind and class that a message asks for first.
fn text(message: &[u8]) -> Option<&[u8]> {
    let rest = message.get(HEADER..)?;
    let mut end = 0;
    loop {
        match usize::from(*rest.get(end)?) {
            0 => break,
            length if length < 64 => end += 1 + length,
            _ => return None,
        }
    }
    rest.get(..end + 5)
}

/// A message on a stream has its length before it.
pub(crate) fn read_framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

pub(crate) fn write_framed(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    stream.write_all(&framed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_identifier_and_question() {
        let question = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01a\x03org\0\0\x01\0\x01";
        let mut answer = question.to_vec();
        assert!(!answers(&answer, question));
        answer[2] |= 0x80;
        answer.extend_from_slice(b"anything");
        assert!(answers(&answer, question));
        answer[13] = b'b';
        assert!(!answers(&answer, question));
        answer[13] = b'a';
        answer[0] = 0;
        assert!(!answers(&answer, question));
        assert!(!answers(&[], question));
    }
}
