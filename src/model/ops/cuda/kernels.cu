// The kernels of `ops::cuda`, compiled at run time by NVRTC: plain CUDA C++ without headers.
//
// Rows are contiguous. `float` is computed in throughout; `bf16` is only how activations lie in memory. Every sum has a fixed
// order, so that a run repeats to the bit, with one exception: rows of the embedding's gradient are added atomically.

typedef unsigned short bf16_bits;
struct bf16 { bf16_bits bits; };

__device__ __forceinline__ float load(const float *x, long long i) { return x[i]; }
__device__ __forceinline__ float load(const bf16 *x, long long i) { return __uint_as_float((unsigned)x[i].bits << 16); }
__device__ __forceinline__ void store(float *x, long long i, float v) { x[i] = v; }
// To the nearest, ties to even; a NaN stays one.
__device__ __forceinline__ void store(bf16 *x, long long i, float v) {
    unsigned bits = __float_as_uint(v);
    if ((bits & 0x7fffffffu) > 0x7f800000u) { x[i].bits = 0x7fffu; return; }
    x[i].bits = (bf16_bits)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

__device__ __forceinline__ float warp_sum(float v) {
    for (int step = 16; step > 0; step >>= 1) v += __shfl_xor_sync(0xffffffffu, v, step);
    return v;
}
__device__ __forceinline__ float warp_max(float v) {
    for (int step = 16; step > 0; step >>= 1) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, step));
    return v;
}

// Sum over a block of at most 1,024 threads; every thread gets it. `scratch` holds 32 floats.
__device__ float block_sum(float v, float *scratch) {
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = (blockDim.x + 31) >> 5;
    v = warp_sum(v);
    __syncthreads();
    if (lane == 0) scratch[warp] = v;
    __syncthreads();
    v = lane < warps ? scratch[lane] : 0.f;
    return warp_sum(v);
}
__device__ float block_max(float v, float *scratch) {
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = (blockDim.x + 31) >> 5;
    v = warp_max(v);
    __syncthreads();
    if (lane == 0) scratch[warp] = v;
    __syncthreads();
    v = lane < warps ? scratch[lane] : -__int_as_float(0x7f800000);
    return warp_max(v);
}

// Mean and 1/sqrt(variance + eps) of a row, for a warp; the mean of an RMSNorm is 0.
__device__ float2 moments(const float *x, int width, int centred, float eps) {
    int lane = threadIdx.x & 31;
    float mean = 0.f, square = 0.f;
    if (centred) {
        for (int i = lane; i < width; i += 32) mean += x[i];
        mean = warp_sum(mean) / width;
    }
    for (int i = lane; i < width; i += 32) square += (x[i] - mean) * (x[i] - mean);
    return make_float2(mean, rsqrtf(warp_sum(square) / width + eps));
}

// A warp a row.
template <typename T>
__device__ void norm(const float *x, const float *weight, const float *bias, T *y, int rows, int width, int centred, float eps) {
    long long row = (long long)blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5);
    if (row >= rows) return;
    x += row * width;
    y += row * width;
    float2 m = moments(x, width, centred, eps);
    for (int i = threadIdx.x & 31; i < width; i += 32) store(y, i, (x[i] - m.x) * m.y * weight[i] + (centred ? bias[i] : 0.f));
}

// Warps take rows in turn; each sums its rows' gradients of weight and bias in shared memory, where a column belongs to one
// lane. `parts` is (blocks, 2, width): the sums of a block's warps.
template <typename T>
__device__ void norm_gradient(const float *x, const float *weight, const T *dy, float *dx, float *parts, int rows, int width,
                              int centred, float eps) {
    extern __shared__ float shared[]; // (warps, 2, width)
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
    float *sums = shared + warp * 2 * width;
    for (int i = lane; i < 2 * width; i += 32) sums[i] = 0.f;
    __syncwarp();
    for (int row = blockIdx.x * warps + warp; row < rows; row += gridDim.x * warps) {
        const float *xs = x + (long long)row * width;
        const T *dys = dy + (long long)row * width;
        float *dxs = dx + (long long)row * width;
        float2 m = moments(xs, width, centred, eps);
        float mean_g = 0.f, mean_gn = 0.f;
        for (int i = lane; i < width; i += 32) {
            float normal = (xs[i] - m.x) * m.y, d = load(dys, i), g = d * weight[i];
            sums[i] += d * normal;
            sums[width + i] += d;
            mean_g += g;
            mean_gn += g * normal;
        }
        mean_g = centred ? warp_sum(mean_g) / width : 0.f;
        mean_gn = warp_sum(mean_gn) / width;
        for (int i = lane; i < width; i += 32) {
            float normal = (xs[i] - m.x) * m.y, g = load(dys, i) * weight[i];
            dxs[i] = m.y * (g - mean_g - normal * mean_gn);
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < 2 * width; i += blockDim.x) {
        float sum = 0.f;
        for (int part = 0; part < warps; part++) sum += shared[part * 2 * width + i];
        parts[(long long)blockIdx.x * 2 * width + i] = sum;
    }
}

// x + y, where the stream x is f32.
template <typename T> __device__ void residual(const float *x, const T *y, float *out, unsigned n) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = x[i] + load(y, i);
}

// out[column] = sum over rows of x (rows, width); a block of 32 × 8 threads for 32 columns.
extern "C" __global__ void column_sums(const float *x, float *out, int rows, int width) {
    __shared__ float parts[8][33];
    int column = blockIdx.x * 32 + threadIdx.x;
    float sum = 0.f;
    if (column < width)
        for (int row = threadIdx.y; row < rows; row += 8) sum += x[(long long)row * width + column];
    parts[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && column < width) {
        for (int part = 1; part < 8; part++) sum += parts[part][threadIdx.x];
        out[column] = sum;
    }
}

template <typename T> __device__ void gelu(const T *x, T *y, unsigned n) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float v = load(x, i);
    store(y, i, 0.5f * v * (1.f + erff(v * 0.70710678118654752f)));
}
// d/dx x·Φ(x) = Φ(x) + x·φ(x)
template <typename T> __device__ void gelu_gradient(const T *x, const T *dy, T *dx, unsigned n) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float v = load(x, i);
    float cdf = 0.5f * (1.f + erff(v * 0.70710678118654752f)), density = 0.39894228040143268f * expf(-0.5f * v * v);
    store(dx, i, load(dy, i) * (cdf + v * density));
}

// qkv (batch, seq, 3, heads, 2·half) to q, k, v (batch, heads, seq, 2·half) behind one another in `parts`; q and k are turned
// by the tables (seq, half) when there are any. A thread a pair.
template <typename T>
__device__ void split(const T *qkv, const float *cosines, const float *sines, T *parts, int batch, int seq, int heads,
                      int half, int turned) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x, pairs = (unsigned)batch * seq * heads * half;
    if (i >= pairs) return;
    // Heads, halves and positions by one division each: division is what this kernel would spend its time on.
    unsigned rest = i / half, pair = i - rest * half, next = rest / heads, head = rest - next * heads;
    unsigned sequence = next / seq, position = next - sequence * seq, width = heads * 2 * half;
    float c = turned ? cosines[position * half + pair] : 1.f, s = turned ? sines[position * half + pair] : 0.f;
    unsigned from = (sequence * seq + position) * 3 * width + head * 2 * half + pair;
    unsigned to = ((sequence * heads + head) * seq + position) * 2 * half + pair, part = 2 * pairs;
    for (int which = 0; which < 3; which++) {
        float a = load(qkv, from + which * width), b = load(qkv, from + which * width + half);
        bool turn = which < 2;
        store(parts, to + which * part, turn ? a * c - b * s : a);
        store(parts, to + which * part + half, turn ? b * c + a * s : b);
    }
}
// The gradient of `split`: each rotation turned back.
template <typename T>
__device__ void split_gradient(const T *dq, const T *dk, const T *dv, const float *cosines, const float *sines, T *dqkv,
                               int batch, int seq, int heads, int half, int turned) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x, pairs = (unsigned)batch * seq * heads * half;
    if (i >= pairs) return;
    // Heads, halves and positions by one division each: division is what this kernel would spend its time on.
    unsigned rest = i / half, pair = i - rest * half, next = rest / heads, head = rest - next * heads;
    unsigned sequence = next / seq, position = next - sequence * seq, width = heads * 2 * half;
    float c = turned ? cosines[position * half + pair] : 1.f, s = turned ? sines[position * half + pair] : 0.f;
    unsigned to = (sequence * seq + position) * 3 * width + head * 2 * half + pair;
    unsigned from = ((sequence * heads + head) * seq + position) * 2 * half + pair;
    for (int which = 0; which < 3; which++) {
        const T *d = which == 0 ? dq : which == 1 ? dk : dv;
        float a = load(d, from), b = load(d, from + half);
        bool turn = which < 2;
        store(dqkv, to + which * width, turn ? a * c + b * s : a);
        store(dqkv, to + which * width + half, turn ? b * c - a * s : b);
    }
}

// (batch, heads, seq, dim) to (batch, seq, heads, dim): with `heads` and `seq` exchanged, its own inverse. A warp a vector.
template <typename T> __device__ void exchange(const T *x, T *y, int batch, int heads, int seq, int dim) {
    unsigned vector = blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5);
    if (vector >= (unsigned)batch * heads * seq) return;
    unsigned rest = vector / seq, position = vector - rest * seq, sequence = rest / heads, head = rest - sequence * heads;
    unsigned to = (sequence * seq + position) * heads + head;
    for (int d = threadIdx.x & 31; d < dim; d += 32) y[(long long)to * dim + d] = x[(long long)vector * dim + d];
}

// Softmax of scale · scores (rows, columns), in place; row r of each (seq, seq) matrix sees columns 0 to r when `causal`.
// A warp a row.
template <typename T> __device__ void softmax(T *scores, long long rows, int seq, int columns, int causal, float scale) {
    long long row = (long long)blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5);
    if (row >= rows) return;
    int lane = threadIdx.x & 31, seen = causal ? (int)(row % seq) + 1 : columns;
    scores += row * columns;
    float top = -__int_as_float(0x7f800000), sum = 0.f;
    for (int i = lane; i < seen; i += 32) top = fmaxf(top, load(scores, i) * scale);
    top = warp_max(top);
    for (int i = lane; i < seen; i += 32) sum += __expf(load(scores, i) * scale - top);
    sum = 1.f / warp_sum(sum);
    for (int i = lane; i < columns; i += 32)
        store(scores, i, i < seen ? __expf(load(scores, i) * scale - top) * sum : 0.f);
}
// dS = scale · P ⊙ (dP − Σ P ⊙ dP), in place of dP. A warp a row.
template <typename T> __device__ void softmax_gradient(const T *p, T *dp, long long rows, int columns, float scale) {
    long long row = (long long)blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5);
    if (row >= rows) return;
    int lane = threadIdx.x & 31;
    p += row * columns;
    dp += row * columns;
    float sum = 0.f;
    for (int i = lane; i < columns; i += 32) sum += load(p, i) * load(dp, i);
    sum = warp_sum(sum);
    for (int i = lane; i < columns; i += 32) store(dp, i, scale * load(p, i) * (load(dp, i) - sum));
}

// Loss and log-sum-exp of each row of logits (rows, vocab); a target outside the vocabulary gives NaN. A block a row.
template <typename T>
__device__ void cross_entropy(const T *logits, const unsigned *targets, float *losses, float *lse, int vocab, float smoothing) {
    __shared__ float scratch[32];
    logits += (long long)blockIdx.x * vocab;
    float top = -__int_as_float(0x7f800000), sum = 0.f, all = 0.f;
    for (int i = threadIdx.x; i < vocab; i += blockDim.x) top = fmaxf(top, load(logits, i));
    top = block_max(top, scratch);
    for (int i = threadIdx.x; i < vocab; i += blockDim.x) {
        float z = load(logits, i);
        sum += __expf(z - top);
        all += z;
    }
    sum = block_sum(sum, scratch);
    all = block_sum(all, scratch);
    if (threadIdx.x == 0) {
        unsigned target = targets[blockIdx.x];
        float log_sum = top + logf(sum);
        float z = target < (unsigned)vocab ? load(logits, target) : __int_as_float(0x7fffffff);
        lse[blockIdx.x] = log_sum;
        losses[blockIdx.x] = log_sum - (1.f - smoothing) * z - smoothing * all / vocab;
    }
}
// (softmax(z) − (1 − ε) · onehot(y) − ε / V) · upstream / rows. A block a row.
template <typename T>
__device__ void cross_entropy_gradient(const T *logits, const unsigned *targets, const float *lse, const float *upstream,
                                       T *dz, int vocab, float smoothing) {
    long long from = (long long)blockIdx.x * vocab;
    float log_sum = lse[blockIdx.x], scale = upstream[0] / gridDim.x, even = smoothing / vocab;
    int target = targets[blockIdx.x];
    for (int i = threadIdx.x; i < vocab; i += blockDim.x) {
        float d = __expf(load(logits, from + i) - log_sum) - even - (i == target ? 1.f - smoothing : 0.f);
        store(dz, from + i, d * scale);
    }
}

// Adds row r of `dy` (rows, width) to row ids[r] of `dw`. A thread an element.
extern "C" __global__ void embedding_gradient(const unsigned *ids, const float *dy, float *dw, unsigned n, int width) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) atomicAdd(dw + (long long)ids[i / width] * width + i % width, dy[i]);
}

// The sum over a block of 256 threads, in its first thread.
__device__ double block_sum(double sum) {
    __shared__ double sums[256];
    sums[threadIdx.x] = sum;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    return sums[0];
}

// parts[slot · gridDim + block] = a block's part of the sum of squares of g.
extern "C" __global__ void squares(const float *g, double *parts, long long n, int slot) {
    double sum = 0.;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (long long)gridDim.x * blockDim.x)
        sum += (double)g[i] * g[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) parts[(long long)slot * gridDim.x + blockIdx.x] = sum;
}

// norm = √Σ parts, scale = min(1, limit / norm); one block. A norm that is no number leaves the gradients as they are.
extern "C" __global__ void clip(const double *parts, int n, double limit, double *norm, float *scale) {
    double sum = 0.;
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum += parts[i];
    sum = sqrt(block_sum(sum));
    if (threadIdx.x > 0) return;
    *norm = sum;
    *scale = sum > limit ? (float)(limit / sum) : 1.f;
}

// One AdamW step of a parameter, in place of its value and its moments.
extern "C" __global__ void adamw(float *w, const float *g, float *m, float *v, const float *scale, unsigned n, float b1,
                                 float b2, float keep, float rate, float root, float epsilon) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float gradient = g[i] * *scale, mean = b1 * m[i] + (1.f - b1) * gradient;
    float square = b2 * v[i] + (1.f - b2) * gradient * gradient;
    m[i] = mean;
    v[i] = square;
    w[i] = w[i] * keep - rate * mean / (sqrtf(square * root) + epsilon);
}

#define FOR_EACH_FLOAT(T, NAME)                                                                                               \
    extern "C" __global__ void norm_##NAME(const float *x, const float *weight, const float *bias, T *y, int rows, int width, \
                                           int centred, float eps) {                                                          \
        norm(x, weight, bias, y, rows, width, centred, eps);                                                                  \
    }                                                                                                                         \
    extern "C" __global__ void norm_gradient_##NAME(const float *x, const float *weight, const T *dy, float *dx, float *parts, \
                                                    int rows, int width, int centred, float eps) {                            \
        norm_gradient(x, weight, dy, dx, parts, rows, width, centred, eps);                                                   \
    }                                                                                                                         \
    extern "C" __global__ void residual_##NAME(const float *x, const T *y, float *out, unsigned n) { residual(x, y, out, n); } \
    extern "C" __global__ void gelu_##NAME(const T *x, T *y, unsigned n) { gelu(x, y, n); }                                  \
    extern "C" __global__ void gelu_gradient_##NAME(const T *x, const T *dy, T *dx, unsigned n) {                            \
        gelu_gradient(x, dy, dx, n);                                                                                          \
    }                                                                                                                         \
    extern "C" __global__ void split_##NAME(const T *qkv, const float *c, const float *s, T *parts, int batch, int seq,       \
                                            int heads, int half, int turned) {                                                \
        split(qkv, c, s, parts, batch, seq, heads, half, turned);                                                             \
    }                                                                                                                         \
    extern "C" __global__ void split_gradient_##NAME(const T *dq, const T *dk, const T *dv, const float *c, const float *s,   \
                                                     T *dqkv, int batch, int seq, int heads, int half, int turned) {          \
        split_gradient(dq, dk, dv, c, s, dqkv, batch, seq, heads, half, turned);                                              \
    }                                                                                                                         \
    extern "C" __global__ void exchange_##NAME(const T *x, T *y, int batch, int heads, int seq, int dim) {                    \
        exchange(x, y, batch, heads, seq, dim);                                                                               \
    }                                                                                                                         \
    extern "C" __global__ void softmax_##NAME(T *scores, long long rows, int seq, int columns, int causal, float scale) {     \
        softmax(scores, rows, seq, columns, causal, scale);                                                                   \
    }                                                                                                                         \
    extern "C" __global__ void softmax_gradient_##NAME(const T *p, T *dp, long long rows, int columns, float scale) {         \
        softmax_gradient(p, dp, rows, columns, scale);                                                                        \
    }                                                                                                                         \
    extern "C" __global__ void cross_entropy_##NAME(const T *logits, const unsigned *targets, float *losses, float *lse,      \
                                                    int vocab, float smoothing) {                                             \
        cross_entropy(logits, targets, losses, lse, vocab, smoothing);                                                        \
    }                                                                                                                         \
    extern "C" __global__ void cross_entropy_gradient_##NAME(const T *logits, const unsigned *targets, const float *lse,      \
                                                             const float *upstream, T *dz, int vocab, float smoothing) {      \
        cross_entropy_gradient(logits, targets, lse, upstream, dz, vocab, smoothing);                                         \
    }

FOR_EACH_FLOAT(float, f32)
FOR_EACH_FLOAT(bf16, bf16)
