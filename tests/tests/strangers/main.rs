//! What somebody else has made is never changed, replaced or removed, whatever its name; and the
//! tool says whose it is.

mod files;
mod in_the_way;
mod namespaces;
mod notes;
mod objects;
mod settings;
mod tables;
