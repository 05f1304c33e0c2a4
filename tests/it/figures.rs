//! The committed figures: drawn anew from the committed records, without a model, they are the same to the byte.

use std::fs;
use std::path::Path;

use codelora::Experiment;
use codelora::phases::walk;

#[test]
fn every_committed_figure_follows_from_its_record() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    let mut experiment = Experiment::open(root.join("data/experiments/quick.toml")).unwrap();
    experiment.config.paths.run = folder.path().join("no-run");
    experiment.config.paths.figures = folder.path().into();
    fs::create_dir_all(folder.path().join("records")).unwrap();
    for entry in fs::read_dir(root.join("figures/records")).unwrap() {
        let file = entry.unwrap();
        fs::copy(file.path(), folder.path().join("records").join(file.file_name())).unwrap();
    }
    let drawn = walk::figures(&experiment).unwrap();
    assert!(drawn > 20, "{drawn} figures");
    let mut committed: Vec<_> = fs::read_dir(root.join("figures")).unwrap().map(|e| e.unwrap().path()).collect();
    committed.retain(|path| path.extension().is_some_and(|extension| extension == "svg" || extension == "md"));
    for path in committed {
        let again = fs::read_to_string(folder.path().join(path.file_name().unwrap())).unwrap_or_default();
        let same = fs::read_to_string(&path).unwrap() == again;
        assert!(same, "{} does not follow from the records: run `codelora figures`", path.display());
    }
}

#[test]
fn the_figure_of_the_full_size_base_follows_from_its_record() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let record = fs::read_to_string(root.join("data/base/29m/pretraining.json")).unwrap();
    let record: codelora::phases::pretraining::PretrainRecord = serde_json::from_str(&record).unwrap();
    let chart = codelora::figures::base::generated(&record.training).expect("the base was looked at");
    let committed = fs::read_to_string(root.join("figures/29m/base-generated.svg")).unwrap();
    assert!(codelora::figures::draw(&chart).unwrap().svg == committed, "draw figures/29m anew from the base's record");
}
