//! Other ways to begin a docstring: "Return the …" is also "Compute the …" or "Find the …".
//!
//! The families tie words to operators; this table adds the breadth that no operator depends on.

use rand::Rng;
use rand::rngs::StdRng;

/// Share of docstrings that keep the beginning the family gave them.
const KEPT: f64 = 0.65;

/// A beginning and what may stand for it.
struct Lead {
    from: &'static str,
    to: &'static [&'static str],
}

const LEADS: &[Lead] = &[
    Lead {
        from: "Return True if ",
        to: &[
            "Check if ",
            "Check whether ",
            "Returns True if ",
            "Determine whether ",
            "Determine if ",
            "Return whether ",
            "Tell whether ",
            "Test whether ",
        ],
    },
    Lead {
        from: "Return how many ",
        to: &["Count how many ", "Find how many ", "Returns how many ", "Tell how many "],
    },
    Lead {
        from: "Return the number of ",
        to: &[
            "Count the number of ",
            "Count the ",
            "Find the number of ",
            "Returns the number of ",
            "Compute the number of ",
        ],
    },
    Lead { from: "Return the list ", to: &["Returns the list ", "Build the list ", "Get the list ", "Make the list "] },
    Lead {
        from: "Return the ",
        to: &[
            "Returns the ",
            "Compute the ",
            "Calculate the ",
            "Find the ",
            "Get the ",
            "Give the ",
            "Compute and return the ",
        ],
    },
    Lead {
        from: "Return a new list ",
        to: &["Create a new list ", "Build a new list ", "Make a new list ", "Returns a new list "],
    },
    Lead { from: "Return a ", to: &["Returns a ", "Build a ", "Create a ", "Make a ", "Construct a "] },
    Lead { from: "Return all ", to: &["Find all ", "Get all ", "Collect all ", "Returns all "] },
];

/// `doc`, or `doc` with another beginning. A check that says what happens otherwise keeps its own: "Check if … else …"
/// is no sentence.
pub fn vary(doc: &str, rng: &mut StdRng) -> String {
    if rng.random_bool(KEPT) {
        return doc.to_owned();
    }
    let Some(lead) = LEADS.iter().find(|lead| doc.starts_with(lead.from)) else { return doc.to_owned() };
    let rest = &doc[lead.from.len()..];
    let divided = [" else ", "otherwise", " False", " None"].iter().any(|word| rest.contains(word));
    let to = if divided && lead.to.contains(&"Check if ") {
        "Returns True if "
    } else {
        lead.to[rng.random_range(0..lead.to.len())]
    };
    let determined = ["the ", "those ", "all "].iter().any(|word| rest.starts_with(word));
    if determined && to.ends_with(" the ") {
        return doc.to_owned();
    }
    format!("{to}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_the_docstring_stays() {
        let mut rng = crate::seed::rng(3, "test");
        let all: Vec<String> = (0..200).map(|_| vary("Return the product of the digits.", &mut rng)).collect();
        assert!(all.iter().all(|doc| doc.ends_with("the product of the digits.")));
        assert!(all.iter().any(|doc| doc.starts_with("Compute ")) && all.iter().any(|doc| doc.starts_with("Return ")));
    }

    #[test]
    fn a_check_with_two_answers_keeps_its_form() {
        let mut rng = crate::seed::rng(3, "test");
        for _ in 0..200 {
            assert!(vary("Return True if a is odd, else False.", &mut rng).starts_with("Return"));
        }
    }

    #[test]
    fn no_article_is_doubled() {
        let mut rng = crate::seed::rng(3, "test");
        for _ in 0..200 {
            assert!(!vary("Return the number of the values above zero.", &mut rng).contains("the the"));
        }
    }
}
