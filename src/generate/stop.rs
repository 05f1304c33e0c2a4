//! Where a completion ends.

use crate::generate::{Finish, Sampling};

/// Byte offset at which a function's body ends in the text after its prompt: at the start of the first line that is
/// neither blank nor begins with white space. `None` while the text stays in the body.
///
/// A comment in column zero ends the body too, as in the stop words of HumanEval. A closing bracket does not: it ends an
/// expression that began inside. `at_line_start` says whether the prompt ends in a newline, so that the text's first
/// line is a whole line.
pub fn body_end(text: &str, at_line_start: bool) -> Option<usize> {
    let starts = at_line_start.then_some(0).into_iter();
    let starts = starts.chain(text.match_indices('\n').map(|(at, _)| at + 1));
    let leaves = |at: &usize| {
        let first = text[*at..].chars().next();
        first.is_some_and(|c| !c.is_whitespace() && !matches!(c, ')' | ']' | '}'))
    };
    starts.into_iter().find(leaves)
}

/// The earliest stop in `text`: its byte offset and its kind.
pub(crate) fn find_stop(text: &str, at_line_start: bool, sampling: &Sampling) -> Option<(usize, Finish)> {
    let dedent = if sampling.stop_at_dedent { body_end(text, at_line_start) } else { None };
    let strings = sampling.stop.iter().filter(|stop| !stop.is_empty());
    let string = strings.filter_map(|stop| text.find(stop.as_str())).min();
    // At the same place the stop string wins: the caller named it.
    let string = string.map(|at| (at, Finish::StopString));
    let dedent = dedent.map(|at| (at, Finish::Dedent));
    string.into_iter().chain(dedent).min_by_key(|stop| stop.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_ends_where_a_line_begins_in_column_zero() {
        assert_eq!(body_end("    return 1\n", true), None);
        assert_eq!(body_end("    return 1\n\n\n", true), None);
        assert_eq!(body_end("    return 1\n\n\ndef g():\n", true), Some(15));
        assert_eq!(body_end("    x = 1\n# next\n", true), Some(10));
        assert_eq!(body_end("    return [\n        1,\n]\n", true), None, "a closing bracket belongs to the body");
        assert_eq!(body_end("\n\treturn 1\nprint(1)", true), Some(11));
        assert_eq!(body_end("return 1\n", true), Some(0), "a body that was never indented");
        assert_eq!(body_end("", true), None);
        assert_eq!(body_end("a + b\n    y", false), None, "the prompt ended inside a line");
    }

    #[test]
    fn the_earliest_stop_wins() {
        let sampling = Sampling { stop: vec!["\nassert".into(), "print".into()], ..Sampling::greedy(9) };
        let found = |text| find_stop(text, true, &sampling);
        assert_eq!(found("    return 1\n"), None);
        assert_eq!(found("    print(1)\nx"), Some((4, Finish::StopString)));
        assert_eq!(found("    x\ny\nassert"), Some((6, Finish::Dedent)));
        assert_eq!(found("    x\nassert"), Some((5, Finish::StopString)), "the stop string begins with the newline");
        let free = Sampling { stop_at_dedent: false, stop: vec![String::new()], ..Sampling::greedy(9) };
        assert_eq!(find_stop("x\ny", true, &free), None);
    }
}
