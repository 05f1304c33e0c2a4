//! Progress of long steps: a bar on a terminal, one line a tick elsewhere (a notebook shows whole lines only).

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Seconds between two printed lines when there is no terminal.
const TICK_SECONDS: u64 = 5;

/// One long step, counted in units of its own; shared freely between threads.
pub struct Progress {
    label: String,
    total: u64,
    done: AtomicU64,
    last_tick: AtomicU64,
    start: Instant,
    bar: Option<indicatif::ProgressBar>,
}

impl Progress {
    /// Begins a step of `total` units.
    pub fn new(label: impl Into<String>, total: usize) -> Self {
        let (label, total) = (label.into(), total as u64);
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = indicatif::ProgressBar::new(total);
            let style = indicatif::ProgressStyle::with_template(
                "{prefix:>24} {wide_bar:.cyan/dim} {pos}/{len} {elapsed_precise} eta {eta} {msg}",
            );
            bar.set_style(style.expect("the template is a constant"));
            bar.set_prefix(label.clone());
            bar
        });
        Self { label, total, done: AtomicU64::new(0), last_tick: AtomicU64::new(0), start: Instant::now(), bar }
    }

    /// Counts `n` more units done.
    pub fn add(&self, n: usize) {
        self.tick(n, String::new);
    }

    /// Counts `n` more units done and shows a note such as `loss 2.31  1840 tokens/s`.
    pub fn note(&self, n: usize, note: impl Into<String>) {
        let note = note.into();
        self.tick(n, || note);
    }

    fn tick(&self, n: usize, note: impl FnOnce() -> String) {
        let done = self.done.fetch_add(n as u64, Ordering::Relaxed) + n as u64;
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            let note = note();
            if !note.is_empty() {
                bar.set_message(note);
            }
            return;
        }
        let elapsed = self.start.elapsed().as_secs();
        let last = self.last_tick.load(Ordering::Relaxed);
        let due = elapsed >= last + TICK_SECONDS;
        if due && self.last_tick.compare_exchange(last, elapsed, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            println!("{}: {done}/{} after {elapsed} s  {}", self.label, self.total, note());
        }
    }

    /// Ends the step and leaves one line that says how long it took.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let seconds = self.start.elapsed().as_secs_f64();
        println!("{}: {} done in {seconds:.1} s", self.label, self.done.load(Ordering::Relaxed));
    }
}
