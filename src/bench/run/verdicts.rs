//! Each distinct program is run once, however many samples wrote it.
//!
//! At low temperature most samples of a task are the same text, and twenty samples of one endless loop would cost twenty
//! time limits. What repeats takes over the verdict, the message and the seconds of the first. A program whose result
//! depends on chance therefore has one verdict in a measurement, not one a sample.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::lock;
use crate::data::task::Task;
use crate::error::Result;
use crate::sandbox::{Execution, Sandbox};

/// A verdict that is there, or that somebody who holds the lock is about to find.
type Slot = Arc<Mutex<Option<Execution>>>;

/// The verdicts of one measurement.
pub struct Verdicts<'a> {
    sandbox: &'a Sandbox,
    /// By (task, body).
    slots: Mutex<HashMap<(String, String), Slot>>,
}

impl<'a> Verdicts<'a> {
    /// None yet.
    pub fn new(sandbox: &'a Sandbox) -> Self {
        Self { sandbox, slots: Mutex::default() }
    }

    /// What becomes of `body` under the tests of `task`. Waits where the same program is being run.
    ///
    /// # Errors
    /// As [`Sandbox::run`].
    pub fn of(&self, task: &Task, body: &str) -> Result<Execution> {
        let slot = Arc::clone(lock(&self.slots).entry((task.id.clone(), body.into())).or_default());
        let mut verdict = lock(&slot);
        if let Some(execution) = &*verdict {
            return Ok(execution.clone());
        }
        let execution = self.sandbox.run(&task.program(body))?;
        Ok(verdict.insert(execution).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::{Limits, Outcome};

    #[test]
    fn what_repeats_is_not_run_again_and_what_differs_is() {
        let sandbox = Sandbox::new(Limits::seconds(1.0)).unwrap();
        let verdicts = Verdicts::new(&sandbox);
        let task = |id: &str, test: &str| Task {
            id: id.into(),
            prompt: "def f(x):\n".into(),
            solution: "    return x\n".into(),
            entry_point: "f".into(),
            setup: String::new(),
            tests: vec![test.into()],
            provenance: None,
        };
        let (one, other) = (task("one", "assert f(1) == 1"), task("other", "assert f(1) == 2"));
        let loops: Vec<Execution> = std::thread::scope(|scope| {
            let run = || verdicts.of(&one, "    while True: pass\n").unwrap();
            let threads: Vec<_> = (0..20).map(|_| scope.spawn(run)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(loops[0].outcome, Outcome::TimedOut);
        assert!(loops.iter().all(|execution| execution == &loops[0]), "one run, to the same second: {loops:?}");
        assert_eq!(verdicts.of(&one, "    return x\n").unwrap().outcome, Outcome::Passed);
        assert_eq!(verdicts.of(&other, "    return x\n").unwrap().outcome, Outcome::WrongAnswer);
    }
}
