//! The corpus, through the functions that the fuzzer runs.

#![allow(missing_docs, clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use lattice_fuzz::TARGETS;

/// Far above what any file takes; one that takes longer hangs.
const HANGS: Duration = Duration::from_secs(60);

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_target_withstands_its_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let folders: BTreeSet<String> =
        files(&corpus).iter().map(|dir| dir.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(folders, TARGETS.iter().map(|target| target.name.to_owned()).collect());
    let mut wrong = Vec::new();
    for target in TARGETS {
        let mut verdicts = BTreeSet::new();
        for file in files(&corpus.join(target.name)) {
            let started = Instant::now();
            let accepted = (target.run)(&fs::read(&file).unwrap());
            assert!(started.elapsed() < HANGS, "{} takes {:?}", file.display(), started.elapsed());
            let name = file.file_name().unwrap().to_str().unwrap();
            let expected = match name.split('-').next().unwrap() {
                "accepted" => true,
                "refused" => false,
                "found" => continue,
                _ => panic!("{}: call it accepted-…, refused-… or found-…", file.display()),
            };
            if accepted != expected {
                wrong.push(format!(
                    "{} is {}",
                    file.display(),
                    if accepted { "accepted" } else { "refused" }
                ));
            }
            verdicts.insert(accepted);
        }
        assert_eq!(verdicts.len(), 2, "{} lacks a seed that is accepted or one that is refused", target.name);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
