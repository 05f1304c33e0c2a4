//! Python in colours, for a page: keywords, strings, comments and numbers.

const KEYWORDS: [&str; 35] = [
    "False", "None", "True", "and", "as", "assert", "async", "await", "break", "class", "continue", "def", "del",
    "elif", "else", "except", "finally", "for", "from", "global", "if", "import", "in", "is", "lambda", "nonlocal",
    "not", "or", "pass", "raise", "return", "try", "while", "with", "yield",
];

/// Text made safe for HTML. Control characters other than tab and newline are shown as `\u{…}`.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c if c.is_control() && !matches!(c, '\n' | '\t') => safe.extend(c.escape_unicode()),
            c => safe.push(c),
        }
    }
    safe
}

/// Escaped Python with `<span>`s of class `k` (keyword), `s` (string), `c` (comment) and `n` (number). Any text is
/// accepted, Python or not; without its tags the result is the escaped text.
pub fn highlight(code: &str) -> String {
    let mut html = String::new();
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let (length, class) = token(rest, first);
        let (text, after) = rest.split_at(length);
        match class {
            Some(class) => {
                html.push_str(&format!("<span class=\"{class}\">{}</span>", escape(text)));
            }
            None => html.push_str(&escape(text)),
        }
        rest = after;
    }
    html
}

/// Length in bytes of the token that `text` begins with, and its class.
fn token(text: &str, first: char) -> (usize, Option<&'static str>) {
    let run = |holds: fn(char) -> bool| text.find(|c| !holds(c)).unwrap_or(text.len());
    match first {
        '#' => (run(|c| c != '\n'), Some("c")),
        '"' | '\'' => (string(text, first), Some("s")),
        c if c.is_ascii_digit() => (run(|c| c.is_ascii_alphanumeric() || c == '.' || c == '_'), Some("n")),
        c if c.is_alphabetic() || c == '_' => {
            let length = run(|c| c.is_alphanumeric() || c == '_');
            (length, KEYWORDS.contains(&&text[..length]).then_some("k"))
        }
        c => (c.len_utf8(), None),
    }
}

/// Length of a string literal; one that is never closed ends with its line, or with the text when triple.
fn string(text: &str, quote: char) -> usize {
    let triple: String = std::iter::repeat_n(quote, 3).collect();
    let (open, close) = if text.starts_with(&triple) { (3, triple) } else { (1, quote.to_string()) };
    let mut at = open;
    while at < text.len() {
        if text[at..].starts_with(&close) {
            return at + close.len();
        }
        let c = text[at..].chars().next().unwrap_or(quote);
        if c == '\n' && open == 1 {
            return at;
        }
        at += c.len_utf8();
        if c == '\\' {
            at += text[at..].chars().next().map_or(0, char::len_utf8);
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(html: &str) -> String {
        let (mut text, mut inside) = (String::new(), false);
        for c in html.chars() {
            match c {
                '<' => inside = true,
                '>' => inside = false,
                c if !inside => text.push(c),
                _ => {}
            }
        }
        text
    }

    #[test]
    fn tokens_are_marked() {
        let html = highlight("def f(x): # <b>\n    return 'a\\'b' + 12\n");
        for part in [
            "<span class=\"k\">def</span> f(x)",
            "<span class=\"c\"># &lt;b&gt;</span>",
            "<span class=\"s\">&#39;a\\&#39;b&#39;</span>",
            "<span class=\"n\">12</span>",
        ] {
            assert!(html.contains(part), "{part} is missing from {html}");
        }
    }

    #[test]
    fn nothing_a_model_writes_gets_out() {
        for code in
            ["</pre><script>alert(1)</script>", "\"\"\"<img>", "'<", "# </span>", "é'\\", "\u{1b}[31m\0", "'''a", "\\"]
        {
            let html = highlight(code);
            assert_eq!(plain(&html), escape(code), "{code:?}");
            assert!(!html.contains("<script") && !html.contains("<img") && !html.contains('\u{1b}'), "{html}");
        }
    }
}
