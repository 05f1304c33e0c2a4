//! Files on their way into the corpus: read and screened, compared with those before, searched for benchmark tasks.

use std::fs;
use std::path::PathBuf;

use codelora::Error;
use codelora::data::corpus::contamination::Contamination;
use codelora::data::corpus::repeats::{Repeats, Sketch};
use codelora::data::corpus::{library, screen};
use codelora::data::embedded;
use criterion::{Criterion, Throughput};

use crate::sizes::slow;

fn all(criterion: &mut Criterion) -> codelora::Result<()> {
    let folder = library::folder()?;
    let entries = fs::read_dir(&folder).map_err(Error::io("read", &folder))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "py"));
    files.sort();
    let texts: Vec<String> = files.iter().filter_map(|file| screen::read(file).ok()).collect();
    let mut group = slow(criterion, "corpus");
    group.throughput(Throughput::Bytes(texts.iter().map(|text| text.len() as u64).sum()));
    group.bench_function("read and screen", |bencher| {
        bencher.iter(|| files.iter().filter(|file| screen::read(file).is_ok()).count());
    });
    group.bench_function("near repeats", |bencher| {
        bencher.iter(|| {
            let mut seen = Repeats::default();
            texts.iter().filter(|text| seen.admit(&Sketch::new(text)).is_ok()).count()
        });
    });
    let mut contamination = Contamination::default();
    contamination.add_tasks(&embedded::benchmark20()?);
    contamination.add_tasks(&embedded::other40()?);
    group.bench_function("contamination", |bencher| {
        bencher.iter(|| texts.iter().filter(|text| contamination.holds(text)).count());
    });
    Ok(())
}

/// All of them, on the interpreter's standard library.
pub fn bench(criterion: &mut Criterion) {
    all(criterion).expect("the standard library is at hand");
}
