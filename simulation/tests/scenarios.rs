//! Random scenarios. One seed again, with its trace: `LATTICE_SEED=7 cargo test -p lattice-simulation`; others
//! than usual: `LATTICE_SEEDS=1000..3000`. What failed once is in `regressions.txt`.

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use lattice_simulation::{
    Bare, Full,
    scenario::{self, Expectations, Failure, Make, Outcome},
};

const WIREGUARD_ALONE: Expectations = Expectations {
    finds_paths: false,
    delivers_after: Duration::from_secs(20),
    direct_after: Duration::ZERO,
};

const WITH_PATHS: Expectations = Expectations {
    finds_paths: true,
    delivers_after: Duration::from_secs(20),
    direct_after: Duration::from_secs(960),
};

/// The seeds to run: those asked for, else these.
fn seeds(usual: Range<u64>) -> Vec<u64> {
    let number = |text: &str| text.parse::<u64>().expect("a seed is a number");
    if let Ok(seed) = std::env::var("LATTICE_SEED") {
        return vec![number(&seed)];
    }
    match std::env::var("LATTICE_SEEDS") {
        Ok(range) => {
            let (first, end) = range.split_once("..").expect("seeds are <first>..<end>");
            (number(first)..number(end)).collect()
        }
        Err(_) => usual.collect(),
    }
}

/// Runs all, on each core; the lowest seed that fails is told in full.
fn run(seeds: &[u64], make: Make, expect: &Expectations) {
    let next = AtomicU64::new(0);
    let work = || {
        let (mut total, mut failures) = (Outcome::default(), Vec::new());
        while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
            match scenario::run(*seed, make, expect) {
                Ok(outcome) => total += outcome,
                Err(failure) => failures.push(failure),
            }
        }
        (total, failures)
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (mut total, mut failures) = (Outcome::default(), Vec::<Box<Failure>>::new());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            let (outcome, failed) = worker.join().expect("a scenario does not panic");
            total += outcome;
            failures.extend(failed);
        }
    });
    println!("{} seeds: {total:?}", seeds.len());
    failures.sort_by_key(|failure| failure.seed);
    for Failure { seed, what, .. } in failures.iter().map(|failure| &**failure) {
        println!("seed {seed}: {what}");
    }
    assert!(failures.is_empty(), "{} of {} seeds fail; {}", failures.len(), seeds.len(), failures[0]);
}

#[test]
fn wireguard_alone_does_no_harm_whatever_happens() {
    run(&seeds(0..50), Bare::boxed, &WIREGUARD_ALONE);
}

#[test]
fn every_pair_that_has_a_way_finds_it_after_any_faults() {
    run(&seeds(0..1000), Full::boxed, &WITH_PATHS);
}

/// Without this, a seed that failed would tell nothing.
#[test]
fn a_seed_tells_the_same_story_each_time() {
    for seed in 0..4 {
        let [one, other] = [0, 1].map(|_| scenario::story(seed, Full::boxed, &WITH_PATHS));
        assert!(one == other && one.len() > 10_000, "seed {seed}");
    }
}

#[test]
fn what_failed_once_does_not_again() {
    let known = include_str!("regressions.txt").lines().filter(|line| !line.starts_with('#'));
    let known = known.filter_map(|line| line.split_whitespace().next()?.parse().ok());
    run(&known.collect::<Vec<_>>(), Full::boxed, &WITH_PATHS);
}
