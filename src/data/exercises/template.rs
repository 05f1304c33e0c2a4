//! Fills `{name}` and `{slot.column}` in a template; `{{` and `}}` are braces of Python.

/// Values may name other placeholders; a chain longer than this is a circle.
const DEEPEST: usize = 8;

/// `template` with every placeholder replaced by what `lookup` says, and the placeholders in that in turn.
///
/// # Errors
/// The placeholder that has no value, a brace that is not closed, or a circle of placeholders.
pub fn render<'a>(template: &str, lookup: &dyn Fn(&str) -> Option<&'a str>) -> Result<String, String> {
    let mut out = String::with_capacity(template.len() + 32);
    fill(template, lookup, 0, &mut out)?;
    Ok(out)
}

fn fill<'a>(
    template: &str,
    lookup: &dyn Fn(&str) -> Option<&'a str>,
    depth: usize,
    out: &mut String,
) -> Result<(), String> {
    if depth > DEEPEST {
        return Err(format!("placeholders name each other in a circle at {template:?}"));
    }
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, brace) = rest.split_at(at);
        out.push_str(before);
        if brace.starts_with("{{") || brace.starts_with("}}") {
            out.push_str(&brace[..1]);
            rest = &brace[2..];
            continue;
        }
        let key = key(brace).ok_or_else(|| format!("a brace is neither doubled nor a placeholder in {template:?}"))?;
        let value = lookup(key).ok_or_else(|| format!("nothing is called {{{key}}} in {template:?}"))?;
        fill(value, lookup, depth + 1, out)?;
        rest = &brace[key.len() + 2..];
    }
    out.push_str(rest);
    Ok(())
}

/// The key of the placeholder that `brace` begins with.
fn key(brace: &str) -> Option<&str> {
    let inner = brace.strip_prefix('{')?;
    let key = &inner[..inner.find('}')?];
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '.';
    (!key.is_empty() && key.chars().all(plain)).then_some(key)
}

/// The keys of the placeholders in `template`, in order.
pub fn keys(template: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        let brace = &rest[at..];
        if brace.starts_with("{{") || brace.starts_with("}}") {
            rest = &brace[2..];
            continue;
        }
        found.extend(key(brace));
        rest = &brace[1..];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(key: &str) -> Option<&'static str> {
        match key {
            "n" => Some("x"),
            "cmp.op" => Some("{n} < {{1}}"),
            "round" => Some("{round}"),
            _ => None,
        }
    }

    #[test]
    fn placeholders_nest_and_doubled_braces_stay() {
        assert_eq!(render("if {cmp.op}: {{{n}: 1}}", &lookup).unwrap(), "if x < {1}: {x: 1}");
    }

    #[test]
    fn what_cannot_be_filled_is_named() {
        assert!(render("{nothing}", &lookup).unwrap_err().contains("{nothing}"));
        assert!(render("{round}", &lookup).unwrap_err().contains("circle"));
        assert!(render("{n", &lookup).is_err());
        assert!(render("n}", &lookup).is_err());
    }

    #[test]
    fn keys_skip_doubled_braces() {
        assert_eq!(keys("{a} {{b}} {c.d}"), ["a", "c.d"]);
    }
}
