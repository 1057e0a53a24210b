//! A pcapng file of packets at hooks.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    io::{self, Write},
    time::Duration,
};

use overlay_control::{
    capture::{Bytes, Seen},
    explain::Action,
};
use overlay_core::model::Name;
use pcap_file::{
    DataLink, Endianness, PcapError,
    pcapng::{
        PcapNgBlock as _, PcapNgWriter,
        blocks::{
            enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption},
            interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption},
        },
    },
};

/// Exponent of the unit of time stamps: nanoseconds.
const NANOSECONDS: u8 = 9;

/// A file to which packets are added.
pub(super) struct Pcapng<'f> {
    /// Begun with the first packet.
    file: Begun<'f>,
    snap: u32,
    /// Numbers of the interfaces, by name.
    interfaces: BTreeMap<String, u32>,
}

enum Begun<'f> {
    No(Option<&'f mut dyn Write>),
    Yes(PcapNgWriter<&'f mut dyn Write>),
}

impl<'f> Pcapng<'f> {
    pub(super) fn new(file: &'f mut dyn Write, snap: u32) -> Self {
        Self {
            file: Begun::No(Some(file)),
            snap,
            interfaces: BTreeMap::new(),
        }
    }

    /// Adds a packet as it came, and as it went, with what became of it.
    pub(super) fn packet(&mut self, seen: &Seen) -> io::Result<()> {
        let Seen {
            program, device, ..
        } = seen;
        let comment = comment(seen);
        self.add(&format!("{program} {device}"), seen, &seen.before, &comment)?;
        if let Some(after) = &seen.after {
            let out = format!("{program} {device} out");
            self.add(&out, seen, after, &format!("{comment}; as it goes"))?;
        }
        Ok(())
    }

    /// So that a reader sees what there is.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.writer()?.get_mut().flush()
    }

    fn add(
        &mut self,
        interface: &str,
        seen: &Seen,
        packet: &Bytes,
        comment: &str,
    ) -> io::Result<()> {
        let interface_id = self.interface(interface)?;
        let data = hex::decode(&packet.hex).map_err(io::Error::other)?;
        let block = EnhancedPacketBlock {
            interface_id,
            timestamp: Duration::from_nanos(seen.time_ns),
            original_len: packet.length,
            data: Cow::Owned(data),
            options: vec![EnhancedPacketOption::Comment(Cow::Borrowed(comment))],
        };
        let written = self.writer()?.write_block(&block.into_block());
        written.map(drop).map_err(io_error)
    }

    /// The number of an interface, which is described when it is first needed.
    fn interface(&mut self, name: &str) -> io::Result<u32> {
        if let Some(number) = self.interfaces.get(name) {
            return Ok(*number);
        }
        let block = InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: self.snap,
            options: vec![
                InterfaceDescriptionOption::IfName(Cow::Owned(name.to_owned())),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ],
        };
        let written = self.writer()?.write_block(&block.into_block());
        written.map_err(io_error)?;
        let number = u32::try_from(self.interfaces.len()).map_err(io::Error::other)?;
        self.interfaces.insert(name.to_owned(), number);
        Ok(number)
    }

    fn writer(&mut self) -> io::Result<&mut PcapNgWriter<&'f mut dyn Write>> {
        if let Begun::No(file) = &mut self.file {
            let file = file.take().ok_or(io::ErrorKind::BrokenPipe)?;
            let writer = PcapNgWriter::with_endianness(file, Endianness::native());
            self.file = Begun::Yes(writer.map_err(io_error)?);
        }
        match &mut self.file {
            Begun::Yes(writer) => Ok(writer),
            Begun::No(_) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

fn io_error(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::other(other),
    }
}

/// The verdict on a packet, for people.
fn comment(seen: &Seen) -> String {
    let Seen {
        program,
        device,
        text,
        ..
    } = seen;
    let named = |kind: &str, name: &Option<Name>| {
        let name = name.as_ref().map(|name| format!(", {kind} {name}"));
        name.unwrap_or_default()
    };
    let whose = named("endpoint", &seen.endpoint) + &named("peer", &seen.peer);
    let reason = seen.reason.as_deref().unwrap_or("unknown");
    match (seen.action, seen.handed_to) {
        (Action::Dropped, _) => format!("{program} {device}: dropped: {reason}: {text}{whose}"),
        (Action::Passed, _) => {
            format!("{program} {device}: passed to the kernel: {reason}: {text}{whose}")
        }
        (Action::Forwarded, Some(to)) => format!("{program} {device}: forwarded to {to}{whose}"),
        (Action::Forwarded, None) => format!("{program} {device}: forwarded{whose}"),
    }
}
