//! What others break is repaired, soon, and without harm to those who have no part in it.

mod bystander;
mod containers;
mod damage;
mod maps;
mod one_by_one;
mod programs;
mod random;
mod stand;
mod told;
mod usurped;
