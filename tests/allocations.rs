//! What the optimiser asks of memory once it runs: nothing that grows with the parameters. A binary of its own, because its
//! allocator counts for the whole process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{Device, Tensor, Var};
use codelora::experiment::Stepping;
use codelora::train::adamw::Betas;
use codelora::train::gradients::{Clip, Gradients};
use codelora::train::optimizer::Optimizer;

struct Counting;

/// Bytes asked for since the process began.
static ASKED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.fetch_add(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_step_and_its_clipping_allocate_next_to_nothing() -> codelora::Result<()> {
    let tensor = |value: f32| Tensor::full(value, (512, 512), &Device::Cpu);
    let names = ["qkv", "out_proj", "fc1", "fc2"];
    let mut parameters = BTreeMap::new();
    let mut gradients = Gradients::new();
    for name in names {
        parameters.insert(name.to_string(), Var::from_tensor(&tensor(0.5)?)?);
        gradients.insert(name.to_string(), tensor(0.01)?);
    }
    let bytes: usize = parameters.values().map(|variable| 4 * variable.elem_count()).sum();
    let mut optimizer = Optimizer::new(Stepping::AdamW, &parameters, 0.01, Betas::default(), |_| 1.0)?;
    let mut step = || optimizer.step(&gradients, 1e-3, &Clip::new(&gradients, 1.0)?);
    // The first steps start the threads.
    for _ in 0..3 {
        step()?;
    }
    let before = ASKED.load(Ordering::Relaxed);
    for _ in 0..10 {
        step()?;
    }
    let asked = (ASKED.load(Ordering::Relaxed) - before) / 10;
    println!("a step over {bytes} bytes of parameters asks for {asked} bytes");
    assert!(before > 3 * bytes, "the counting allocator does not count");
    assert!(asked < bytes / 100, "{asked} bytes a step over {bytes} bytes of parameters");
    Ok(())
}
