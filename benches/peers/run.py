"""Runs codelora and its peers in turns on one machine, A B A B, and writes medians into benches/records.

    python run.py --codelora target/release/codelora --python venv/bin/python [--llama-python venv-llama/bin/python]
        [--only lora-step,decode] [--rounds 3]

Turns even out what else the machine does. Each turn is a process of its own; a round is one turn of each engine. Rows of codelora
that `bench-speed` wrote are replaced by those of the same sitting, so that a ratio compares like with like.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import tempfile
from pathlib import Path

FIELDS = ["workload", "engine", "figure", "unit", "peak_mib", "repeats", "threads", "machine", "commit"]
ENGINES = {
    "lora-step": ["torch+peft", "torch+peft compiled"],
    "full-step-29m": ["torch", "torch compiled"],
    "full-step-small": ["torch", "torch compiled"],
    "full-step-cuda": ["torch", "torch compiled"],
    "sampling": ["transformers", "llama.cpp"],
    "decode": ["transformers", "llama.cpp"],
}
HERE = Path(__file__).resolve().parent


def ours(options, workload, threads):
    """One turn of codelora: the median of its repeats, and its row."""
    with tempfile.TemporaryDirectory() as folder:
        command = [options.codelora, "bench-speed", "--only", workload, "--repeat", str(options.repeat), "--records", folder]
        if options.external:
            command += ["--external", options.external]
        environment = {**os.environ, "RAYON_NUM_THREADS": str(threads)}
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        with open(Path(folder) / f"{workload}.csv") as file:
            row = next(csv.DictReader(file))
    return [float(row["figure"])], float(row["peak_mib"]), row


def theirs(options, workload, engine, threads):
    """One turn of a peer: the median of its repeats."""
    python, script = options.python, "torch_peer.py"
    if engine == "llama.cpp":
        python, script = options.llama_python, "llama_peer.py"
    if not python:
        raise RuntimeError("--llama-python is not given")
    command = [python, str(HERE / script), workload, "--inputs", options.inputs, "--base", options.base,
               "--repeat", str(options.repeat), "--threads", str(threads)]
    if engine.endswith("compiled"):
        command.append("--compile")
    done = subprocess.run(command, capture_output=True, text=True, timeout=options.timeout)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no reason given")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return [statistics.median(found["rates"])], found["peak_mib"], None


def merge(folder, workload, rows):
    """Writes rows in place of earlier ones of the same engine and machine."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    path = Path(folder) / f"{workload}.csv"
    old = list(csv.DictReader(path.open())) if path.exists() else []
    new = {(row["engine"], row["machine"]) for row in rows}
    kept = [row for row in old if (row["engine"], row["machine"]) not in new]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept + rows)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--codelora", required=True)
    parser.add_argument("--python", default="python3")
    parser.add_argument("--llama-python", help="Python with llama-cpp-python and gguf")
    parser.add_argument("--inputs", required=True, help="folder of `codelora bench-speed --inputs`")
    parser.add_argument("--base", required=True, help="folder of `codelora export --hf`")
    parser.add_argument("--external")
    parser.add_argument("--records", default=str(HERE.parent / "records"))
    on_cpu = [workload for workload in ENGINES if not workload.endswith("cuda")]
    parser.add_argument("--only", default=",".join(on_cpu))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=600)
    parser.add_argument("--eager-only", action="store_true")
    options = parser.parse_args()
    threads = os.cpu_count() or 1
    for workload in options.only.split(","):
        engines = [e for e in ENGINES[workload] if not (options.eager_only and e.endswith("compiled"))]
        found = {engine: ([], []) for engine in ["codelora", *engines]}
        sample = None
        for _ in range(options.rounds):
            for engine in list(found):
                try:
                    turn = ours(options, workload, threads) if engine == "codelora" else theirs(options, workload, engine, threads)
                except (RuntimeError, subprocess.TimeoutExpired) as error:
                    print(f"{workload}: {engine} is left out: {error}")
                    del found[engine]
                    continue
                rates, peak, row = turn
                sample = row or sample
                found[engine][0].extend(rates)
                found[engine][1].append(peak)
        rows = []
        for engine, (rates, peaks) in found.items():
            figure = round(statistics.median(rates), 1)
            rows.append({**sample, "engine": engine, "figure": figure, "peak_mib": round(max(peaks)), "repeats": len(rates),
                         "threads": threads})
            ratio = rows[0]["figure"] / figure
            print(f"{workload:<16} {engine:<20} {figure:>9.1f} {sample['unit']:<9} {max(peaks):>6.0f} MiB   ours/theirs {ratio:.2f}",
                  flush=True)
        merge(options.records, workload, rows)


if __name__ == "__main__":
    main()
