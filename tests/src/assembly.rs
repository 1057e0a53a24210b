//! Instructions of eBPF, for programs of a few lines.

/// Operation, registers (source, destination), offset, immediate: `struct bpf_insn`.
pub type Instruction = [u8; 8];

/// Helpers by their numbers in `linux/bpf.h`.
#[expect(missing_docs, reason = "the names are the kernel's")]
pub mod helper {
    pub const MAP_LOOKUP: i32 = 1;
    pub const RANDOM: i32 = 7;
    pub const STORE_BYTES: i32 = 9;
    pub const CLONE_REDIRECT: i32 = 13;
    pub const VLAN_PUSH: i32 = 18;
    pub const CHANGE_TYPE: i32 = 32;
    pub const FLOW_HASH: i32 = 34;
    pub const ADJUST_ROOM: i32 = 50;
    pub const CHECKSUM_LEVEL: i32 = 135;
    pub const REDIRECT_NEIGH: i32 = 152;
    pub const REDIRECT_PEER: i32 = 155;
}

/// The register that points behind the program's stack.
pub const STACK: u8 = 10;

/// An instruction of `linux/bpf.h`.
pub const fn instruction(
    operation: u8,
    destination: u8,
    source: u8,
    offset: i16,
    immediate: i32,
) -> Instruction {
    let [low, high] = offset.to_ne_bytes();
    let [a, b, c, d] = immediate.to_ne_bytes();
    [operation, source << 4 | destination, low, high, a, b, c, d]
}

/// `register = immediate`
pub const fn set(register: u8, immediate: i32) -> Instruction {
    instruction(0xb7, register, 0, 0, immediate)
}

/// `to = from`
pub const fn copy(to: u8, from: u8) -> Instruction {
    instruction(0xbf, to, from, 0, 0)
}

/// `register += immediate`
pub const fn add(register: u8, immediate: i32) -> Instruction {
    instruction(0x07, register, 0, 0, immediate)
}

/// `register &= immediate`
pub const fn and(register: u8, immediate: i32) -> Instruction {
    instruction(0x57, register, 0, 0, immediate)
}

/// `to = *(u32 *)(from + offset)`
pub const fn load(to: u8, from: u8, offset: i16) -> Instruction {
    instruction(0x61, to, from, offset, 0)
}

/// `*(u32 *)(to + offset) = from`
pub const fn store(to: u8, offset: i16, from: u8) -> Instruction {
    instruction(0x63, to, from, offset, 0)
}

/// `*(u32 *)(to + offset) = immediate`
pub const fn store_value(to: u8, offset: i16, immediate: i32) -> Instruction {
    instruction(0x62, to, 0, offset, immediate)
}

/// `if left <= right, skip so many instructions`
pub const fn skip_if_no_more(left: u8, right: u8, instructions: i16) -> Instruction {
    instruction(0xbd, left, right, instructions, 0)
}

/// `if register != 0, skip so many instructions`
pub const fn skip_if_any(register: u8, instructions: i16) -> Instruction {
    instruction(0x55, register, 0, instructions, 0)
}

/// `register = high << 32 | low`
pub const fn set_long(register: u8, high: i32, low: i32) -> [Instruction; 2] {
    wide(register, 0, high, low)
}

/// `register = the map of a descriptor`
pub const fn set_map(register: u8, descriptor: i32) -> [Instruction; 2] {
    /// `BPF_PSEUDO_MAP_FD`
    const MAP: u8 = 1;
    wide(register, MAP, 0, descriptor)
}

const fn wide(register: u8, kind: u8, high: i32, low: i32) -> [Instruction; 2] {
    [
        instruction(0x18, register, kind, 0, low),
        instruction(0, 0, 0, 0, high),
    ]
}

/// `call helper`
pub const fn call(helper: i32) -> Instruction {
    instruction(0x85, 0, 0, 0, helper)
}

/// `exit`
pub const EXIT: Instruction = instruction(0x95, 0, 0, 0, 0);
