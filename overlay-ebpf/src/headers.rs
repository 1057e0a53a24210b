//! The only access to a packet's bytes.

#[cfg(target_arch = "bpf")]
use core::arch::asm;
use core::{marker::PhantomData, ptr::with_exposed_provenance_mut};

/// `LEN` bytes of a packet that are linear, hence readable and writable in place.
///
/// Offsets are checked against `LEN` when the program is compiled, and `LEN` against
/// the packet when it runs.
pub(crate) struct Headers<'p, const LEN: usize> {
    start: *mut u8,
    packet: PhantomData<&'p mut u8>,
}

impl<const LEN: usize> Headers<'_, LEN> {
    /// The bytes from `start` on, if the packet goes on for so long before its `end`.
    ///
    /// # Safety
    /// `start` and `end` are those of a packet that stays where it is while the headers live.
    #[inline(always)]
    pub(crate) unsafe fn new(start: usize, end: usize) -> Option<Self> {
        (start + LEN <= end).then_some(Self {
            start: with_exposed_provenance_mut(start),
            packet: PhantomData,
        })
    }

    /// The integer at `OFFSET`, its bytes as they stand in the packet.
    #[inline(always)]
    pub(crate) fn read<T: Word, const OFFSET: usize>(&self) -> T {
        const { assert!(OFFSET + size_of::<T>() <= LEN) };
        // SAFETY: `LEN` bytes from `start` are in the packet, and `OFFSET` is checked above.
        unsafe { T::load::<OFFSET>(self.start) }
    }

    /// Overwrites the integer at `OFFSET`.
    #[inline(always)]
    pub(crate) fn write<T: Word, const OFFSET: usize>(&mut self, value: T) {
        const { assert!(OFFSET + size_of::<T>() <= LEN) };
        // SAFETY: as for `read`; and these are the only headers of the packet.
        unsafe { value.store::<OFFSET>(self.start) };
    }

    /// `PART` bytes of these, from `OFFSET` on.
    #[inline(always)]
    pub(crate) fn part<const OFFSET: usize, const PART: usize>(&mut self) -> Headers<'_, PART> {
        const { assert!(OFFSET + PART <= LEN) };
        Headers {
            // SAFETY: `OFFSET` is inside the `LEN` bytes that `start` points to.
            start: unsafe { self.start.add(OFFSET) },
            packet: PhantomData,
        }
    }
}

/// An integer that is read from and written to a packet with one instruction each.
pub(crate) trait Word: Copy {
    /// Reads the integer at `start + OFFSET`.
    ///
    /// # Safety
    /// All its bytes are readable.
    unsafe fn load<const OFFSET: usize>(start: *const u8) -> Self;

    /// Writes the integer at `start + OFFSET`.
    ///
    /// # Safety
    /// All its bytes are writable.
    unsafe fn store<const OFFSET: usize>(self, start: *mut u8);
}

// Nothing in a packet is aligned, and LLVM takes an unaligned access on BPF apart into
// bytes, although the verifier allows it whole wherever the machine can do it. These
// instructions say exactly that access, and promise the compiler nothing about alignment.
macro_rules! word {
    ($($type:ident),+) => {$(
        impl Word for $type {
            #[cfg(target_arch = "bpf")]
            #[inline(always)]
            unsafe fn load<const OFFSET: usize>(start: *const u8) -> Self {
                let value: u64;
                // SAFETY: reads what the caller promises to be readable, and nothing else.
                unsafe {
                    asm!(
                        concat!("{value} = *(", stringify!($type), " *)({start} + {offset})"),
                        value = lateout(reg) value,
                        start = in(reg) start,
                        offset = const OFFSET,
                        options(pure, readonly, nostack, preserves_flags),
                    );
                }
                // SAFETY: a load of fewer than 64 bits clears the rest of its register.
                unsafe { <$type>::try_from(value).unwrap_unchecked() }
            }

            #[cfg(target_arch = "bpf")]
            #[inline(always)]
            unsafe fn store<const OFFSET: usize>(self, start: *mut u8) {
                // SAFETY: writes what the caller promises to be writable, and nothing else.
                unsafe {
                    asm!(
                        concat!("*(", stringify!($type), " *)({start} + {offset}) = {value}"),
                        start = in(reg) start,
                        offset = const OFFSET,
                        value = in(reg) u64::from(self),
                        options(nostack, preserves_flags),
                    );
                }
            }

            #[cfg(not(target_arch = "bpf"))]
            unsafe fn load<const OFFSET: usize>(start: *const u8) -> Self {
                // SAFETY: the caller's promise; no alignment is needed.
                unsafe { start.add(OFFSET).cast::<Self>().read_unaligned() }
            }

            #[cfg(not(target_arch = "bpf"))]
            unsafe fn store<const OFFSET: usize>(self, start: *mut u8) {
                // SAFETY: the caller's promise; no alignment is needed.
                unsafe { start.add(OFFSET).cast::<Self>().write_unaligned(self) }
            }
        }
    )+};
}

word!(u8, u16, u32, u64);

#[cfg(test)]
impl<'b, const LEN: usize> Headers<'b, LEN> {
    /// Ordinary memory in the place of a packet.
    pub(crate) fn over(bytes: &'b mut [u8; LEN]) -> Self {
        Self {
            start: bytes.as_mut_ptr(),
            packet: PhantomData,
        }
    }
}
