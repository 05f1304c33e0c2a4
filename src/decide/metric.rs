//! Finds a gate's metric in a record: a dotted path through its JSON.

use serde_json::Value;

use crate::bench::pass_at_k::Interval;

/// The value at `path` in a record, e.g. `after.pass_at_1` or `evaluations.0.validation_loss`. An interval stays one; a
/// number is exact; a truth value is 1 or 0; a list is its length. A path part may be a list's index, counted from 0, or
/// `last`.
///
/// # Errors
/// What there is instead of the missing part.
pub fn find(record: &Value, path: &str) -> Result<Interval, String> {
    let mut value = record;
    for part in path.split('.') {
        let next = match value {
            Value::Object(fields) => fields.get(part),
            Value::Array(items) if part == "last" => items.last(),
            Value::Array(items) => part.parse::<usize>().ok().and_then(|index| items.get(index)),
            _ => None,
        };
        value = next.ok_or_else(|| format!("there is no {part:?} in it; there is {}", inventory(value)))?;
    }
    let interval = |value: &Value| serde_json::from_value::<Interval>(value.clone()).ok();
    let found = match value {
        Value::Bool(truth) => Some(Interval::exact(f64::from(u8::from(*truth)))),
        Value::Array(items) => Some(Interval::exact(items.len() as f64)),
        other => other.as_f64().map(Interval::exact).or_else(|| interval(other)),
    };
    found.ok_or_else(|| format!("it is neither a number nor an interval; there is {}", inventory(value)))
}

fn inventory(value: &Value) -> String {
    match value {
        Value::Object(fields) => fields.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
        Value::Array(items) => format!("a list of {}", items.len()),
        _ => "a single value".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_lead_to_values() {
        let rate = json!({"estimate": 0.5, "low": 0.25, "high": 0.75, "n": 20});
        let record = json!({"verified": 512, "ok": true, "after": {"rate": rate}, "rows": [{"x": 1.5}, {"x": 2.5}]});
        assert_eq!(find(&record, "verified"), Ok(Interval::exact(512.0)));
        assert_eq!(find(&record, "ok"), Ok(Interval::exact(1.0)));
        assert_eq!(find(&record, "rows"), Ok(Interval::exact(2.0)));
        assert_eq!(find(&record, "rows.0.x"), Ok(Interval::exact(1.5)));
        assert_eq!(find(&record, "rows.last.x"), Ok(Interval::exact(2.5)));
        assert_eq!(find(&record, "after.rate").unwrap().high, 0.75);
        assert!(find(&record, "after.speed").unwrap_err().contains("there is rate"));
        assert!(find(&record, "after").is_err());
        assert!(find(&record, "rows.7.x").unwrap_err().contains("a list of 2"));
    }
}
