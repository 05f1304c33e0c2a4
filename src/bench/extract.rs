//! The one rule that cuts what a model wrote down to the function's body.
//!
//! **The rule.** The body is everything up to the first line that begins in column zero, is not blank and is not a closing
//! bracket ([`body_end`]). White space after the last line is dropped and one newline put in its place. Nothing else is
//! changed: no indentation is repaired, no markdown fence removed, no missing `return` added. The program that is run is
//! prompt + body.
//!
//! The rule is the one by which sampling stops, so that text after the function can neither help nor hurt.

pub use crate::generate::body_end;

/// The function's body in a completion; empty when the completion leaves the function at once or is blank.
///
/// The prompt decides whether the completion begins on a line of its own.
pub fn body(prompt: &str, completion: &str) -> String {
    let end = body_end(completion, prompt.ends_with('\n')).unwrap_or(completion.len());
    let body = completion[..end].trim_end();
    if body.trim_start().is_empty() { String::new() } else { format!("{body}\n") }
}

/// Whether a body holds a statement: a line that is neither blank nor a comment.
pub fn has_statement(body: &str) -> bool {
    body.lines().map(str::trim).any(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMPT: &str = "def f(x):\n    \"\"\"Say it.\"\"\"\n";

    #[test]
    fn the_body_is_cut_and_nothing_else_changed() {
        let cases = [
            ("    return 1\n", "    return 1\n"),
            ("    return 1", "    return 1\n"),
            ("    return 1\n\n\ndef g():\n    return 2\n", "    return 1\n"),
            ("\n\n    return 1  \n\n", "\n\n    return 1\n"),
            ("    return [\n        1,\n    ]\n", "    return [\n        1,\n    ]\n"),
            ("    return (\n        1\n)\nprint(1)\n", "    return (\n        1\n)\n"),
            (" return 1\n", " return 1\n"),
            ("return 1\n", ""),
            ("\n\n\n\n", ""),
            ("", ""),
            ("```python\n    return 1\n", ""),
        ];
        for (completion, expected) in cases {
            assert_eq!(body(PROMPT, completion), expected, "{completion:?}");
            assert_eq!(body(PROMPT, expected), expected, "cutting twice changes nothing");
        }
        assert_eq!(body("x = ", "1 + 2\ny"), "1 + 2\n", "a prompt that ends inside a line");
    }

    #[test]
    fn comments_and_blanks_are_no_statement() {
        assert!(!has_statement("\n    # think\n\n"));
        assert!(!has_statement(""));
        assert!(has_statement("    # think\n    pass\n"));
    }
}
