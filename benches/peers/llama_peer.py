"""The workloads `decode` and `sampling` of `codelora bench-speed` in llama.cpp, on the inputs that it exported.

    python llama_peer.py decode --inputs DIR --base DIR [--repeat 3] [--threads 2] [--ids]

Prints one JSON object: the rate of each repeat in tokens per second, and the most memory the process held in MiB; with `--ids` the
greedy ids of every prompt instead. The base is written as a GGUF in f32 for the length of the run: the names are the `gguf`
package's own, and biases that our architecture lacks and llama.cpp insists on are zeros. Only ids go in and out, so the GGUF has no
vocabulary. The calls are those of llama.cpp's C interface, and its own sampler chooses the tokens. Its settings are its defaults,
a key-value cache in f16 among them, but all sequences share one cache.
"""

import argparse
import ctypes
import json
import multiprocessing
import resource
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import llama_cpp

LIMIT, SAMPLES = 100, 20
# Prompts sampled side by side, the quickest number of those tried: all samples attend over one cache, which grows with them.
PROMPTS = 4


def convert(base, path):
    """Writes a folder of `codelora export --hf` as a GGUF in f32."""
    import gguf
    import numpy as np

    config = json.loads((base / "config.json").read_text())
    hidden, layers, inner = config["hidden_size"], config["num_hidden_layers"], config["intermediate_size"]
    writer = gguf.GGUFWriter(path, "starcoder2")
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(hidden)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_eps(config["norm_epsilon"])
    writer.add_tokenizer_model("no_vocab")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.STARCODER2, layers)
    raw = (base / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    header.pop("__metadata__", None)
    for name, entry in header.items():
        if name == "lm_head.weight" and config["tie_word_embeddings"]:
            continue
        begin, end = entry["data_offsets"]
        values = np.frombuffer(raw[start + begin:start + end], np.float32).reshape(entry["shape"])
        writer.add_tensor(names.get_name(name, (".weight", ".bias")), values)
    for layer in range(layers):
        for part, width in [("attn_output", hidden), ("ffn_up", inner), ("ffn_down", hidden)]:
            writer.add_tensor(f"blk.{layer}.{part}.bias", np.zeros(width, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Peer:
    """A model with one context; positions and sequences are the caller's."""

    def __init__(self, path, threads, sequences, window, temperature):
        settings = llama_cpp.llama_model_default_params()
        settings.use_mmap = False  # the file does not outlive the loading
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), settings)
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx, settings.n_seq_max, settings.kv_unified = sequences * window, sequences, True
        settings.n_threads = settings.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, settings)
        if not self.context:
            raise SystemExit("llama.cpp does not take the model")
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.batch = llama_cpp.llama_batch_init(settings.n_batch, 0, 1)
        self.chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        if temperature:
            llama_cpp.llama_sampler_chain_add(self.chain, llama_cpp.llama_sampler_init_temp(temperature))
            llama_cpp.llama_sampler_chain_add(self.chain, llama_cpp.llama_sampler_init_dist(17))
        else:
            llama_cpp.llama_sampler_chain_add(self.chain, llama_cpp.llama_sampler_init_greedy())

    def forward(self, entries):
        """Computes (token, position, sequence, whether logits are wanted) of every entry."""
        batch = self.batch
        batch.n_tokens = len(entries)
        for i, (token, position, sequence, wanted) in enumerate(entries):
            batch.token[i] = token
            batch.pos[i] = position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = sequence
            batch.logits[i] = wanted
        if llama_cpp.llama_decode(self.context, batch):
            raise RuntimeError("llama_decode failed")

    def choose(self, i):
        """The token that the sampler draws from the logits of entry `i`."""
        return llama_cpp.llama_sampler_sample(self.chain, self.context, i)

    def prompt(self, ids, sequence):
        """Reads a prompt into a sequence; the logits of its last token stand at the entry returned."""
        self.forward([(token, i, sequence, i == len(ids) - 1) for i, token in enumerate(ids)])
        return len(ids) - 1

    def decode(self, ids, eos):
        """The greedy completion of a prompt, the end-of-sequence token included."""
        llama_cpp.llama_memory_clear(self.memory, False)
        written = [self.choose(self.prompt(ids, 0))]
        while written[-1] != eos and len(written) < LIMIT:
            self.forward([(written[-1], len(ids) + len(written) - 1, 0, True)])
            written.append(self.choose(0))
        return written

    def sample(self, prompts, eos):
        """Tokens in the samples of a few prompts, end-of-sequence tokens included; a finished sample leaves the batch."""
        llama_cpp.llama_memory_clear(self.memory, False)
        rows, total = [], 0
        for n, ids in enumerate(prompts):
            first = n * SAMPLES
            entry = self.prompt(ids, first)
            for sequence in range(first, first + SAMPLES):
                if sequence > first:
                    llama_cpp.llama_memory_seq_cp(self.memory, first, sequence, -1, -1)
                rows.append((self.choose(entry), len(ids), sequence, True))
        for step in range(1, LIMIT + 1):
            total += len(rows)
            for row in rows:
                if row[0] == eos:
                    llama_cpp.llama_memory_seq_rm(self.memory, row[2], -1, -1)
            rows = [row for row in rows if row[0] != eos]
            if step == LIMIT or not rows:
                return total
            self.forward(rows)
            rows = [(self.choose(i), position + 1, sequence, True) for i, (_, position, sequence, _) in enumerate(rows)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("workload", choices=["decode", "sampling"])
    parser.add_argument("--inputs", type=Path, required=True)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ids", action="store_true", help="print the greedy ids, for a comparison with transformers")
    options = parser.parse_args()
    sampled = options.workload == "sampling" and not options.ids
    inputs = json.loads((options.inputs / "prompts.json").read_text())
    prompts, eos = inputs["ids"], inputs["eos"]
    window = max(map(len, prompts)) + LIMIT
    silent = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "base.gguf"
        # In a process of its own, so that its memory is not counted.
        converting = multiprocessing.Process(target=convert, args=(options.base, path))
        converting.start()
        converting.join()
        if converting.exitcode:
            raise SystemExit("the base could not be converted")
        peer = Peer(path, options.threads, PROMPTS * SAMPLES if sampled else 1, window, 0.8 if sampled else 0.0)
    if options.ids:
        print(json.dumps([peer.decode(ids, eos) for ids in prompts]))
        return
    rates = []
    for _ in range(options.repeat):
        begun = time.perf_counter()
        if sampled:
            amount = sum(peer.sample(prompts[i:i + PROMPTS], eos) for i in range(0, len(prompts), PROMPTS))
        else:
            amount = sum(len(peer.decode(ids, eos)) for ids in prompts)
        rates.append(amount / (time.perf_counter() - begun))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"rates": rates, "peak_mib": round(peak), "llama-cpp-python": version("llama-cpp-python")}))


if __name__ == "__main__":
    main()
