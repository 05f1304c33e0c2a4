//! Keys and values of the tokens already seen, so that each new token costs one token's work.
//!
//! Keys are stored after their rotation, so a key's column says nothing about its position. Rows of different lengths
//! are therefore aligned at their end: all rows write their next token into the same column, and each row remembers the
//! column where it starts.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::model::config::ArchConfig;
use crate::model::ops;

/// Columns allocated at first; doubled when full.
const FIRST_CAPACITY: usize = 64;

/// The cache of one batch of sequences. Not `Clone`: its tensors are written in place, and a copy would share them.
#[derive(Debug)]
pub struct KvCache {
    /// Per layer, keys and values `(batch, heads, capacity, head_dim)`; empty before the first token.
    layers: Vec<Option<(Tensor, Tensor)>>,
    /// Per row, the first column that holds a token of it.
    starts: Vec<usize>,
    /// Columns in use.
    columns: usize,
    capacity: usize,
    limit: usize,
}

impl KvCache {
    /// An empty cache. Its batch size is set by the first tokens that pass.
    pub fn new(config: &ArchConfig) -> Self {
        Self {
            layers: vec![None; config.num_layers],
            starts: Vec::new(),
            columns: 0,
            capacity: 0,
            limit: config.max_seq_length,
        }
    }

    /// Rows.
    pub fn batch(&self) -> usize {
        self.starts.len()
    }

    /// Tokens seen by each row.
    pub fn lengths(&self) -> Vec<usize> {
        self.starts.iter().map(|start| self.columns - start).collect()
    }

    /// Tokens seen by the longest row.
    pub fn len(&self) -> usize {
        self.columns - self.starts.iter().min().copied().unwrap_or(self.columns)
    }

    /// Whether no token has passed.
    pub fn is_empty(&self) -> bool {
        self.columns == 0
    }

    /// The first column of each row.
    pub(crate) fn starts(&self) -> &[usize] {
        &self.starts
    }

    /// Repeats every row `n` times, neighbours together: one prompt becomes `n` samples.
    ///
    /// # Errors
    /// [`Error::Tensor`].
    pub fn expand(&mut self, n: usize) -> Result<()> {
        let rows: Vec<usize> = (0..self.batch()).flat_map(|row| std::iter::repeat_n(row, n)).collect();
        self.retain(&rows)
    }

    /// Keeps the rows named, in that order; a row may be named twice. Finished sequences leave the batch this way.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a row does not exist; [`Error::Tensor`].
    pub fn retain(&mut self, rows: &[usize]) -> Result<()> {
        if let Some(row) = rows.iter().find(|&&row| row >= self.batch()) {
            let what = format!("the cache has {} rows, row {row} was asked for", self.batch());
            return Err(Error::invalid(what, "name rows of the current batch"));
        }
        self.starts = rows.iter().map(|&row| self.starts[row]).collect();
        let index: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
        for layer in self.layers.iter_mut().flatten() {
            let index = Tensor::new(index.as_slice(), layer.0.device())?;
            *layer = (layer.0.index_select(&index, 0)?, layer.1.index_select(&index, 0)?);
        }
        Ok(())
    }

    /// Joins caches into one batch, rows in order, aligned at their ends.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is none or they belong to different models; [`Error::Tensor`].
    pub fn join(caches: Vec<Self>) -> Result<Self> {
        let caches: Vec<Self> = caches.into_iter().filter(|cache| cache.batch() > 0).collect();
        let Some(first) = caches.first() else {
            return Err(Error::invalid("there is no cache to join", "prefill at least one prompt"));
        };
        let (layers, limit) = (first.layers.len(), first.limit);
        if caches.iter().any(|cache| cache.layers.len() != layers || cache.limit != limit) {
            return Err(Error::invalid("caches of different models", "join caches of one model"));
        }
        // Columns before the first row's start belonged to rows that left; without this a batch that rows keep joining
        // would grow for ever.
        let columns = caches.iter().map(Self::len).max().unwrap_or(0);
        // Room for what is written next: a full cache would be copied again for its first token.
        let capacity = columns + FIRST_CAPACITY;
        let mut joined = Vec::with_capacity(layers);
        for layer in 0..layers {
            let (mut keys, mut values) = (Vec::new(), Vec::new());
            for cache in &caches {
                if let Some((k, v)) = &cache.layers[layer] {
                    keys.push((k.clone(), cache.starts.clone(), cache.columns));
                    values.push((v.clone(), cache.starts.clone(), cache.columns));
                }
            }
            let join = |parts: &[_]| ops::join_cached(parts, columns, capacity);
            joined.push(Some((join(&keys)?, join(&values)?)));
        }
        let starts = caches.iter().flat_map(|c| c.starts.iter().map(move |start| start + columns - c.columns));
        let starts = starts.collect();
        Ok(Self { layers: joined, starts, columns, capacity, limit })
    }

    /// Makes room for `new` tokens in each of `batch` rows. The model calls it once a pass, before the layers.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the batch differs from the cache's or a row would outgrow the context.
    pub(crate) fn reserve(&mut self, batch: usize, new: usize) -> Result<()> {
        if self.is_empty() {
            self.starts = vec![0; batch];
        }
        if self.batch() != batch {
            let what = format!("{batch} rows of tokens for a cache of {} rows", self.batch());
            return Err(Error::invalid(what, "pass one row of tokens for each row of the cache"));
        }
        if self.len() + new > self.limit {
            let what = format!("{} tokens and {new} more exceed the context of {}", self.len(), self.limit);
            return Err(Error::invalid(what, "shorten the prompt or generate fewer tokens"));
        }
        let needed = self.columns + new;
        if needed > self.capacity {
            let capacity = needed.max(2 * self.capacity).max(FIRST_CAPACITY);
            for layer in self.layers.iter_mut().flatten() {
                let grow = |t: &Tensor| t.pad_with_zeros(2, 0, capacity - self.capacity)?.contiguous();
                *layer = (grow(&layer.0)?, grow(&layer.1)?);
            }
            self.capacity = capacity;
        }
        Ok(())
    }

    /// Writes a layer's new keys and values `(batch, heads, new, head_dim)` and returns all columns in use, as views
    /// `(batch, heads, columns + new, head_dim)`.
    ///
    /// # Errors
    /// [`Error::Tensor`].
    pub(crate) fn append(&mut self, layer: usize, keys: &Tensor, values: &Tensor) -> Result<(Tensor, Tensor)> {
        let (batch, heads, new, head_dim) = keys.dims4()?;
        if self.layers[layer].is_none() {
            let room = || Tensor::zeros((batch, heads, self.capacity, head_dim), keys.dtype(), keys.device());
            self.layers[layer] = Some((room()?, room()?));
        }
        let (all_keys, all_values) = self.layers[layer].as_ref().expect("allocated above");
        all_keys.slice_set(&keys.contiguous()?, 2, self.columns)?;
        all_values.slice_set(&values.contiguous()?, 2, self.columns)?;
        let used = self.columns + new;
        Ok((all_keys.narrow(2, 0, used)?, all_values.narrow(2, 0, used)?))
    }

    /// Counts `new` columns as used. The model calls it once a pass, after the layers.
    pub(crate) fn advance(&mut self, new: usize) {
        self.columns += new;
    }
}
