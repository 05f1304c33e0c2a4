//! Facts about Python code that need its syntax tree: normalised forms, complexity, dependencies.
//!
//! The tree comes from Python's own `ast` (`analyze.py`, compiled in), one process for a batch. It parses and executes
//! nothing; time and memory are limited, and a program that crashes the parser costs its own row only.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::data::cache::Cache;
use crate::error::{Error, Result};
use crate::python;
use crate::seed::sha256;

const SCRIPT: &str = include_str!("analyze.py");

/// Rows that one Python process reads before the next begins: enough that its start does not count.
const BATCH: usize = 400;

/// A function, as its syntax tree shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionFacts {
    /// Its name.
    pub name: String,
    /// Whether it stands at column 0, not inside a class or function.
    pub top_level: bool,
    /// Fewest positional arguments it takes; 255 when it also demands keywords.
    pub min_args: usize,
    /// Most positional arguments it takes; 255 for `*args`.
    pub max_args: usize,
    /// The tree in pre-order, as words between spaces. Names that the function binds, its own among them, are numbered;
    /// docstrings and annotations are left out.
    pub form: String,
    /// SHA-256 of the tree of the body as it is written, without docstring: equal bodies have equal values.
    pub body_sha256: String,
    /// Cyclomatic complexity (McCabe 1976): 1 + branches.
    pub complexity: usize,
    /// Words of its docstring.
    pub docstring_words: usize,
}

/// A program, as its syntax tree shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeFacts {
    /// Every function it defines, nested ones and methods too.
    pub functions: Vec<FunctionFacts>,
    /// The whole tree, as [`FunctionFacts::form`]; imports are left out.
    pub form: String,
    /// Complexity of its most complex function.
    pub complexity: usize,
    /// Distinct names it binds.
    pub names: usize,
    /// Modules it imports, by their first name, sorted.
    pub imports: Vec<String>,
    /// Those that are not in Python's standard library.
    pub foreign_imports: Vec<String>,
}

impl CodeFacts {
    /// The last function at column 0 with this name: the one that a test would run.
    pub fn function(&self, name: &str) -> Option<&FunctionFacts> {
        self.functions.iter().rev().find(|function| function.top_level && function.name == name)
    }
}

/// Facts about each program, in order; `None` where it does not compile.
///
/// # Errors
/// When Python cannot be run.
pub fn facts(programs: &[String]) -> Result<Vec<Option<CodeFacts>>> {
    let batches: Vec<_> = programs.par_chunks(BATCH).map(batch).collect::<Result<_>>()?;
    Ok(batches.into_iter().flatten().collect())
}

/// As [`facts`], looking first into a cache file, where new facts are added.
///
/// # Errors
/// As [`facts`], and when the cache cannot be written.
pub fn facts_cached(programs: &[String], cache_file: &Path) -> Result<Vec<Option<CodeFacts>>> {
    let mut cache: Cache<Option<CodeFacts>> = Cache::open(cache_file);
    let salt = sha256(format!("{SCRIPT}{}", python::interpreter()?.display()));
    let keys: Vec<String> = programs.iter().map(|program| sha256(format!("{salt}{program}"))).collect();
    let missing: Vec<usize> = (0..keys.len()).filter(|&index| cache.get(&keys[index]).is_none()).collect();
    let found = facts(&missing.iter().map(|&index| programs[index].clone()).collect::<Vec<_>>())?;
    for (index, facts) in missing.into_iter().zip(found) {
        cache.insert(keys[index].clone(), facts);
    }
    cache.save()?;
    Ok(keys.iter().map(|key| cache.get(key).cloned().flatten()).collect())
}

/// One batch: when a row ends the process by a signal it has no facts, and the next process begins behind it.
fn batch(programs: &[String]) -> Result<Vec<Option<CodeFacts>>> {
    let mut found = Vec::with_capacity(programs.len());
    while found.len() < programs.len() {
        let (answers, killed) = one_process(&programs[found.len()..])?;
        found.extend(answers);
        if killed && found.len() < programs.len() {
            found.push(None);
        }
    }
    Ok(found)
}

/// The answers of one process, and whether a signal ended it.
fn one_process(programs: &[String]) -> Result<(Vec<Option<CodeFacts>>, bool)> {
    let interpreter = python::interpreter()?;
    let mut child = Command::new(&interpreter)
        .args(["-I", "-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::io("run", &interpreter))?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut stdin), Some(stdout), Some(mut stderr)) = (stdin, stdout, stderr) else {
        return Err(Error::invalid("Python was started without pipes", "run again"));
    };
    let mut answers = Vec::with_capacity(programs.len());
    let mut said = String::new();
    let read = std::thread::scope(|scope| {
        scope.spawn(move || {
            for program in programs {
                let line = serde_json::Value::from(program.as_str()).to_string();
                // A process that is gone takes no more rows; its exit status says why.
                if stdin.write_all(line.as_bytes()).and_then(|()| stdin.write_all(b"\n")).is_err() {
                    return;
                }
            }
        });
        let said = &mut said;
        scope.spawn(move || {
            let _ = stderr.read_to_string(said);
        });
        for line in BufReader::new(stdout).lines() {
            match line.map(|line| serde_json::from_str(&line)) {
                Ok(Ok(answer)) => answers.push(answer),
                // Half a line: the process ended while it wrote.
                _ => break,
            }
        }
        child.wait()
    });
    let status = read.map_err(Error::io("run", &interpreter))?;
    if !status.success() && status.signal().is_none() {
        let last = said.lines().last().unwrap_or("no message").to_string();
        return Err(Error::invalid(format!("the syntax analysis failed: {last}"), "check the Python installation"));
    }
    Ok((answers, !status.success()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(program: &str) -> CodeFacts {
        facts(&[program.to_string()]).expect("Python runs").remove(0).expect("the program parses")
    }

    #[test]
    fn names_docstrings_and_annotations_do_not_change_the_form() {
        let one = of("def f(a: int, b=2) -> int:\n    'doc'\n    for i in a:\n        b += i\n    return b\n");
        let two = of("def g(xs, total=2):\n    # other\n    for x in xs:\n        total += x\n    return total\n");
        let three = of("def g(xs, total=2):\n    for x in xs:\n        total -= x\n    return total\n");
        assert_eq!(one.form, two.form);
        assert_ne!(two.form, three.form);
        assert_ne!(one.functions[0].body_sha256, two.functions[0].body_sha256);
    }

    #[test]
    fn facts_are_those_of_the_tree() {
        let code = "import os.path, numpy\nfrom math import floor\ndef f(a, *, key):\n    '''two words'''\n    \
                    def g(b=1, *c):\n        return [x for x in b if x and a]\n    return g() if a else floor(a)\n";
        let facts = of(code);
        assert_eq!(facts.imports, ["math", "numpy", "os"]);
        assert_eq!(facts.foreign_imports, ["numpy"]);
        let (f, g) = (&facts.functions[0], &facts.functions[1]);
        assert_eq!((f.name.as_str(), f.top_level, f.min_args, f.docstring_words, f.complexity), ("f", true, 255, 2, 5));
        assert_eq!((g.name.as_str(), g.top_level, g.min_args, g.max_args), ("g", false, 0, 255));
        assert_eq!(facts.names, 7);
    }

    #[test]
    fn a_row_that_breaks_the_parser_costs_itself_only() {
        let deep = format!("x = {}1{}", "(".repeat(5000), ")".repeat(5000));
        let minus = format!("x = {}1", "-".repeat(200_000));
        let rows = ["def a(): pass", &deep, "def b(:", "x = '\0'", &minus, "def c(): pass"].map(str::to_string);
        let found = facts(&rows).expect("Python runs");
        assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, false, false, false, true]);
    }
}
