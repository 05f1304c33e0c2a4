//! The decoder, bottom-up: norm, attention, MLP, block, model. Names are the checkpoint's keys, shapes stand beside the
//! lines.
//!
//! Covered: LayerNorm and RMSNorm before each sub-layer; GELU, SiLU, GEGLU, SwiGLU; rotary and learned positions; tied
//! and untied heads; a full pass for training and a cached pass for generation. Not covered: grouped queries, biases in
//! linear layers, contexts beyond `max_seq_length`.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;

use crate::error::{Error, Result};
use crate::model::config::{ArchConfig, Attention as Sight, Normalization, PositionEncoding};
use crate::model::dropout::Dropout;
use crate::model::kv_cache::KvCache;
use crate::model::linear::Linear;
use crate::model::ops::{self, Rope};

/// The norm before a sub-layer: `norm1`, `norm2`, and `norm` before the head.
#[derive(Debug)]
struct Norm {
    weight: Tensor,       // (hidden)
    bias: Option<Tensor>, // (hidden), LayerNorm only
    eps: f64,
}

impl Norm {
    fn new(config: &ArchConfig, vb: VarBuilder) -> Result<Self> {
        let bias = match config.normalization {
            Normalization::LayerNorm => Some(vb.get(config.hidden_dim, "bias")?),
            Normalization::RmsNorm => None,
        };
        Ok(Self { weight: vb.get(config.hidden_dim, "weight")?, bias, eps: config.norm_eps })
    }

    fn as_part(&self) -> ops::Norm {
        ops::Norm { weight: self.weight.clone(), bias: self.bias.clone(), eps: self.eps }
    }

    fn forward(&self, x: &Tensor, floats: DType) -> Result<Tensor> {
        Ok(match &self.bias {
            Some(bias) => ops::layer_norm(x, &self.weight, bias, self.eps, floats)?,
            None => ops::rms_norm(x, &self.weight, self.eps, floats)?,
        })
    }
}

/// Multi-head self-attention: `attn.qkv`, `attn.out_proj`.
#[derive(Debug)]
struct Attention {
    qkv: Linear,      // (3 · hidden, hidden), rows ordered (q | k | v), each (heads, head_dim)
    out_proj: Linear, // (hidden, hidden)
    heads: usize,
    causal: bool,
    dropout: f64,
}

impl Attention {
    fn new(config: &ArchConfig, vb: VarBuilder) -> Result<Self> {
        let hidden = config.hidden_dim;
        Ok(Self {
            qkv: Linear::new(hidden, 3 * hidden, &vb.pp("qkv"))?,
            out_proj: Linear::new(hidden, hidden, &vb.pp("out_proj"))?,
            heads: config.num_heads,
            causal: config.attention == Sight::Causal,
            dropout: config.attention_dropout,
        })
    }

    fn forward(&self, x: &Tensor, rope: Option<&Rope>, dropout: &mut Dropout) -> Result<Tensor> {
        let qkv = self.qkv.forward(x, dropout)?; // (batch, seq, 3 · hidden)
        let mixed = ops::attention(&qkv, self.heads, rope, self.causal, dropout.mask(self.dropout))?;
        self.out_proj.forward(&mixed, dropout) // (batch, seq, hidden)
    }

    fn forward_cached(&self, x: &Tensor, rope: Option<&Rope>, layer: usize, cache: &mut KvCache) -> Result<Tensor> {
        let off = &mut Dropout::off();
        let qkv = self.qkv.forward(x, off)?; // (batch, new, 3 · hidden)
        let (q, k, v) = ops::composed::split_heads(&qkv, self.heads)?; // (batch, heads, new, head_dim)
        let (q, k) = match rope {
            Some(rope) => (ops::composed::rope(&q, rope)?, ops::composed::rope(&k, rope)?),
            None => (q, k),
        };
        let (keys, values) = cache.append(layer, &k, &v)?; // (batch, heads, columns, head_dim)
        let mixed = ops::cached_attention(&q, &keys, &values, cache.starts())?;
        self.out_proj.forward(&ops::composed::join_heads(&mixed)?, off) // (batch, new, hidden)
    }
}

/// The MLP: `ffn.fc1`, `ffn.fc2`.
#[derive(Debug)]
struct Mlp {
    fc1: Linear, // (fc1_dim, hidden)
    fc2: Linear, // (hidden, ffn_dim)
    config: ArchConfig,
}

impl Mlp {
    fn new(config: &ArchConfig, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            fc1: Linear::new(config.hidden_dim, config.fc1_dim(), &vb.pp("fc1"))?,
            fc2: Linear::new(config.ffn_dim(), config.hidden_dim, &vb.pp("fc2"))?,
            config: config.clone(),
        })
    }

    fn forward(&self, x: &Tensor, dropout: &mut Dropout) -> Result<Tensor> {
        let wide = self.fc1.forward(x, dropout)?; // (batch, seq, fc1_dim)
        let wide = ops::activate(&wide, self.config.activation)?; // (batch, seq, ffn_dim)
        self.fc2.forward(&wide, dropout) // (batch, seq, hidden)
    }
}

/// One block, `layers.N`: x + attention(norm1(x)), then x + MLP(norm2(x)).
#[derive(Debug)]
struct Block {
    norm1: Norm,
    attn: Attention,
    norm2: Norm,
    ffn: Mlp,
    residual_dropout: f64,
}

impl Block {
    fn new(config: &ArchConfig, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            norm1: Norm::new(config, vb.pp("norm1"))?,
            attn: Attention::new(config, vb.pp("attn"))?,
            norm2: Norm::new(config, vb.pp("norm2"))?,
            ffn: Mlp::new(config, vb.pp("ffn"))?,
            residual_dropout: config.residual_dropout,
        })
    }

    /// The whole block as one operation, where it is one: masks are dealt in the order of the single operations.
    fn as_one(&self, rope: Option<&Rope>, dropout: &mut Dropout) -> Option<ops::Block> {
        let (attn, ffn) = (&self.attn, &self.ffn);
        if ![&attn.qkv, &attn.out_proj, &ffn.fc1, &ffn.fc2].into_iter().all(Linear::is_plain) {
            return None;
        }
        let qkv = attn.qkv.projection(dropout);
        let probabilities = dropout.mask(attn.dropout);
        let out_proj = attn.out_proj.projection(dropout);
        let attended = dropout.mask(self.residual_dropout);
        let (fc1, fc2) = (ffn.fc1.projection(dropout), ffn.fc2.projection(dropout));
        Some(ops::Block {
            norm1: self.norm1.as_part(),
            qkv,
            out_proj,
            norm2: self.norm2.as_part(),
            fc1,
            fc2,
            heads: attn.heads,
            rope: rope.cloned(),
            causal: attn.causal,
            activation: ffn.config.activation,
            masks: [probabilities, attended, dropout.mask(self.residual_dropout)],
        })
    }

    /// The residual stream and the norms stay f32; the sub-layers compute in `floats`.
    fn forward(&self, x: &Tensor, rope: Option<&Rope>, dropout: &mut Dropout, floats: DType) -> Result<Tensor> {
        if floats == DType::F32
            && ops::fuses_blocks(x)
            && let Some(block) = self.as_one(rope, dropout)
        {
            return Ok(ops::block(x, &block)?);
        }
        let attended = self.attn.forward(&self.norm1.forward(x, floats)?, rope, dropout)?;
        let x = ops::residual(x, &dropout.apply(&attended, self.residual_dropout)?)?; // (batch, seq, hidden)
        let thought = self.ffn.forward(&self.norm2.forward(&x, floats)?, dropout)?;
        Ok(ops::residual(&x, &dropout.apply(&thought, self.residual_dropout)?)?)
    }

    fn forward_cached(&self, x: &Tensor, rope: Option<&Rope>, layer: usize, cache: &mut KvCache) -> Result<Tensor> {
        let attended = self.attn.forward_cached(&self.norm1.forward(x, x.dtype())?, rope, layer, cache)?;
        let x = (x + attended)?; // (batch, new, hidden)
        let thought = self.ffn.forward(&self.norm2.forward(&x, x.dtype())?, &mut Dropout::off())?;
        Ok((&x + thought)?)
    }
}

/// The model: embedding, blocks, norm, head.
#[derive(Debug)]
pub struct Transformer {
    config: ArchConfig,
    token_embedding: Tensor,            // (vocab, hidden)
    position_embedding: Option<Tensor>, // (max_seq, hidden), learned positions only
    rope: Option<Rope>,
    layers: Vec<Block>,
    norm: Norm,
    lm_head: Linear, // (vocab, hidden); the embedding itself when tied
    floats: DType,
}

impl Transformer {
    /// Takes every weight from the builder, under the checkpoint's keys. Weights that are variables stay the same
    /// variables, so that training them trains this model.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an impossible configuration; [`Error::Tensor`] for a missing weight or another shape (see
    /// [`checkpoint::check`](crate::model::checkpoint::check), which lists all of them).
    pub fn new(config: &ArchConfig, vb: VarBuilder) -> Result<Self> {
        config.check()?;
        let (hidden, vocab) = (config.hidden_dim, config.vocab_size);
        let token_embedding = vb.get((vocab, hidden), "token_embedding.weight")?;
        let absolute = config.position_encoding == PositionEncoding::Absolute;
        let position_embedding =
            absolute.then(|| vb.get((config.max_seq_length, hidden), "position_embedding.weight")).transpose()?;
        let rope = (!absolute).then(|| Rope::new(config, vb.device())).transpose()?;
        let block = |index: usize| Block::new(config, vb.pp("layers").pp(index));
        let layers = (0..config.num_layers).map(block).collect::<Result<_>>()?;
        let norm = Norm::new(config, vb.pp("norm"))?;
        let lm_head = if config.tie_word_embeddings {
            Linear::from_weight("lm_head".into(), token_embedding.clone())
        } else {
            Linear::new(hidden, vocab, &vb.pp("lm_head"))?
        };
        Ok(Self {
            config: config.clone(),
            token_embedding,
            position_embedding,
            rope,
            layers,
            norm,
            lm_head,
            floats: DType::F32,
        })
    }

    /// [`Transformer::new`] over a map of weights, all f32 on one device.
    ///
    /// # Errors
    /// As [`Transformer::new`].
    pub fn from_weights(config: &ArchConfig, weights: &BTreeMap<String, Tensor>) -> Result<Self> {
        let device = weights.values().next().map_or(Device::Cpu, |weight| weight.device().clone());
        let weights: HashMap<String, Tensor> = weights.iter().map(|(key, w)| (key.clone(), w.clone())).collect();
        Self::new(config, VarBuilder::from_tensors(weights, DType::F32, &device))
    }

    /// The same model with matrix products in `floats`, bf16 for one. Weights, norms, the residual stream and the loss stay
    /// f32, so that small updates are not lost; the cached pass for generation is not affected.
    #[must_use]
    pub fn computing_in(mut self, floats: DType) -> Self {
        self.floats = floats;
        self
    }

    /// The same model with its matrices rounded to eight bits, a scale a row, for sampling: a token of a single sequence reads a
    /// quarter of the bytes. The embedding and the norms stay as they are. Not to be trained.
    ///
    /// # Errors
    /// [`Error::Tensor`].
    pub fn in_eight_bits(mut self) -> Result<Self> {
        if self.config.tie_word_embeddings {
            self.lm_head.round_to_bytes()?;
        }
        for linear in self.linears_mut() {
            linear.round_to_bytes()?;
        }
        Ok(self)
    }

    /// The shape of this model.
    pub fn config(&self) -> &ArchConfig {
        &self.config
    }

    /// Where the weights live.
    pub fn device(&self) -> &Device {
        self.token_embedding.device()
    }

    /// The full pass: ids `(batch, seq)` u32 to `(batch, seq, hidden)`, after the last norm. Positions are 0 to seq.
    /// Padding on the right is harmless under the causal mask.
    ///
    /// # Errors
    /// [`Error::Invalid`] when seq exceeds the context; [`Error::Tensor`].
    pub fn hidden(&self, ids: &Tensor, dropout: &mut Dropout) -> Result<Tensor> {
        let (_, seq) = ids.dims2()?;
        self.check_length(seq)?;
        let mut x = ops::embedding(ids, &self.token_embedding)?; // (batch, seq, hidden)
        if let Some(positions) = &self.position_embedding {
            x = x.broadcast_add(&positions.narrow(0, 0, seq)?)?;
        }
        let rope = self.rope.as_ref().map(|rope| rope.first(seq)).transpose()?;
        for layer in &self.layers {
            x = layer.forward(&x, rope.as_ref(), dropout, self.floats)?;
        }
        self.norm.forward(&x, x.dtype())
    }

    /// The cached pass: new ids `(batch, new)` u32 to `(batch, new, hidden)`; their keys and values join the cache. The
    /// first pass through an empty cache is the prompt's.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the batch is not the cache's, the context is full, or the model is bidirectional (the
    /// past would have to change); [`Error::Tensor`].
    pub fn hidden_cached(&self, ids: &Tensor, cache: &mut KvCache) -> Result<Tensor> {
        if self.config.attention == Sight::Bidirectional {
            let what = "a bidirectional model cannot be sampled with a cache";
            return Err(Error::invalid(what, "use the full pass, or a causal model"));
        }
        let (batch, new) = ids.dims2()?;
        cache.reserve(batch, new)?;
        let first = cache.lengths();
        let positions: Vec<u32> = first.iter().flat_map(|f| (0..new).map(move |i| (f + i) as u32)).collect();
        let positions = Tensor::from_vec(positions, (batch, new), ids.device())?;
        let mut x = ops::embedding(ids, &self.token_embedding)?; // (batch, new, hidden)
        if let Some(learned) = &self.position_embedding {
            x = (x + ops::embedding(&positions, learned)?)?;
        }
        let rope = self.rope.as_ref().map(|rope| rope.at(&positions)).transpose()?;
        for (index, layer) in self.layers.iter().enumerate() {
            x = layer.forward_cached(&x, rope.as_ref(), index, cache)?;
        }
        cache.advance(new);
        self.norm.forward(&x, x.dtype())
    }

    /// Logits of hidden states: `(…, hidden)` to `(…, vocab)`, f32.
    ///
    /// # Errors
    /// [`Error::Tensor`].
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        Ok(self.lm_head.forward(hidden, &mut Dropout::off())?.to_dtype(DType::F32)?)
    }

    /// Mean cross-entropy of hidden states `(n, hidden)` against the next tokens `(n)` u32, with label smoothing: a scalar
    /// in nats per token. Without dropout equal to [`Transformer::logits`] and [`ops::cross_entropy`] in turn, and cheaper. Only an
    /// adapter of the head drops anything.
    ///
    /// # Errors
    /// [`Error::Tensor`].
    pub fn loss(&self, hidden: &Tensor, targets: &Tensor, smoothing: f64, dropout: &mut Dropout) -> Result<Tensor> {
        if self.floats == DType::F32 && self.lm_head.is_bare() {
            return self.lm_head.loss(hidden, targets, smoothing);
        }
        let logits = self.lm_head.forward(&hidden.to_dtype(self.floats)?, dropout)?;
        Ok(ops::cross_entropy(&logits, targets, smoothing)?)
    }

    /// Logits of a whole sequence, without dropout: ids `(batch, seq)` to `(batch, seq, vocab)`.
    ///
    /// # Errors
    /// As [`Transformer::hidden`].
    pub fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        self.logits(&self.hidden(ids, &mut Dropout::off())?)
    }

    /// Every linear layer, in the order of the checkpoint's keys. A tied head is not among them: it has no weight of its
    /// own.
    pub fn linears(&self) -> Vec<&Linear> {
        let mut all: Vec<&Linear> = Vec::new();
        for layer in &self.layers {
            all.extend([&layer.attn.qkv, &layer.attn.out_proj, &layer.ffn.fc1, &layer.ffn.fc2]);
        }
        if !self.config.tie_word_embeddings {
            all.push(&self.lm_head);
        }
        all
    }

    /// [`Transformer::linears`], to attach adapters to.
    pub(crate) fn linears_mut(&mut self) -> Vec<&mut Linear> {
        let mut all: Vec<&mut Linear> = Vec::new();
        for layer in &mut self.layers {
            all.extend([&mut layer.attn.qkv, &mut layer.attn.out_proj, &mut layer.ffn.fc1, &mut layer.ffn.fc2]);
        }
        if !self.config.tie_word_embeddings {
            all.push(&mut self.lm_head);
        }
        all
    }

    /// Every weight under its checkpoint key; without adapters, unless merged. A tied head has no key.
    pub fn weights(&self) -> BTreeMap<String, Tensor> {
        let mut all = BTreeMap::from([("token_embedding.weight".to_string(), self.token_embedding.clone())]);
        if let Some(positions) = &self.position_embedding {
            all.insert("position_embedding.weight".into(), positions.clone());
        }
        let mut add = |name: &str, norm: &Norm| {
            all.insert(format!("{name}.weight"), norm.weight.clone());
            if let Some(bias) = &norm.bias {
                all.insert(format!("{name}.bias"), bias.clone());
            }
        };
        for (index, layer) in self.layers.iter().enumerate() {
            add(&format!("layers.{index}.norm1"), &layer.norm1);
            add(&format!("layers.{index}.norm2"), &layer.norm2);
        }
        add("norm", &self.norm);
        for linear in self.linears() {
            all.insert(format!("{}.weight", linear.name()), linear.weight().clone());
        }
        all
    }

    /// Cuts every weight from the gradient graph: variables become constants of the same storage.
    pub fn freeze(&mut self) {
        let freeze = |weight: &mut Tensor| *weight = weight.detach();
        freeze(&mut self.token_embedding);
        self.position_embedding.as_mut().map(freeze);
        for layer in &mut self.layers {
            for norm in [&mut layer.norm1, &mut layer.norm2] {
                freeze(&mut norm.weight);
                norm.bias.as_mut().map(freeze);
            }
        }
        freeze(&mut self.norm.weight);
        self.norm.bias.as_mut().map(freeze);
        self.lm_head.set_weight(self.lm_head.weight().detach());
        for linear in self.linears_mut() {
            linear.set_weight(linear.weight().detach());
        }
    }

    fn check_length(&self, seq: usize) -> Result<()> {
        let limit = self.config.max_seq_length;
        if seq > limit {
            let what = format!("a sequence of {seq} tokens exceeds the context of {limit}");
            return Err(Error::invalid(what, "shorten the sample or use a model with a longer context"));
        }
        Ok(())
    }
}
