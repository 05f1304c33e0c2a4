//! Matrix products in one thread: the crate that the operations call, beside what could take its place. The shapes are those of
//! the two bases; a billion elements a second are a GFLOP/s.
//!
//! OpenBLAS and BLIS are timed where the system has them (Debian: `libopenblas0-pthread`, `libblis4-pthread`).

use criterion::{Criterion, Throughput};
use gemm::Parallelism;
use libloading::Library;

use crate::sizes::{random, slow};

/// `out = a · b` of `m × k` and `k × n`, as a step needs it.
#[derive(Clone, Copy)]
enum Kind {
    /// y = x · Wᵀ: W lies as `n × k`.
    Forward,
    /// dX = dY · W.
    Input,
    /// dW = dYᵀ · X: dY lies as `k × m`.
    Weight,
}

struct Product {
    name: &'static str,
    kind: Kind,
    m: usize,
    n: usize,
    k: usize,
}

const fn product(name: &'static str, kind: Kind, m: usize, n: usize, k: usize) -> Product {
    Product { name, kind, m, n, k }
}

const PRODUCTS: [Product; 8] = [
    product("29m-qkv-64-rows", Kind::Forward, 64, 1536, 512),
    product("29m-qkv-192-rows", Kind::Forward, 192, 1536, 512),
    product("29m-fc2-192-rows", Kind::Forward, 192, 512, 2048),
    product("29m-fc1-input-gradient-192-rows", Kind::Input, 192, 512, 2048),
    product("29m-fc1-weight-gradient-2048-rows", Kind::Weight, 2048, 512, 2048),
    product("small-fc1-256-rows", Kind::Forward, 256, 768, 192),
    product("small-fc1-weight-gradient-256-rows", Kind::Weight, 768, 192, 256),
    product("small-head-64-rows", Kind::Forward, 64, 2048, 192),
];

impl Product {
    /// Distance of rows and of columns of a and of b.
    fn strides(&self) -> [[usize; 2]; 2] {
        let a = if matches!(self.kind, Kind::Weight) { [1, self.m] } else { [self.k, 1] };
        let b = if matches!(self.kind, Kind::Forward) { [1, self.k] } else { [self.n, 1] };
        [a, b]
    }
}

/// `cblas_sgemm`: order, transpositions, m, n, k, α, a, its width, b, its width, β, out, its width.
type Sgemm =
    unsafe extern "C" fn(i32, i32, i32, i32, i32, i32, f32, *const f32, i32, *const f32, i32, f32, *mut f32, i32);

/// A library of the system's, set to one thread; none where it is not installed.
fn system(file: &str, set_threads: &[u8]) -> Option<(Library, Sgemm)> {
    // SAFETY: both functions have had these signatures since the libraries exist.
    unsafe {
        let library = Library::new(file).ok()?;
        library.get::<unsafe extern "C" fn(i32)>(set_threads).ok()?(1);
        let sgemm = *library.get::<Sgemm>(b"cblas_sgemm").ok()?;
        Some((library, sgemm))
    }
}

pub fn bench(criterion: &mut Criterion) {
    let systems = [
        ("openblas", system("libopenblas.so.0", b"openblas_set_num_threads")),
        ("blis", system("libblis.so.4", b"bli_thread_set_num_threads")),
    ];
    for shape in &PRODUCTS {
        let Product { name, kind, m, n, k } = *shape;
        let values = |name: &str, count: usize| random(name, &[count], 1.0).and_then(|x| x.to_vec1::<f32>());
        let (a, b) = (values("a", m * k).expect("a"), values("b", k * n).expect("b"));
        let [[a_row, a_column], [b_row, b_column]] = shape.strides().map(|pair| pair.map(|step| step as isize));
        let mut out = vec![0f32; m * n];
        let mut group = slow(criterion, &format!("products/{name}"));
        group.throughput(Throughput::Elements((2 * m * n * k) as u64));
        let into = out.as_mut_ptr();
        group.bench_function("gemm", |bencher| {
            // SAFETY: here and below, the strides reach every element of a, b and out, and no other.
            bencher.iter(|| unsafe {
                let (dst, x, y) = (into, a.as_ptr(), b.as_ptr());
                let one = Parallelism::None;
                let width = n as isize;
                gemm::gemm(
                    m, n, k, dst, 1, width, false, x, a_column, a_row, y, b_column, b_row, 1.0, 1.0, false, false,
                    false, one,
                );
            });
        });
        group.bench_function("matrixmultiply", |bencher| {
            bencher.iter(|| unsafe {
                let (x, y) = (a.as_ptr(), b.as_ptr());
                matrixmultiply::sgemm(m, k, n, 1.0, x, a_row, a_column, y, b_row, b_column, 0.0, into, n as isize, 1);
            });
        });
        for (name, found) in &systems {
            let Some((_, sgemm)) = found else {
                println!("skipped: {name} is not installed");
                continue;
            };
            let (plain, turned) = (111, 112);
            let (a_turned, b_turned) = (matches!(kind, Kind::Weight), matches!(kind, Kind::Forward));
            let turn = |is: bool| if is { turned } else { plain };
            let (a_width, b_width) = (if a_turned { m } else { k }, if b_turned { k } else { n });
            let [m, n, k, a_width, b_width] = [m, n, k, a_width, b_width].map(|size| size as i32);
            group.bench_function(*name, |bencher| {
                bencher.iter(|| unsafe {
                    let (x, y) = (a.as_ptr(), b.as_ptr());
                    sgemm(101, turn(a_turned), turn(b_turned), m, n, k, 1.0, x, a_width, y, b_width, 0.0, into, n);
                });
            });
        }
        group.finish();
    }
}
