//! Network cards that the emulator has models of, with the drivers that Linux has for them.

/// A model of a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Nic {
    /// virtio-net, as most hypervisors have it
    Virtio,
    /// Intel 82574
    E1000e,
    /// Intel 82576
    Igb,
    /// `VMware`'s
    Vmxnet3,
}

impl Nic {
    /// The module of its driver.
    pub(super) const fn driver(self) -> &'static str {
        match self {
            Self::Virtio => "virtio_net",
            Self::E1000e => "e1000e",
            Self::Igb => "igb",
            Self::Vmxnet3 => "vmxnet3",
        }
    }

    /// How many queues its end of the wire has. Only virtio's can have several.
    pub(super) const fn queues(self) -> u8 {
        match self {
            // One for the machine's processor, and one for what XDP sends there.
            Self::Virtio => 2,
            Self::E1000e | Self::Igb | Self::Vmxnet3 => 1,
        }
    }

    /// The emulator's name for it, with what it takes.
    pub(super) fn device(self) -> String {
        match self {
            Self::Virtio => format!("virtio-net-pci,mq=on,vectors={}", 2 * self.queues() + 2),
            Self::E1000e => "e1000e".to_owned(),
            Self::Igb => "igb".to_owned(),
            Self::Vmxnet3 => "vmxnet3".to_owned(),
        }
    }
}
