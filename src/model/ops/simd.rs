//! Element-wise functions that the compiler turns into vector code.
//!
//! The standard library's `exp` is a scalar call; these are short polynomials without branches. [`vectorised`] compiles
//! a loop for the widest registers that the running machine has.

use std::sync::OnceLock;

/// Runs `body` compiled for the machine's widest vectors. Everything inside must be inlined to profit: loops are written as
/// `for`, since the closures of `for_each` on zipped iterators stay functions of their own, compiled for any machine.
#[inline(always)]
pub(in crate::model) fn vectorised<R>(body: impl FnOnce() -> R) -> R {
    arch().dispatch(body)
}

/// The widest vectors of the running machine.
#[inline(always)]
pub(super) fn arch() -> pulp::Arch {
    static ARCH: OnceLock<pulp::Arch> = OnceLock::new();
    *ARCH.get_or_init(pulp::Arch::new)
}

/// eˣ to about 1e-7 relative, for x in [−87, 88]; clamped outside (Moshier's Cephes, `expf`).
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Adding 1.5 · 2²³ rounds to the nearest integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4; // x − n · ln 2, in two parts
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127).wrapping_shl(23));
    (p * r * r + r + 1.0) * power
}

/// Φ(x) and φ(x) of the standard normal distribution; Φ to 1e-7 absolute (Abramowitz & Stegun 1964, 7.1.26).
#[inline(always)]
pub(super) fn normal(x: f32) -> (f32, f32) {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let e = exp(-z * z);
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let p = ((((1.061_405_4 * t - 1.453_152) * t + 1.421_413_7) * t - 0.284_496_74) * t + 0.254_829_6) * t;
    let tail = 0.5 * p * e;
    (if x < 0.0 { tail } else { 1.0 - tail }, 0.398_942_3 * e)
}

/// 1 / (1 + e⁻ˣ).
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Σ aᵢ · bᵢ, in sixteen running sums so that it vectorises.
#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; 16];
    let (a16, a_rest) = a.as_chunks::<16>();
    let (b16, b_rest) = b.as_chunks::<16>();
    for (a, b) in a16.iter().zip(b16) {
        for lane in 0..16 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    across(sums) + rest
}

/// Σ aᵢ, in sixteen running sums.
#[inline(always)]
pub(super) fn sum(a: &[f32]) -> f32 {
    let mut sums = [0f32; 16];
    let (a16, rest) = a.as_chunks::<16>();
    for a in a16 {
        for lane in 0..16 {
            sums[lane] += a[lane];
        }
    }
    across(sums) + rest.iter().sum::<f32>()
}

/// The sum over lanes, half on half: four vector additions, where one after the other would be sixteen that wait for each other.
#[inline(always)]
pub(super) fn across(mut sums: [f32; 16]) -> f32 {
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
    }
    sums[0]
}

/// max aᵢ, in sixteen lanes; −∞ when empty.
#[inline(always)]
pub(super) fn max(a: &[f32]) -> f32 {
    let greater = |a: f32, b: f32| if a > b { a } else { b };
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (a16, rest) = a.as_chunks::<16>();
    for a in a16 {
        for lane in 0..16 {
            lanes[lane] = greater(a[lane], lanes[lane]);
        }
    }
    let rest = rest.iter().copied().fold(f32::NEG_INFINITY, greater);
    lanes.iter().copied().fold(rest, greater)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_and_normal_agree_with_double_precision() {
        for i in -8600..8700 {
            let x = i as f32 / 100.0;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) / exact - 1.0).abs() < 3e-7, "exp({x})");
        }
        // Φ by Simpson's rule from 0, 2000 intervals.
        for i in -60..=60 {
            let x = f64::from(i) / 10.0;
            let density = |t: f64| (-t * t / 2.0).exp() / std::f64::consts::TAU.sqrt();
            let h = x / 2000.0;
            let weight = |k: i32| {
                if k == 0 || k == 2000 {
                    1.0
                } else if k % 2 == 1 {
                    4.0
                } else {
                    2.0
                }
            };
            let integral: f64 = (0..=2000).map(|k| weight(k) * density(f64::from(k) * h)).sum::<f64>() * h / 3.0;
            let (cdf, pdf) = normal(x as f32);
            assert!((f64::from(cdf) - 0.5 - integral).abs() < 3e-7, "Φ({x})");
            assert!((f64::from(pdf) - density(x)).abs() < 3e-7, "φ({x})");
        }
    }
}
