//! Each part by itself, timed by criterion: one program, so that the library is linked once.
//!
//! `cargo bench` runs all of it, `cargo bench -- kernels/linear` what begins with that name; `--save-baseline NAME` and
//! `--baseline NAME` compare two states of the code. Where an operation is made of matrix products, the rate is in elements of
//! work: a billion elements a second are a GFLOP/s. Whole workloads, beside other programs, are `codelora bench-speed`.

mod converter;
mod corpus;
mod kernels;
mod optimizer;
mod products;
mod sampling;
mod sizes;
mod tokenizer;
mod training_step;

use criterion::{criterion_group, criterion_main};

criterion_group!(
    all,
    kernels::bench,
    products::bench,
    optimizer::bench,
    training_step::bench,
    sampling::bench,
    tokenizer::bench,
    corpus::bench,
    converter::bench
);
criterion_main!(all);
