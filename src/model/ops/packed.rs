//! A matrix laid out once for many products.
//!
//! A product copies its operands into the order in which its inner loop reads them. Where many sequences meet the same weight,
//! that copy is made once here instead of once for each; a weight that has to be turned on the way costs most.
//!
//! Each value is summed along k in order, in even blocks of at most [`DEPTH`] that are added up: the same to the bit whatever
//! rows stand beside it.

use std::fmt;
use std::sync::OnceLock;

use pulp::{Simd, WithSimd};

use super::gemm::Matrix;
use super::simd::arch;

/// Vectors side by side in a panel: with twelve rows they fill the 32 registers of AVX-512, with six the 16 of AVX2.
const VECTORS: usize = 2;

/// Most rows of a panel that are read in one go.
const DEPTH: usize = 512;

/// Rows of the left operand that meet all panels before the next do.
const ROWS: usize = 96;

/// Which product with a weight `(out, in)` is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// y = x · Wᵀ.
    Forward,
    /// dX = dY · W.
    Backward,
}

/// The layouts of a weight that does not change, each made at the first product that wants it. They take the weight's memory once
/// more for each direction.
#[derive(Default)]
pub struct Layouts([OnceLock<Packed>; 2]);

impl Layouts {
    /// The layout of `weight` `(out, in)` for a direction, made on the calling thread: one that waited for others here could take up
    /// work that waits for this very layout.
    pub(super) fn of(&self, direction: Direction, weight: &[f32], size: (usize, usize)) -> &Packed {
        self.0[direction as usize].get_or_init(|| Packed::of_weight(direction, weight, size))
    }
}

impl fmt::Debug for Layouts {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Layouts")
    }
}

/// The right operand of products: `(k, n)`, as panels `(k, width)` one after another, the last filled up with zeros.
pub(super) struct Packed {
    panels: Vec<f32>,
    k: usize,
    n: usize,
    width: usize,
}

impl Packed {
    /// Lays out `b` of `k × n`, one of whose strides is 1, on the calling thread.
    pub fn new(b: Matrix, size: (usize, usize)) -> Self {
        Self::of_width(b, size, VECTORS * arch().dispatch(Lanes))
    }

    /// The weight `(out, in)` for one direction.
    pub fn of_weight(direction: Direction, weight: &[f32], (out, input): (usize, usize)) -> Self {
        let weight = Matrix::rows(weight, input);
        match direction {
            Direction::Forward => Self::new(weight.t(), (input, out)),
            Direction::Backward => Self::new(weight, (out, input)),
        }
    }

    fn of_width(b: Matrix, (k, n): (usize, usize), width: usize) -> Self {
        /// Values of a row that are turned together: two cache lines of each.
        const TURNED: usize = 32;
        let mut panels = vec![0f32; n.div_ceil(width) * width * k];
        for (panel, first) in panels.chunks_exact_mut(width * k).zip((0..n).step_by(width)) {
            let columns = width.min(n - first);
            if b.column_stride == 1 {
                for (row, to) in panel.chunks_exact_mut(width).enumerate() {
                    to[..columns].copy_from_slice(&b.values[row * b.row_stride + first..][..columns]);
                }
                continue;
            }
            assert_eq!(b.row_stride, 1, "rows or columns without gaps");
            for (block, to) in panel.chunks_mut(TURNED * width).enumerate() {
                let rows = to.len() / width;
                for column in 0..columns {
                    let from = &b.values[(first + column) * b.column_stride + block * TURNED..][..rows];
                    from.iter().zip(to.chunks_exact_mut(width)).for_each(|(&value, to)| to[column] = value);
                }
            }
        }
        Self { panels, k, n, width }
    }

    /// `out = a · b`: a `(rows, k)`, out `(rows, n)`, on the calling thread.
    pub fn product(&self, a: &[f32], out: &mut [f32]) {
        arch().dispatch(Product { a, b: self, out });
    }
}

/// How many f32 a vector holds.
struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F32_LANES
    }
}

struct Product<'a> {
    a: &'a [f32],
    b: &'a Packed,
    out: &'a mut [f32],
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Packed { ref panels, k, n, width } = *self.b;
        assert!(width == VECTORS * S::F32_LANES && self.a.len() * n == self.out.len() * k, "sizes of a product");
        // Twelve rows a multiple of 4 KiB apart fall on the same lines of a first-level cache, and push each other out.
        let twelve = S::F32_LANES >= 16 && !k.is_multiple_of(1024);
        let block = k.div_ceil(k.div_ceil(DEPTH).max(1)).max(1);
        for (a, out) in self.a.chunks(ROWS * k.max(1)).zip(self.out.chunks_mut(ROWS * n.max(1))) {
            for from in (0..k).step_by(block) {
                let depth = block.min(k - from);
                for (panel, first) in panels.chunks_exact(width * k).zip((0..n).step_by(width)) {
                    let tile =
                        Tile { apart: k, panel: &panel[from * width..][..depth * width], n, first, add: from > 0 };
                    let (mut row, rows) = (0, out.len() / n);
                    while row < rows {
                        let (a, out) = (&a[row * k + from..], &mut out[row * n..]);
                        row += match rows - row {
                            12.. if twelve => tile.twelve(simd, a, out),
                            6.. => tile.six(simd, a, out),
                            2.. => tile.two(simd, a, out),
                            _ => tile.one(simd, a, out),
                        };
                    }
                }
            }
        }
    }
}

/// One panel over one block of the depth, for a few rows.
struct Tile<'a> {
    panel: &'a [f32],
    /// Distance of a's rows.
    apart: usize,
    /// Width of out's rows.
    n: usize,
    /// The panel's first column.
    first: usize,
    /// Whether to add to what stands in `out`.
    add: bool,
}

/// A method for so many rows, every sum in a register of its own: `$row` is a row's number, `$left` and `$right` its two sums.
/// Returns the number of rows.
macro_rules! rows {
    ($name:ident, $count:literal: $($row:literal $left:ident $right:ident),+) => {
        #[inline(always)]
        #[allow(unsafe_code)] // a bounds check in this loop would keep the sums in memory
        fn $name<S: Simd>(&self, simd: S, a: &[f32], out: &mut [f32]) -> usize {
            let (vectors, _) = S::as_simd_f32s(self.panel);
            let (pairs, _) = vectors.as_chunks::<VECTORS>();
            assert!(a.len() >= ($count - 1) * self.apart + pairs.len());
            $(let (mut $left, mut $right) = (simd.splat_f32s(0.0), simd.splat_f32s(0.0));)+
            for (p, [left, right]) in pairs.iter().enumerate() {
                $(
                    // SAFETY: p < pairs.len(), and the last row's end was asserted to lie in a.
                    let value = simd.splat_f32s(unsafe { *a.get_unchecked($row * self.apart + p) });
                    $left = simd.mul_add_e_f32s(value, *left, $left);
                    $right = simd.mul_add_e_f32s(value, *right, $right);
                )+
            }
            $(self.store(simd, [$left, $right], &mut out[$row * self.n..]);)+
            $count
        }
    };
}

impl Tile<'_> {
    rows!(twelve, 12: 0 a0 b0, 1 a1 b1, 2 a2 b2, 3 a3 b3, 4 a4 b4, 5 a5 b5, 6 a6 b6, 7 a7 b7, 8 a8 b8, 9 a9 b9, 10 a10 b10, 11 a11 b11);
    rows!(six, 6: 0 a0 b0, 1 a1 b1, 2 a2 b2, 3 a3 b3, 4 a4 b4, 5 a5 b5);
    rows!(two, 2: 0 a0 b0, 1 a1 b1);
    rows!(one, 1: 0 a0 b0);

    #[inline(always)]
    fn store<S: Simd>(&self, simd: S, sums: [S::f32s; VECTORS], row: &mut [f32]) {
        let columns = (VECTORS * S::F32_LANES).min(self.n - self.first);
        for (to, mut sum) in row[self.first..][..columns].chunks_mut(S::F32_LANES).zip(sums) {
            if let (&mut [ref mut to], _) = S::as_mut_simd_f32s(to) {
                *to = if self.add { simd.add_f32s(*to, sum) } else { sum };
                continue;
            }
            if self.add {
                sum = simd.add_f32s(simd.partial_load_f32s(to), sum);
            }
            simd.partial_store_f32s(to, sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes that fill no panel and no tile, and a depth of several blocks.
    const SIZE: (usize, usize, usize) = (111, 1300, 45); // rows, k, n

    fn operands() -> (Vec<f32>, Vec<f32>) {
        let (rows, k, n) = SIZE;
        let value = |i: usize| ((i * 7919) % 1000) as f32 / 1000.0 - 0.5;
        ((0..rows * k).map(value).collect(), (0..k * n).map(value).collect())
    }

    #[test]
    fn a_packed_product_is_the_product_in_double_precision() {
        let ((rows, k, n), (a, b)) = (SIZE, operands());
        let mut out = vec![f32::NAN; rows * n];
        Packed::new(Matrix::rows(&b, n), (k, n)).product(&a, &mut out);
        for (index, value) in out.iter().enumerate() {
            let (row, column) = (index / n, index % n);
            let exact: f64 = (0..k).map(|i| f64::from(a[row * k + i]) * f64::from(b[i * n + column])).sum();
            assert!((f64::from(*value) - exact).abs() < 1e-4, "{index}: {value}, {exact}");
        }
    }

    #[test]
    fn neither_the_layout_nor_the_rows_beside_it_nor_the_vectors_change_a_bit() {
        let ((rows, k, n), (a, b)) = (SIZE, operands());
        let packed = Packed::new(Matrix::rows(&b, n), (k, n));
        let mut out = vec![f32::NAN; rows * n];
        packed.product(&a, &mut out);
        let turned: Vec<f32> = (0..n * k).map(|i| b[(i % k) * n + i / k]).collect();
        let mut other = vec![f32::NAN; rows * n];
        Packed::new(Matrix::rows(&turned, k).t(), (k, n)).product(&a, &mut other);
        assert_eq!(out, other, "from the transpose");
        for (a, other) in a.chunks(k).zip(other.chunks_mut(n)) {
            other.fill(f32::NAN);
            packed.product(a, other);
        }
        assert_eq!(out, other, "one row at a time");
        #[cfg(target_arch = "x86_64")]
        if let Some(avx2) = pulp::x86::V3::try_new() {
            let packed = Packed::of_width(Matrix::rows(&b, n), (k, n), VECTORS * Simd::vectorize(avx2, Lanes));
            other.fill(f32::NAN);
            Simd::vectorize(avx2, Product { a: &a, b: &packed, out: &mut other });
            assert_eq!(out, other, "with AVX2");
        }
    }
}
