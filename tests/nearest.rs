//! The search for similar rows, compared with a plain one in f64.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use ieq_wgpu::Result;
use ieq_wgpu::fewshot::Nearest;
use ieq_wgpu::fewshot::nearest::Neighbours;
use ieq_wgpu::gpu::adapter::AdapterChoice;
use ieq_wgpu::gpu::{Gpu, device::Options, kernel::Kernels};
use ieq_wgpu::random::{Rng, Stream};

/// A device with no more than what every one has.
fn kernels() -> Kernels {
    let choice = AdapterChoice::parse(std::env::var("IEQ_ADAPTER").ok().as_deref());
    Kernels::new(Gpu::open(&Options { choice, default_limits: true, ..Options::default() }).unwrap())
}

/// Numbers around 0, some rows of them much longer than others.
fn random(seed: u64, rows: usize, columns: usize) -> Vec<f32> {
    let mut rng = Rng::new(seed, Stream::Episodes, 0, 0);
    let scale = |row: usize| [1.0, 1e-3, 300.0][row % 3];
    (0..rows * columns).map(|i| (rng.unit() + rng.unit() - 1.0) * scale(i / columns)).collect()
}

fn plain(queries: &[f32], rows: &[f32], columns: usize, k: usize) -> Vec<Neighbours> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    let length = |a: &[f32]| dot(a, a).sqrt();
    let lengths: Vec<f64> = rows.chunks(columns).map(length).collect();
    let search = |query: &[f32]| {
        let own = length(query);
        let cosine = |(i, row): (usize, &[f32])| (i, (dot(query, row) / (own * lengths[i])) as f32);
        let mut all: Vec<(usize, f32)> = rows.chunks(columns).enumerate().map(cosine).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        all.truncate(k);
        all
    };
    queries.chunks(columns).map(search).collect()
}

#[test]
fn it_finds_what_a_plain_search_finds() {
    let mut kernels = kernels();
    for (columns, queries, rows, k) in
        [(1, 1, 1, 1), (3, 2, 5, 9), (7, 300, 40, 3), (33, 5, 17_001, 50), (640, 3, 7000, 10)]
    {
        let nearest = Nearest::new(&mut kernels, columns, queries).unwrap();
        let (wanted, mut among) = (random(1, queries, columns), random(2, rows, columns));
        // Rows that are there several times, one of them twice as long, and the first query itself.
        if rows > 5 {
            among.copy_within(0..columns, 3 * columns);
            among.copy_within(0..columns, (rows - 1) * columns);
            among[3 * columns..4 * columns].iter_mut().for_each(|x| *x *= 2.0);
            among[2 * columns..3 * columns].copy_from_slice(&wanted[..columns]);
        }
        let found = nearest.search(&wanted, &among, k).unwrap();
        assert_eq!(found, plain(&wanted, &among, columns, k), "{columns} {queries} {rows} {k}");
        // In parts of any size.
        for part in [1, 13, rows] {
            if rows.div_ceil(part) > 2000 {
                continue;
            }
            let parts = among.chunks(part * columns).map(Ok);
            assert_eq!(nearest.search_parts(&wanted, parts, k).unwrap(), found, "{part}");
        }
    }
}

/// Rows that f32 cannot tell apart: they come in the order of their numbers in f64.
#[test]
fn rows_that_the_device_cannot_tell_apart_are_in_order() {
    let (columns, rows) = (64, 20_000);
    let mut rng = Rng::new(9, Stream::Episodes, 0, 0);
    let query: Vec<f32> = (0..columns).map(|_| 1.0 + rng.unit()).collect();
    let among: Vec<f32> =
        (0..rows).flat_map(|_| query.iter().map(|x| x * (1.0 + 3e-4 * rng.unit())).collect::<Vec<_>>()).collect();
    let nearest = Nearest::new(&mut kernels(), columns, 1).unwrap();
    assert_eq!(nearest.search(&query, &among, 25).unwrap(), plain(&query, &among, columns, 25));
    // All alike.
    let among = query.repeat(rows);
    let found = nearest.search(&query, &among, 4).unwrap().remove(0);
    assert!(found.iter().enumerate().all(|(i, &(row, similarity))| row == i && similarity == 1.0), "{found:?}");
}

#[test]
fn what_has_no_direction_is_refused_with_a_sentence() {
    let mut kernels = kernels();
    let nearest = Nearest::new(&mut kernels, 2, 1).unwrap();
    let say = |result: Result<Vec<Neighbours>>| result.unwrap_err().to_string();
    let good = [1.0, 2.0, 3.0, 4.0];
    assert!(say(nearest.search(&good, &[1.0, 0.0, 0.0, 0.0], 1)).contains("row 1 of the rows"));
    assert!(say(nearest.search(&[0.0, 0.0], &good, 1)).contains("row 0 of the queries"));
    assert!(say(nearest.search(&good, &[1.0, f32::NAN], 1)).contains("row 0 of the rows has a number"));
    assert!(say(nearest.search(&[f32::INFINITY, 0.0], &good, 1)).contains("row 0 of the queries has"));
    assert!(say(nearest.search(&good, &good[..3], 1)).contains("whole number of rows"));
    assert!(say(nearest.search(&good[..3], &good, 1)).contains("whole number of queries"));
    assert!(say(nearest.search(&good, &good, 0)).contains("at least 1"));
    let late = vec![1.0; 2 * nearest.rows_per_pass()];
    let parts = [Ok(late.as_slice()), Ok(&[0.0, 0.0])];
    let row = nearest.rows_per_pass();
    assert!(say(nearest.search_parts(&good, parts, 1)).contains(&format!("row {row} of the rows")));
    let failing = [Ok(good.as_slice()), Err(ieq_wgpu::Error::usage("no more"))];
    assert_eq!(say(nearest.search_parts(&good, failing, 1)), "no more");
    assert_eq!(nearest.search(&[], &good, 1).unwrap(), Vec::<Neighbours>::new());
    assert_eq!(nearest.search(&good[..2], &[], 1).unwrap(), [Neighbours::new()]);
    assert!(Nearest::new(&mut kernels, 0, 1).is_err());
    assert!(Nearest::new(&mut kernels, 1, 0).is_err());
}

/// 100,000 rows of 128 numbers, in several parts.
#[test]
fn a_hundred_thousand_rows() {
    let (columns, rows, k) = (128, 100_000, 10);
    let (queries, among) = (random(1, 3, columns), random(2, rows, columns));
    let nearest = Nearest::new(&mut kernels(), columns, 3).unwrap();
    let found = nearest.search(&queries, &among, k).unwrap();
    assert_eq!(found, plain(&queries, &among, columns, k));
}
