//! Everything a notebook uses, behind one name.

// Not among the packages that cargo knows of, so the compiler is told by name.
extern crate library;

pub use library::*;
