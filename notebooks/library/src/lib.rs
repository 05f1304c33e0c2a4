//! Everything a notebook uses, behind one name.

pub use codelora::*;
pub use polars;
