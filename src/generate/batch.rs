//! The batch in motion: prompts are read, samples are written side by side, finished ones leave, new ones join.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc;

use candle_core::Tensor;
use rand::rngs::StdRng;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::generate::sampler::Choice;
use crate::generate::stop::find_stop;
use crate::generate::{Completion, Finish, Request, Sampling};
use crate::model::config::Attention;
use crate::model::dropout::Dropout;
use crate::model::kv_cache::KvCache;
use crate::model::transformer::Transformer;
use crate::seed::rng;
use crate::tokenizer::Tokenizer;

/// Rows that a core writes side by side: more no longer fit its caches.
const CPU_ROWS: usize = 64;
/// Rows written side by side on a GPU, where a step costs the same for few and many.
const GPU_ROWS: usize = 512;

/// One prompt and the requests that share it.
struct Group {
    prompt: Vec<u32>,
    at_line_start: bool,
    requests: Vec<usize>,
}

/// One sequence being written.
struct Row {
    request: usize,
    rng: StdRng,
    at_line_start: bool,
    /// Prompt and completion.
    ids: Vec<u32>,
    prompt: usize,
    /// The completion's text, token by token; a character split over tokens shows as a replacement character here.
    text: String,
    log_likelihood: f64,
    finish: Option<Finish>,
}

/// What all rows share.
struct Writer<'a> {
    model: &'a Transformer,
    tokenizer: &'a Tokenizer,
    sampling: &'a Sampling,
    /// The text of every token, so that stops are seen without decoding the whole completion each step.
    pieces: Vec<String>,
    /// Most tokens of a prompt and its completion.
    limit: usize,
    /// Whether keys and values are kept. Where later tokens change earlier ones they cannot be.
    cached: bool,
}

/// Writes all completions and returns the number of tokens written.
///
/// On the CPU every core writes rows of its own from first to last: a step of a small model is a hundred short operations,
/// and threads that share each of them wait for one another. Who writes what does not depend on time.
pub(super) fn run(
    model: &Transformer,
    tokenizer: &Tokenizer,
    requests: &[Request],
    sampling: &Sampling,
    mut sink: impl FnMut(usize, Completion) -> Result<()>,
) -> Result<usize> {
    if tokenizer.vocabulary() > model.config().vocab_size {
        return Err(Error::Mismatch {
            what: "tokens of the tokenizer and rows of the embedding".into(),
            expected: format!("at most {}", model.config().vocab_size),
            found: tokenizer.vocabulary().to_string(),
            remedy: "use the tokenizer the checkpoint was trained with".into(),
        });
    }
    let ids = 0..tokenizer.vocabulary() as u32;
    let pieces = ids.map(|id| tokenizer.decode(&[id])).collect::<Result<Vec<_>>>()?;
    let (limit, cached) = (model.config().max_seq_length, model.config().attention == Attention::Causal);
    let writer = Writer { model, tokenizer, sampling, pieces, limit, cached };
    let cpu = model.device().is_cpu();
    let workers = if cpu && cached { rayon::current_num_threads().min(requests.len()).max(1) } else { 1 };
    let most = match (cached, cpu) {
        // The full pass re-reads everything at each step; its rows must have one length, so one prompt at a time.
        (false, _) => 1,
        (true, true) => CPU_ROWS.min(requests.len().div_ceil(workers)).max(1),
        (true, false) => GPU_ROWS,
    };
    let mut shares: Vec<VecDeque<Group>> = (0..workers).map(|_| VecDeque::new()).collect();
    let groups = groups(tokenizer, requests, if cached { most } else { CPU_ROWS })?;
    groups.into_iter().enumerate().for_each(|(index, group)| shares[index % workers].push_back(group));
    let mut tokens = 0;
    let mut deliver = |row: Row| -> Result<()> {
        tokens += row.ids.len() - row.prompt;
        let (request, completion) = writer.complete(row)?;
        sink(request, completion)
    };
    if let [share] = &mut shares[..] {
        writer.write(std::mem::take(share), requests, most, &mut deliver)?;
        return Ok(tokens);
    }
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        for share in shares {
            let (sender, writer) = (sender.clone(), &writer);
            scope.spawn(move || {
                // Nobody listens any more once the sink has failed: then writing ends.
                let send = |row| sender.send(Ok(row)).map_err(|_| Error::invalid("nobody takes what is written", ""));
                if let Err(error) = alone(|| writer.write(share, requests, most, send)).and_then(|written| written) {
                    let _ = sender.send(Err(error));
                }
            });
        }
        drop(sender);
        receiver.into_iter().try_for_each(|row| deliver(row?))
    })?;
    Ok(tokens)
}

/// Runs `work` with every parallel operation in it on the calling thread.
fn alone<R: Send>(work: impl FnOnce() -> R + Send) -> Result<R> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build();
    let pool =
        pool.map_err(|e| Error::invalid(format!("a thread could not be set up: {e}"), "free memory or threads"))?;
    Ok(pool.install(work))
}

/// Requests by prompt in the order of first appearance, at most `most` to a group.
fn groups(tokenizer: &Tokenizer, requests: &[Request], most: usize) -> Result<Vec<Group>> {
    let mut order: Vec<&str> = Vec::new();
    let mut by_prompt: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, request) in requests.iter().enumerate() {
        by_prompt.entry(&request.prompt).or_insert_with(|| {
            order.push(&request.prompt);
            Vec::new()
        });
        by_prompt.entry(&request.prompt).or_default().push(index);
    }
    let mut groups = Vec::new();
    for text in order {
        let prompt = tokenizer.encode(text)?;
        if prompt.is_empty() {
            return Err(Error::invalid("a prompt without a token", "give the model something to continue"));
        }
        for requests in by_prompt[text].chunks(most) {
            let (prompt, requests) = (prompt.clone(), requests.to_vec());
            groups.push(Group { prompt, at_line_start: text.ends_with('\n'), requests });
        }
    }
    Ok(groups)
}

impl Writer<'_> {
    /// Writes the groups that wait, at most `most` rows at a time, and hands on every row that is finished.
    fn write(
        &self,
        mut waiting: VecDeque<Group>,
        requests: &[Request],
        most: usize,
        mut deliver: impl FnMut(Row) -> Result<()>,
    ) -> Result<()> {
        let mut rows: Vec<Row> = Vec::new();
        let mut cache = KvCache::new(self.model.config());
        loop {
            let mut caches = Vec::new();
            while let Some(group) = waiting.front() {
                if !rows.is_empty() && rows.len() + group.requests.len() > most {
                    break;
                }
                let Some(group) = waiting.pop_front() else { break };
                let (started, read) = self.start(group, requests)?;
                let mut alive = 0;
                for row in started {
                    if row.finish.is_some() {
                        deliver(row)?;
                    } else {
                        rows.push(row);
                        alive += 1;
                    }
                }
                if let (Some(mut read), true) = (read, alive > 0) {
                    read.expand(alive)?;
                    caches.push(read);
                }
            }
            if rows.is_empty() {
                return Ok(());
            }
            if !caches.is_empty() {
                caches.insert(0, cache);
                cache = KvCache::join(caches)?;
            }
            self.step(&mut rows, self.cached.then_some(&mut cache))?;
            // Leaving copies the cache, so rows leave in company. Idle tokens must not outgrow the context.
            let done = rows.iter().filter(|row| row.finish.is_some()).count();
            let full = cache.len() >= self.limit;
            if !self.cached || full || done * 4 >= rows.len() {
                let kept: Vec<usize> = (0..rows.len()).filter(|&i| rows[i].finish.is_none()).collect();
                if self.cached && kept.len() < rows.len() {
                    match kept.is_empty() {
                        true => cache = KvCache::new(self.model.config()),
                        false => cache.retain(&kept)?,
                    }
                }
                for row in std::mem::take(&mut rows) {
                    if row.finish.is_some() {
                        deliver(row)?;
                    } else {
                        rows.push(row);
                    }
                }
            }
        }
    }

    /// Reads a prompt once and draws the first token of each of its samples.
    fn start(&self, group: Group, requests: &[Request]) -> Result<(Vec<Row>, Option<KvCache>)> {
        let Group { prompt, at_line_start, requests: indices } = group;
        let mut rows: Vec<Row> = indices
            .into_iter()
            .map(|request| Row {
                request,
                rng: rng(self.sampling.seed, &requests[request].key),
                at_line_start,
                ids: prompt.clone(),
                prompt: prompt.len(),
                text: String::new(),
                log_likelihood: 0.0,
                finish: None,
            })
            .collect();
        if prompt.len() >= self.limit {
            rows.iter_mut().for_each(|row| row.finish = Some(Finish::PromptTooLong));
            return Ok((rows, None));
        }
        let ids = Tensor::new(prompt.as_slice(), self.model.device())?.unsqueeze(0)?; // (1, seq)
        let mut cache = KvCache::new(self.model.config());
        let hidden = if self.cached {
            self.model.hidden_cached(&ids, &mut cache)?
        } else {
            self.model.hidden(&ids, &mut Dropout::off())?
        };
        let last = hidden.narrow(1, prompt.len() - 1, 1)?; // (1, 1, hidden)
        let logits = self.logits(&last)?;
        rows.par_iter_mut().try_for_each(|row| self.extend(row, &logits[0]))?;
        Ok((rows, self.cached.then_some(cache)))
    }

    /// One token more for every row that is not finished. Finished rows still in the cache get an idle token.
    fn step(&self, rows: &mut [Row], cache: Option<&mut KvCache>) -> Result<()> {
        let device = self.model.device();
        let hidden = match cache {
            Some(cache) => {
                let ids: Vec<u32> = rows.iter().map(|row| row.ids[row.ids.len() - 1]).collect();
                let ids = Tensor::from_vec(ids, (rows.len(), 1), device)?;
                self.model.hidden_cached(&ids, cache)? // (batch, 1, hidden)
            }
            None => {
                let seq = rows[0].ids.len();
                let ids: Vec<u32> = rows.iter().flat_map(|row| row.ids.iter().copied()).collect();
                let ids = Tensor::from_vec(ids, (rows.len(), seq), device)?;
                self.model.hidden(&ids, &mut Dropout::off())?.narrow(1, seq - 1, 1)?
            }
        };
        let logits = self.logits(&hidden)?;
        rows.par_iter_mut().zip(&logits).try_for_each(|(row, logits)| self.extend(row, logits))
    }

    /// Logits `(batch, 1, hidden)` → one slice a row, without the rows of the embedding that no token uses.
    fn logits(&self, hidden: &Tensor) -> Result<Vec<Vec<f32>>> {
        let mut logits = self.model.logits(hidden)?.squeeze(1)?.to_vec2::<f32>()?;
        logits.iter_mut().for_each(|row| row.truncate(self.pieces.len()));
        Ok(logits)
    }

    /// Draws a row's next token and looks for its end.
    fn extend(&self, row: &mut Row, logits: &[f32]) -> Result<()> {
        if row.finish.is_some() {
            return Ok(());
        }
        let (token, likelihood): Choice = self.sampling.choose(logits, &row.ids, &mut row.rng)?;
        row.ids.push(token);
        row.log_likelihood += likelihood;
        if token == self.tokenizer.eos() {
            row.finish = Some(Finish::EndOfSequence);
            return Ok(());
        }
        row.text.push_str(&self.pieces[token as usize]);
        let stop = find_stop(&row.text, row.at_line_start, self.sampling).map(|stop| stop.1);
        let written = row.ids.len() - row.prompt;
        let spent = written >= self.sampling.max_new_tokens || row.ids.len() >= self.limit;
        row.finish = stop.or(spent.then_some(Finish::Limit));
        Ok(())
    }

    /// The completion of a finished row.
    fn complete(&self, row: Row) -> Result<(usize, Completion)> {
        let tokens = row.ids[row.prompt..].to_vec();
        let finish = row.finish.unwrap_or(Finish::Limit);
        let written = if finish == Finish::EndOfSequence { &tokens[..tokens.len() - 1] } else { &tokens[..] };
        let mut text = self.tokenizer.decode(written)?;
        if let Some((at, _)) = find_stop(&text, row.at_line_start, self.sampling) {
            text.truncate(at);
        }
        Ok((row.request, Completion { text, tokens, finish, log_likelihood: row.log_likelihood }))
    }
}
