//! Windows over token streams, for pre-training.
//!
//! Short documents (exercises, docstring pairs) are drawn whole and packed one after the other, so that a window
//! begins where a prompt begins, as generation does; long ones (raw code) are cut at random. A step's windows depend on
//! the seed and the step alone.

use rand::Rng;
use rand::rngs::StdRng;

use crate::data::corpus::TokenStream;
use crate::error::{Error, Result};
use crate::seed;
use crate::train::batch::{Batch, Batches};

/// How windows are cut from a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Whole documents drawn at random until the window is full; the last is cut short.
    Packed,
    /// One stretch from anywhere in the stream, across document boundaries.
    Anywhere,
}

/// A stream and its share of the windows.
#[derive(Debug, Clone)]
pub struct Part {
    /// The tokens.
    pub stream: TokenStream,
    /// Weight among the parts; shares are weights over their sum.
    pub weight: f64,
    /// How windows are cut.
    pub cut: Cut,
}

/// Random windows of `context` tokens, drawn from several streams by weight. Every position is supervised.
#[derive(Debug, Clone)]
pub struct WindowBatches {
    parts: Vec<Part>,
    batch_size: usize,
    /// Sequences computed at once.
    micro: usize,
    context: usize,
    seed: u64,
    purpose: String,
}

impl WindowBatches {
    /// `batch_size` windows a step. `purpose` separates generators under one seed, e.g. `pretrain`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when no part has weight and tokens, or a size is zero.
    pub fn new(parts: Vec<Part>, batch_size: usize, context: usize, seed: u64, purpose: &str) -> Result<Self> {
        let parts: Vec<Part> = parts.into_iter().filter(|p| p.weight > 0.0).collect();
        let short = parts.iter().find(|p| p.stream.tokens().len() <= context + 1 || p.stream.documents() == 0);
        if parts.is_empty() || batch_size == 0 || context == 0 || short.is_some() {
            return Err(Error::invalid(
                format!(
                    "no windows of {context} tokens can be drawn in batches of {batch_size} from {} streams{}",
                    parts.len(),
                    short.map(|p| format!(", one of {} tokens", p.stream.tokens().len())).unwrap_or_default()
                ),
                "give at least one stream a share above zero, more documents, and sizes of at least 1",
            ));
        }
        Ok(Self { parts, batch_size, micro: batch_size, context, seed, purpose: purpose.to_string() })
    }

    /// The same windows, each step's computed in `accumulation` micro-batches: less memory, the same result.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there would be micro-batches without a sequence.
    pub fn accumulated(mut self, accumulation: usize) -> Result<Self> {
        if accumulation == 0 || accumulation > self.batch_size {
            return Err(Error::invalid(
                format!("{} sequences cannot be divided among {accumulation} micro-batches", self.batch_size),
                "choose an accumulation between 1 and batch_size",
            ));
        }
        self.micro = self.batch_size.div_ceil(accumulation);
        Ok(self)
    }

    /// `count` fixed windows of one part, in batches: for evaluation. Parts without weight are not counted.
    pub fn fixed(&self, part: usize, count: usize) -> Vec<Batch> {
        let mut rng = seed::rng(self.seed, &format!("{} fixed {part}", self.purpose));
        let windows: Vec<Vec<u16>> = (0..count).map(|_| self.window(&self.parts[part], &mut rng)).collect();
        windows.chunks(self.micro).map(|chunk| self.batch(chunk)).collect()
    }

    /// The micro-batches of the first `count` steps, under this purpose.
    ///
    /// # Errors
    /// As [`Batches::step`].
    pub fn first(&self, count: usize) -> Result<Vec<Batch>> {
        Ok((1..=count).map(|step| self.step(step)).collect::<Result<Vec<_>>>()?.concat())
    }

    /// One window of `context + 1` tokens: inputs and the targets one further.
    fn window(&self, part: &Part, rng: &mut StdRng) -> Vec<u16> {
        let tokens = part.stream.tokens();
        let length = self.context + 1;
        match part.cut {
            Cut::Anywhere => {
                let from = rng.random_range(0..=tokens.len() - length);
                tokens[from..from + length].to_vec()
            }
            Cut::Packed => {
                let mut window = Vec::with_capacity(length);
                while window.len() < length {
                    let document = part.stream.document(rng.random_range(0..part.stream.documents()));
                    let room = length - window.len();
                    window.extend_from_slice(&document[..document.len().min(room)]);
                }
                window
            }
        }
    }

    fn part(&self, rng: &mut StdRng) -> &Part {
        let total: f64 = self.parts.iter().map(|p| p.weight).sum();
        let mut draw = rng.random::<f64>() * total;
        for part in &self.parts {
            draw -= part.weight;
            if draw < 0.0 {
                return part;
            }
        }
        &self.parts[self.parts.len() - 1]
    }

    fn batch(&self, windows: &[Vec<u16>]) -> Batch {
        let (rows, seq) = (windows.len(), self.context);
        let wide = |tokens: &[u16]| tokens.iter().map(|&t| u32::from(t)).collect::<Vec<u32>>();
        Batch {
            ids: windows.iter().flat_map(|w| wide(&w[..seq])).collect(),
            rows,
            seq,
            supervised: (0..(rows * seq) as u32).collect(),
            targets: windows.iter().flat_map(|w| wide(&w[1..])).collect(),
            real: rows * seq,
        }
    }
}

impl Batches for WindowBatches {
    fn step(&self, step: usize) -> Result<Vec<Batch>> {
        let mut rng = seed::rng(self.seed, &format!("{} step {step}", self.purpose));
        let windows: Vec<Vec<u16>> = (0..self.batch_size)
            .map(|_| {
                let part = self.part(&mut rng);
                self.window(part, &mut rng)
            })
            .collect();
        Ok(windows.chunks(self.micro).map(|windows| self.batch(windows)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Documents `[10·k, 10·k + 1, …, 0]` of k tokens each.
    fn stream(folder: &std::path::Path, documents: u16) -> TokenStream {
        let documents = (1..=documents).map(|k| {
            let mut document: Vec<u32> = (0..u32::from(k)).map(|t| 100 * u32::from(k) + t).collect();
            document.push(0);
            Ok(document)
        });
        TokenStream::write(&folder.join(format!("s{}", documents.len())), documents).unwrap()
    }

    #[test]
    fn packed_windows_begin_with_a_document_and_targets_follow_inputs() {
        let folder = tempfile::tempdir().unwrap();
        let part = Part { stream: stream(folder.path(), 20), weight: 1.0, cut: Cut::Packed };
        let batches = WindowBatches::new(vec![part], 8, 32, 3, "test").unwrap();
        let batch = batches.step(5).unwrap().remove(0);
        assert_eq!((batch.rows, batch.seq, batch.ids.len(), batch.targets.len()), (8, 32, 256, 256));
        for row in 0..8 {
            let (ids, targets) = (&batch.ids[row * 32..row * 32 + 32], &batch.targets[row * 32..row * 32 + 32]);
            assert_eq!(ids[0] % 100, 0, "a window begins where a document begins");
            assert_eq!(ids[1..], targets[..31]);
        }
        assert_eq!(batch, batches.step(5).unwrap()[0]);
        assert_ne!(batch, batches.step(6).unwrap()[0]);
    }

    #[test]
    fn accumulation_divides_the_same_windows() {
        let folder = tempfile::tempdir().unwrap();
        let part = Part { stream: stream(folder.path(), 20), weight: 1.0, cut: Cut::Packed };
        let whole = WindowBatches::new(vec![part], 8, 32, 3, "test").unwrap();
        let parts = whole.clone().accumulated(3).unwrap().step(5).unwrap();
        assert_eq!(parts.iter().map(|batch| batch.rows).collect::<Vec<_>>(), [3, 3, 2]);
        let ids: Vec<u32> = parts.into_iter().flat_map(|batch| batch.ids).collect();
        assert_eq!(ids, whole.step(5).unwrap()[0].ids);
        assert!(whole.clone().accumulated(9).is_err() && whole.accumulated(0).is_err());
    }

    #[test]
    fn parts_are_drawn_by_weight() {
        let folder = tempfile::tempdir().unwrap();
        let small = Part { stream: stream(folder.path(), 12), weight: 1.0, cut: Cut::Packed };
        let large = Part { stream: stream(folder.path(), 40), weight: 3.0, cut: Cut::Anywhere };
        let batches = WindowBatches::new(vec![small, large], 400, 64, 3, "test").unwrap();
        let batch = batches.step(1).unwrap().remove(0);
        // Only the second stream holds documents above 12.
        let second = batch.ids.chunks(64).filter(|row| row.iter().any(|&id| id > 1300)).count();
        assert!((250..=340).contains(&second), "{second} of 400 windows");
    }

    #[test]
    fn a_stream_shorter_than_a_window_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let part = Part { stream: stream(folder.path(), 3), weight: 1.0, cut: Cut::Packed };
        assert!(WindowBatches::new(vec![part], 8, 32, 3, "test").is_err());
    }
}
