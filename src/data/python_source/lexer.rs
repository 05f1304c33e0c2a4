//! A small Python lexer.
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
pub(super) fn advance(column: usize, white: char) -> usize {
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
