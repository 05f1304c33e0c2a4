//! Values of keys that a file leaves out. What stands at its default is left out of the digest too: a file that does not name a key
//! is the experiment it was before there was one.

pub(super) fn is_false(value: &bool) -> bool {
    !value
}

pub(super) fn once() -> usize {
    1
}

pub(super) fn is_once(value: &usize) -> bool {
    *value == 1
}

pub(super) fn one() -> f64 {
    1.0
}

pub(super) fn is<const VALUE: u8>(value: &f64) -> bool {
    *value == f64::from(VALUE)
}
