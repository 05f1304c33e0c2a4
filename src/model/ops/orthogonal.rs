//! The nearest matrix with equal singular values, nearly: what Muon makes of a gradient.
//!
//! An odd polynomial of a matrix X = USVᵀ, a·X + b·(XXᵀ)X + c·(XXᵀ)²X, is U(a·S + b·S³ + c·S⁵)Vᵀ: products alone change singular values and
//! leave their vectors. Repeated, this one brings those between 2·10⁻³ and 1 near 1.

use super::gemm::{Matrix, product};

/// Newton–Schulz steps: five bring singular values of 2·10⁻³ and more into [0.68, 1.21].
const ITERATIONS: usize = 5;

/// a, b and c, steepest at zero of those that stay near 1 when repeated (Jordan et al. 2024).
const QUINTIC: (f32, f32, f32) = (3.4445, -4.7750, 2.0315);

/// A matrix of `(rows, columns)` with the singular vectors of `matrix` and singular values near 1. On one thread: many matrices
/// are there to be shared among threads, and none of them is large.
pub fn orthogonal(matrix: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    assert_eq!(matrix.len(), rows * columns);
    if rows > columns {
        return transposed(&orthogonal(&transposed(matrix, rows, columns), columns, rows), columns, rows);
    }
    // The Frobenius norm bounds the largest singular value.
    let norm = matrix.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt().max(1e-7);
    let mut x: Vec<f32> = matrix.iter().map(|&x| (f64::from(x) / norm) as f32).collect();
    let (mut gram, mut factor) = (vec![0f32; rows * rows], vec![0f32; rows * rows]);
    let mut next = vec![0f32; x.len()];
    let (a, b, c) = QUINTIC;
    for _ in 0..ITERATIONS {
        let wide = Matrix::rows(&x, columns);
        product((rows, rows, columns), wide, wide.t(), &mut gram, rows, false, false);
        let square = Matrix::rows(&gram, rows);
        product((rows, rows, rows), square, square, &mut factor, rows, false, false);
        factor.iter_mut().zip(&gram).for_each(|(f, g)| *f = c * *f + b * g);
        next.iter_mut().zip(&x).for_each(|(n, x)| *n = a * x);
        product((rows, columns, rows), Matrix::rows(&factor, rows), wide, &mut next, columns, true, false);
        std::mem::swap(&mut x, &mut next);
    }
    x
}

fn transposed(matrix: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..rows * columns).map(|at| matrix[at % rows * columns + at / rows]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(rows: usize, columns: usize) -> Vec<f32> {
        crate::model::init::normal(&mut crate::seed::rng(3, "orthogonal"), rows * columns, 0.01)
    }

    #[test]
    fn singular_values_become_near_one() {
        for (rows, columns) in [(12, 30), (30, 12)] {
            let x = orthogonal(&random(rows, columns), rows, columns);
            // The squares of the twelve singular values sum up to the squares of the elements.
            let mean = x.iter().map(|x| x * x).sum::<f32>() / 12.0;
            assert!((0.6..1.3).contains(&mean), "{mean}");
        }
        // A rotation stretched by 3 and by 0.1: the rotation is what is left.
        let (sin, cos) = 0.4f32.sin_cos();
        let x = orthogonal(&[3.0 * cos, -0.1 * sin, 3.0 * sin, 0.1 * cos], 2, 2);
        let apart = [cos, -sin, sin, cos].iter().zip(&x).map(|(r, x)| (r - x).abs()).fold(0.0, f32::max);
        assert!(apart < 0.35, "{x:?}");
        let across = x[0] * x[1] + x[2] * x[3];
        assert!(across.abs() < 1e-5, "columns stay at right angles: {across}");
    }

    #[test]
    fn a_matrix_lain_on_its_side_gives_the_same_on_its_side() {
        let matrix = random(7, 5);
        let upright = orthogonal(&matrix, 7, 5);
        assert_eq!(transposed(&upright, 7, 5), orthogonal(&transposed(&matrix, 7, 5), 5, 7));
    }
}
