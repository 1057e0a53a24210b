//! Maps that are full: what did not fit goes by the kernel, or is refused before anything is
//! made of it, and is told; the rest goes on, and when there is room again all is as usual.

mod endpoints;
mod networks;
mod peers;
mod stand;
