//! The harness: tasks in, attempts and statistics out.

pub mod collapse;
pub mod extract;
pub mod pass_at_k;
pub mod report;
pub mod run;
pub mod samples;
pub mod self_test;
pub mod tasks;
pub mod twins;
