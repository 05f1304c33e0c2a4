//! Matrix products on slices, with the crate that candle itself uses.

use gemm::Parallelism;

/// A matrix in a slice: element (r, c) lies at `r · rows + c · columns`.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub values: &'a [f32],
    pub row_stride: usize,
    pub column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Rows one after the other, `width` apart.
    pub fn rows(values: &'a [f32], width: usize) -> Self {
        Self { values, row_stride: width, column_stride: 1 }
    }

    /// The transpose.
    pub fn t(self) -> Self {
        Self { values: self.values, row_stride: self.column_stride, column_stride: self.row_stride }
    }

    /// Whether an `r × c` matrix lies within the slice.
    fn holds(&self, r: usize, c: usize) -> bool {
        r == 0 || c == 0 || (r - 1) * self.row_stride + (c - 1) * self.column_stride < self.values.len()
    }
}

/// `out = a · b`, or `out += a · b`: a `m × k`, b `k × n`, out `m × n` with rows `out_width` apart. `parallel` uses every
/// thread; without it the call stays on its own, for use inside a parallel loop.
#[allow(clippy::too_many_arguments)]
#[allow(unsafe_code)] // the product takes raw pointers; the bounds are checked here
pub(super) fn product(
    (m, n, k): (usize, usize, usize),
    a: Matrix,
    b: Matrix,
    out: &mut [f32],
    out_width: usize,
    accumulate: bool,
    parallel: bool,
) {
    assert!(a.holds(m, k) && b.holds(k, n) && Matrix::rows(out, out_width).holds(m, n) && n <= out_width);
    let threads = rayon::current_num_threads();
    let parallelism = if parallel && threads > 1 { Parallelism::Rayon(threads) } else { Parallelism::None };
    // SAFETY: every element that the strides can reach was asserted to lie in its slice, and `out` is borrowed mutably.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            out_width as isize,
            accumulate,
            a.values.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.values.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}
