"""Where a workload's processor time goes, operation by operation: reads what `perf` recorded and prints a table.

    RUSTFLAGS="-C force-frame-pointers=yes" CARGO_PROFILE_RELEASE_DEBUG=line-tables-only cargo build --release --target-dir DIR
    perf record -F 499 --call-graph fp -o DATA DIR/release/codelora bench-speed --only lora-step --repeat 8 --records FOLDER
    python benches/profile.py DIR/release/codelora DATA

A sample belongs to the operation that is nearest to it on the stack; what is inlined counts by the file it was written in. Of each
operation: the inner loop of a matrix product, laying out its operands, and the rest. Setting up the workload is left out.
"""

import re
import subprocess
import sys
from collections import Counter

SHARED = "threads: waiting and sharing out"
# (what a function's name or file contains, the operation), the first that fits.
OPERATIONS = [
    ("attention", "attention"),
    ("own_gradients", "linear layers, gradients of weights and updates"),
    ("weight_gradient", "linear layers, gradients of weights and updates"),
    ("input_gradient", "linear layers, input gradient"),
    ("projection::Linear", "linear layers, forward"),
    ("ops/packed.rs", "linear layers, laying weights out"),
    ("ops/norm.rs", "norms"),
    ("ops/activation.rs", "GELU"),
    ("dropout", "dropout masks"),
    ("ops/head.rs", "head and loss"),
    ("ops::head", "head and loss"),
    ("cross_entropy", "head and loss"),
    ("ops::linear", "head and loss"),
    ("optimizer", "AdamW and clipping"),
    ("ops::embedding", "embedding"),
    ("ops::block", "block: sums over sequences, copies, memory"),
    ("candle_core", "candle: gradients' sums, zeros, waiting"),
    ("rayon", SHARED),
]
SETTING_UP = ["model::init", "tokenizer", "Tokenizer", "speed::inputs", "phases::data", "data::"]


def inlined(binary, addresses):
    """Function and file of every call inlined at each address, innermost first."""
    asked = "\n".join(f"{address:#x}" for address in addresses)
    done = subprocess.run(["addr2line", "-afiCe", binary], input=asked, capture_output=True, text=True, check=True)
    found, own = {}, None
    for line in done.stdout.splitlines():
        if line.startswith("0x"):
            own = found.setdefault(int(line, 16), [])
        else:
            own.append(line)
    return {address: " ".join(lines) for address, lines in found.items()}


def stacks(data):
    """Every sample's frames as (address in its file, name, file), innermost first."""
    command = ["perf", "script", "--no-inline", "-i", data, "-F", "event,ip,sym,dso"]
    samples, frames = [], []
    for line in subprocess.run(command, capture_output=True, text=True).stdout.splitlines():
        frame = re.match(r"\s+([0-9a-f]+) (.*) \((.*)\)$", line)
        if frame:
            frames.append((int(frame[1], 16), frame[2], frame[3]))
        elif frames:
            samples.append(frames)
            frames = []
    return samples + [frames] if frames else samples


def shift(binary):
    """How much further on the program's code lies in memory than in its file, where `perf` counts."""
    headers = subprocess.run(["readelf", "-lW", binary], capture_output=True, text=True, check=True).stdout
    for line in headers.splitlines():
        part = line.split()
        if part[:1] == ["LOAD"] and "E" in "".join(part[6:-1]):
            return int(part[2], 16) - int(part[1], 16)
    raise SystemExit("no code in the program")


def main():
    binary, data = sys.argv[1:]
    samples = stacks(data)
    offset = shift(binary)
    places = {frames[0][0] + offset for frames in samples if frames[0][2].endswith("codelora")}
    inline = inlined(binary, sorted(places))
    times, loops, layouts = Counter(), Counter(), Counter()
    for frames in samples:
        leaf = inline.get(frames[0][0] + offset, "")
        names = [frames[0][1] + " " + leaf] + [name for _, name, _ in frames[1:]]
        if any(word in name for name in names for word in SETTING_UP) and not any("ops::" in name for name in names):
            continue
        loop = "microkernel" in names[0] or "ops/packed.rs" in names[0] and "of_width" not in names[0]
        layout = not loop and ("gemm_common" in names[0] or "of_width" in names[0])
        callers = names[1:] if loop else names
        operation = next((operation for name in callers for word, operation in OPERATIONS if word in name), "the rest")
        if operation == SHARED and (loop or layout):
            operation = "head and loss"  # the only products that all threads share: their tasks have lost their caller
        loops[operation] += loop
        layouts[operation] += layout
        times[operation] += 1
    total = sum(times.values())
    print("| | all | inner loop | layout |\n|---|--:|--:|--:|")
    share = lambda count: f"{100 * count / total:.1f} %" if count else ""
    for operation, count in times.most_common():
        print(f"| {operation} | {share(count)} | {share(loops[operation])} | {share(layouts[operation])} |")
    print(f"| all, {total} samples | 100 % | {share(sum(loops.values()))} | {share(sum(layouts.values()))} |")


if __name__ == "__main__":
    main()
