//! What a program consists of at column 0, and which names it uses and binds.

use super::lexer::{Kind, Line, lines};

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
