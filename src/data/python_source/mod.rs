//! Python source, read closely enough to split a function into signature, docstring and body without touching a string.

mod function;
mod lexer;
mod statements;

pub(crate) use function::{indent, split_function};
pub(crate) use lexer::{Kind, Line, lines, normalize_line_ends};
pub(crate) use statements::{Statement, bound, last_string_words, names, statement_lines, statements};
