//! Reads the fields of a raw row; what is missing or of the wrong type is a named rejection.

use serde_json::{Map, Value};

use crate::data::filter::{Reason, Rejection};
use crate::data::task::Task;
use crate::experiment::Source;

/// A converted row beside the program it was converted from.
#[derive(Debug, Clone, PartialEq)]
pub struct Converted {
    /// The task, not yet proven.
    pub task: Task,
    /// The program as the dataset has it; its body must have the same syntax tree.
    pub original: String,
}

/// A raw row, opened.
pub(crate) struct Row {
    fields: Map<String, Value>,
    source: Source,
    /// The task's id as far as it is known.
    pub id: String,
}

impl Row {
    /// Parses a line.
    pub fn parse(line: &str, source: Source) -> Result<Self, Rejection> {
        match serde_json::from_str(line) {
            Ok(Value::Object(fields)) => Ok(Self { fields, source, id: String::new() }),
            Ok(_) => Err(Rejection::new("", source, Reason::WrongType, "the row is not an object")),
            Err(e) => Err(Rejection::new("", source, Reason::BrokenJson, e.to_string())),
        }
    }

    /// A rejection of this row.
    pub fn reject(&self, reason: Reason, detail: impl Into<String>) -> Rejection {
        Rejection::new(&self.id, self.source, reason, detail)
    }

    fn field(&self, name: &str) -> Result<&Value, Rejection> {
        let value = self.fields.get(name).filter(|value| !value.is_null());
        value.ok_or_else(|| self.reject(Reason::MissingField, format!("`{name}` is missing")))
    }

    fn wrong(&self, name: &str, wanted: &str) -> Rejection {
        self.reject(Reason::WrongType, format!("`{name}` is not {wanted}"))
    }

    /// A text field.
    pub fn text(&self, name: &str) -> Result<&str, Rejection> {
        self.field(name)?.as_str().ok_or_else(|| self.wrong(name, "a text"))
    }

    /// A text field that may be absent.
    pub fn text_or(&self, name: &str, default: &'static str) -> Result<&str, Rejection> {
        match self.fields.get(name) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => value.as_str().ok_or_else(|| self.wrong(name, "a text")),
        }
    }

    /// A whole number.
    pub fn number(&self, name: &str) -> Result<u64, Rejection> {
        self.field(name)?.as_u64().ok_or_else(|| self.wrong(name, "a whole number"))
    }

    /// A list of texts that may be absent.
    pub fn texts_or_none(&self, name: &str) -> Result<Vec<String>, Rejection> {
        match self.fields.get(name) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(_) => self.texts(name),
        }
    }

    /// A list of texts.
    pub fn texts(&self, name: &str) -> Result<Vec<String>, Rejection> {
        let list = self.field(name)?.as_array().ok_or_else(|| self.wrong(name, "a list"))?;
        let texts = list.iter().map(|item| item.as_str().map(str::to_string));
        texts.collect::<Option<_>>().ok_or_else(|| self.wrong(name, "a list of texts"))
    }
}
