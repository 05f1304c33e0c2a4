//! A small Python lexer: enough to split a function into signature, docstring and body without touching a string.
//!
//! It knows strings, comments, brackets, line continuations and indentation, and nothing of grammar. What it gets wrong
//! (a quote nested in an f-string as Python 3.12 allows it) shows in the syntax tree, which is compared afterwards.

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An identifier or keyword.
    Name,
    /// A number.
    Number,
    /// A string with its prefix and quotes.
    Text,
    /// One character of an operator or bracket.
    Operator,
    /// A comment, without its line end.
    Comment,
}

/// A token, by its place in the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    /// What it is.
    pub kind: Kind,
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

/// A logical line: one statement's line, however many physical lines its brackets and strings span; or a comment alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// Column of the first token; a tab reaches to the next multiple of eight, as in Python.
    pub column: usize,
    /// Its tokens; at least one.
    pub tokens: Vec<Token>,
    /// Whether a blank line stands before it.
    pub after_blank: bool,
}

impl Line {
    /// First byte of the first token.
    pub fn start(&self) -> usize {
        self.tokens[0].start
    }

    /// One past the last byte of the last token.
    pub fn end(&self) -> usize {
        self.tokens[self.tokens.len() - 1].end
    }

    /// Whether the line is nothing but a comment.
    pub fn is_comment(&self) -> bool {
        self.tokens[0].kind == Kind::Comment
    }
}

/// Line ends as Python's own tokenizer reads them: `\r\n` and a bare `\r` become `\n`.
pub(crate) fn normalize_line_ends(source: &str) -> String {
    source.replace("\r\n", "\n").replace('\r', "\n")
}

/// Column after `white`, counted from `column`: a tab reaches to the next multiple of eight.
fn advance(column: usize, white: char) -> usize {
    match white {
        '\t' => column / 8 * 8 + 8,
        '\u{c}' => 0,
        _ => column + 1,
    }
}

/// Splits source into logical lines.
///
/// # Errors
/// What is wrong, in words, when a string or bracket never ends.
pub(crate) fn lines(source: &str) -> Result<Vec<Line>, String> {
    let mut lines = Vec::new();
    let mut current: Vec<Token> = Vec::new();
    let (mut column, mut line_column, mut depth) = (0, 0, 0_usize);
    let (mut blank, mut at_start) = (false, true);
    let mut position = 0;
    let number_at = |position: usize| source[..position].matches('\n').count() + 1;
    while let Some(c) = source[position..].chars().next() {
        match c {
            '\n' => {
                position += 1;
                if depth > 0 {
                    continue;
                }
                if current.is_empty() {
                    blank |= at_start;
                } else {
                    lines.push(Line { column: line_column, tokens: std::mem::take(&mut current), after_blank: blank });
                    blank = false;
                }
                (column, at_start) = (0, true);
            }
            ' ' | '\t' | '\u{c}' => {
                if at_start {
                    column = advance(column, c);
                }
                position += 1;
            }
            '\\' if source[position + 1..].starts_with('\n') => position += 2,
            _ => {
                let token = token(source, position)
                    .ok_or_else(|| format!("the string that begins on line {} never ends", number_at(position)))?;
                if token.kind == Kind::Operator {
                    match c {
                        '(' | '[' | '{' => depth += 1,
                        ')' | ']' | '}' => depth = depth.saturating_sub(1),
                        _ => {}
                    }
                }
                if current.is_empty() {
                    line_column = column;
                }
                at_start = false;
                position = token.end;
                current.push(token);
            }
        }
    }
    if depth > 0 {
        return Err("a bracket is never closed".into());
    }
    if !current.is_empty() {
        lines.push(Line { column: line_column, tokens: current, after_blank: blank });
    }
    Ok(lines)
}

/// The token that begins at `start`, or `None` when a string never ends.
fn token(source: &str, start: usize) -> Option<Token> {
    let rest = &source[start..];
    let first = rest.chars().next()?;
    let whole = |kind, length| Some(Token { kind, start, end: start + length });
    let run = |test: fn(char) -> bool| rest.find(|c| !test(c)).unwrap_or(rest.len());
    if first == '#' {
        return whole(Kind::Comment, rest.find('\n').unwrap_or(rest.len()));
    }
    if first == '"' || first == '\'' {
        return whole(Kind::Text, string_length(rest)?);
    }
    if first.is_ascii_digit() {
        return whole(Kind::Number, run(|c| c.is_alphanumeric() || c == '_' || c == '.'));
    }
    if first.is_alphabetic() || first == '_' {
        let length = run(|c| c.is_alphanumeric() || c == '_');
        let (prefix, after) = rest.split_at(length);
        let is_prefix = length <= 2 && prefix.chars().all(|c| "rRbBuUfF".contains(c));
        return match is_prefix && after.starts_with(['"', '\'']) {
            true => whole(Kind::Text, length + string_length(after)?),
            false => whole(Kind::Name, length),
        };
    }
    whole(Kind::Operator, first.len_utf8())
}

/// Length in bytes of the string literal that `text` begins with. A backslash protects the next character even in a
/// raw string, so prefixes do not matter here.
fn string_length(text: &str) -> Option<usize> {
    let quote = &text[..1];
    let triple = quote.repeat(3);
    let fence = if text.starts_with(&triple) { triple.as_str() } else { quote };
    let mut position = fence.len();
    loop {
        let rest = &text[position..];
        let c = rest.chars().next()?;
        if rest.starts_with(fence) {
            return Some(position + fence.len());
        }
        if c == '\n' && fence.len() == 1 {
            return None;
        }
        position += c.len_utf8();
        if c == '\\' {
            position += text[position..].chars().next()?.len_utf8();
        }
    }
}

/// A statement at column 0 with everything indented below it, its decorators and the comments directly above it.
#[derive(Debug, Clone)]
pub(crate) struct Statement {
    /// First and one past the last of its [`Line`]s.
    pub lines: std::ops::Range<usize>,
    /// The line that says what it is: the `def`, not its decorator.
    pub head: usize,
}

/// Groups logical lines into statements at column 0.
pub(crate) fn statements(source: &str, lines: &[Line]) -> Vec<Statement> {
    let mut found: Vec<Statement> = Vec::new();
    let mut pending = None;
    for (index, line) in lines.iter().enumerate() {
        let first = &source[line.tokens[0].start..line.tokens[0].end];
        let clause = ["else", "elif", "except", "finally"].contains(&first);
        if line.is_comment() && line.column == 0 {
            continue;
        }
        let begins = line.column == 0 && !clause && !line.is_comment();
        if begins && first == "@" {
            pending.get_or_insert(index);
        } else if begins {
            found.push(Statement { lines: pending.take().unwrap_or(index)..index + 1, head: index });
        } else if let Some(statement) = found.last_mut() {
            statement.lines.end = index + 1;
        }
    }
    found
}

/// The names that lines use or bind, keywords among them; attributes (`.name`) are left out.
pub(crate) fn names<'a>(source: &'a str, lines: &'a [Line]) -> impl Iterator<Item = &'a str> {
    let tokens = lines.iter().flat_map(|line| &line.tokens).filter(|token| token.kind == Kind::Name);
    let free = tokens.filter(|token| !source[..token.start].trim_end().ends_with('.'));
    free.map(|token| &source[token.start..token.end])
}

/// The names that one line binds in the scope it stands in: by `def`, `class`, `import`, `for`, `as` and assignment.
pub(crate) fn bound<'a>(source: &'a str, line: &Line) -> Vec<&'a str> {
    let texts: Vec<&str> = line.tokens.iter().map(|token| &source[token.start..token.end]).collect();
    let is_name = |index: usize| line.tokens[index].kind == Kind::Name;
    match texts[0] {
        "def" | "class" => texts.get(1).copied().into_iter().collect(),
        "async" => texts.get(2).copied().into_iter().collect(),
        "import" | "from" => {
            // After `import`: the name itself, its first part (`a.b` binds `a`) or what follows `as`.
            let from = texts.iter().position(|&text| text == "import").map_or(0, |place| place + 1);
            let mut found = Vec::new();
            for index in (from..texts.len()).filter(|&index| is_name(index)) {
                match texts[index - 1] {
                    "." => {}
                    "as" => {
                        found.pop();
                        found.push(texts[index]);
                    }
                    _ if texts[index] != "as" => found.push(texts[index]),
                    _ => {}
                }
            }
            found
        }
        "for" => {
            let until = texts.iter().position(|&text| text == "in").unwrap_or(texts.len());
            (1..until).filter(|&index| is_name(index)).map(|index| texts[index]).collect()
        }
        "with" | "except" => {
            let after = (1..texts.len()).filter(|&index| texts[index - 1] == "as" && is_name(index));
            after.map(|index| texts[index]).collect()
        }
        _ => {
            let equals = (1..texts.len())
                .rfind(|&index| texts[index] == "=" && texts[index - 1] != "=" && texts.get(index + 1) != Some(&"="));
            let until = equals.unwrap_or(0);
            (0..until).filter(|&index| is_name(index)).map(|index| texts[index]).collect()
        }
    }
}

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

/// Physical lines that hold code: blank lines and comments do not count. Of source that cannot be lexed, all lines.
pub(crate) fn statement_lines(source: &str) -> usize {
    let Ok(lines) = lines(source) else { return source.lines().count() };
    let code = lines.iter().filter(|line| !line.is_comment());
    code.map(|line| source[line.start()..line.end()].lines().filter(|text| !text.trim().is_empty()).count()).sum()
}

/// The words of the last string of a prompt, its docstring, in lower case and without punctuation.
pub(crate) fn last_string_words(prompt: &str) -> String {
    let lines = lines(prompt).unwrap_or_default();
    let mut tokens = lines.iter().flat_map(|line| &line.tokens);
    let text = tokens.rfind(|token| token.kind == Kind::Text).map(|token| &prompt[token.start..token.end]);
    let words = text.unwrap_or_default().split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

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
