//! What a measurement says: the record, its tables and its page.

mod highlight;
mod page;
mod record;
mod summary;
mod tables;

pub use highlight::{escape, highlight};
pub use page::html_page;
pub use record::{
    CheckpointResult, Comparison, Draw, EvaluationRecord, Protocol, SelfTest, ShapeSummary, TaskResult, V1Result,
};
pub use summary::{compare, outcome_name, v1_result};
pub use tables::{attempt_table, checkpoint_rows, checkpoint_table, markdown, task_table};
