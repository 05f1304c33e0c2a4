//! Splits a function into signature and body, and indents the body anew.

use super::lexer::{Kind, Line, advance};

/// A function's header and body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Function {
    /// Decorators and signature, up to and with the colon; no line end.
    pub header: String,
    /// The body, indented by four spaces a block, without a docstring of its own; ends in one newline.
    pub body: String,
}

/// Splits the function in `lines`, whose `def` is at `head`, and indents its body anew.
///
/// # Errors
/// What stands in the way, in words.
pub(crate) fn split_function(source: &str, lines: &[Line], head: usize) -> Result<Function, String> {
    let def = &lines[head];
    let colon = header_colon(source, def).ok_or("the signature has no colon")?;
    let header_start = lines[0].start();
    let header = source[header_start..def.tokens[colon].end].lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    let rest = &def.tokens[colon + 1..];
    let mut body = Vec::new();
    if !rest.is_empty() {
        // A one-line body, or a comment after the colon: it becomes the first line of the body.
        let inner = lines[head + 1..].first().map_or(4, |line| line.column);
        body.push(Line { column: inner, tokens: rest.to_vec(), after_blank: false });
    }
    body.extend_from_slice(&lines[head + 1..]);
    while body.last().is_some_and(|line| line.is_comment() && line.column == 0) {
        body.pop();
    }
    if let Some(place) = body.iter().position(|line| !line.is_comment())
        && body[place].tokens.iter().all(|token| token.kind == Kind::Text)
        && !source[body[place].start()..].starts_with(['f', 'F', 'b', 'B'])
    {
        body.remove(place);
    }
    if body.iter().all(Line::is_comment) {
        return Err("the function has no body beside its docstring".into());
    }
    Ok(Function { header, body: indent(source, &body, 1)? })
}

/// The token that is the colon after the signature: the first one outside brackets.
fn header_colon(source: &str, def: &Line) -> Option<usize> {
    let mut depth = 0_i32;
    def.tokens.iter().position(|token| {
        let text = &source[token.start..token.end];
        if token.kind == Kind::Operator {
            match text {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth -= 1,
                _ => {}
            }
        }
        depth == 0 && token.kind == Kind::Operator && text == ":"
    })
}

/// Indents a block anew: four spaces for each block around it (`outer` of them) and four more for each block within.
///
/// # Errors
/// When the indentation is one that Python refuses.
pub(crate) fn indent(source: &str, lines: &[Line], outer: usize) -> Result<String, String> {
    let mut out = String::with_capacity(source.len());
    let first = lines.iter().find(|line| !line.is_comment()).ok_or("the block is empty")?;
    let mut open = vec![first.column];
    for (index, line) in lines.iter().enumerate() {
        let depth = if line.is_comment() {
            let next = lines[index..].iter().find(|line| !line.is_comment()).map_or(0, |line| line.column);
            let column = line.column.max(next);
            open.iter().filter(|&&level| level <= column).count().max(1) + usize::from(next > open[open.len() - 1])
        } else {
            if line.column > open[open.len() - 1] {
                open.push(line.column);
            }
            while open.len() > 1 && line.column < open[open.len() - 1] {
                open.pop();
            }
            if line.column != open[open.len() - 1] {
                return Err(format!("a line at column {} fits no open block", line.column));
            }
            open.len()
        };
        if line.after_blank && index > 0 {
            out.push('\n');
        }
        push_line(source, line, 4 * (depth - 1 + outer), &mut out);
    }
    Ok(out)
}

/// Writes one logical line at column `to`. Its further physical lines move with it, except where they begin inside a
/// string; white space at line ends goes, except inside a string.
fn push_line(source: &str, line: &Line, to: usize, out: &mut String) {
    let shift = to as isize - line.column as isize;
    out.extend(std::iter::repeat_n(' ', to));
    for (index, token) in line.tokens.iter().enumerate() {
        if index > 0 {
            let gap = &source[line.tokens[index - 1].end..token.start];
            match gap.rsplit_once('\n') {
                None => out.push_str(gap),
                Some((breaks, margin)) => {
                    for piece in breaks.split('\n') {
                        // What is left of a gap is white space and the backslash of a continued line.
                        out.push_str(if piece.contains('\\') { " \\" } else { "" });
                        out.push('\n');
                    }
                    let column = margin.chars().fold(0, advance) as isize + shift;
                    out.extend(std::iter::repeat_n(' ', column.max(0) as usize));
                }
            }
        }
        let text = &source[token.start..token.end];
        out.push_str(if token.kind == Kind::Comment { text.trim_end() } else { text });
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::python_source::{lines, normalize_line_ends, statements};

    fn split(source: &str) -> Function {
        let source = normalize_line_ends(source);
        let all = lines(&source).expect("the source is whole");
        let function = statements(&source, &all).pop().expect("there is a function");
        let head = function.head - function.lines.start;
        split_function(&source, &all[function.lines], head).expect("the function can be split")
    }

    #[test]
    fn tabs_and_odd_indents_become_four_spaces() {
        let function = split("def f(x):\r\n if x:\r\n\t\treturn 1 \r\n else:\r\n   return 2\r\n");
        assert_eq!(function.header, "def f(x):");
        assert_eq!(function.body, "    if x:\n        return 1\n    else:\n        return 2\n");
    }

    #[test]
    fn the_inside_of_a_string_is_untouched() {
        let function = split("def f():\n  s = '''a\n\tb  \n c'''\n  return (s,\n    'x # no comment')\n");
        assert_eq!(function.body, "    s = '''a\n\tb  \n c'''\n    return (s,\n      'x # no comment')\n");
    }

    #[test]
    fn one_line_bodies_decorators_and_long_signatures_are_split() {
        let one = split("def f(x): a = x; return a");
        assert_eq!((one.header.as_str(), one.body.as_str()), ("def f(x):", "    a = x; return a\n"));
        let long =
            split("@cache\ndef f(x: dict[str, int] = {},\n      y=lambda z: z,\n) -> 'a:b':  # why\n  return y(x)\n");
        assert_eq!(long.header, "@cache\ndef f(x: dict[str, int] = {},\n      y=lambda z: z,\n) -> 'a:b':");
        assert_eq!(long.body, "    # why\n    return y(x)\n");
    }

    #[test]
    fn a_docstring_goes_and_nested_functions_stay() {
        let function =
            split("def f(x):\n   \"old\"\n   # inner\n   def g(y):\n     \"kept\"\n     return y\n\n   return g(x)\n");
        assert_eq!(
            function.body,
            "    # inner\n    def g(y):\n        \"kept\"\n        return y\n\n    return g(x)\n"
        );
    }

    #[test]
    fn comments_follow_the_block_they_stand_in() {
        let function =
            split("def f(x):\n  for i in x:\n# at the margin\n    # deep\n    y = i\n  # last\n  return y\n# after\n");
        let expected =
            "    for i in x:\n        # at the margin\n        # deep\n        y = i\n    # last\n    return y\n";
        assert_eq!(function.body, expected);
    }

    #[test]
    fn what_never_ends_is_named() {
        assert_eq!(lines("x = '''a\nb").unwrap_err(), "the string that begins on line 1 never ends");
        assert_eq!(lines("x = (1,\n").unwrap_err(), "a bracket is never closed");
        let source = "def f(x):\n    if x:\n        return 1\n      return 2\n";
        let all = lines(source).expect("tokens are whole");
        assert!(split_function(source, &all, 0).unwrap_err().contains("column 6"));
    }

    #[test]
    fn a_backslash_continues_a_line() {
        let function = split("def f(x):\n  return x + \\\n      1\n");
        assert_eq!(function.body, "    return x + \\\n        1\n");
    }
}
