//! Proves: the logistic regression is converged; episodes and one-shot runs are scored as defined.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::time::Instant;

use common::golden::{Golden, Tolerance, own_folder};
use ieq_wgpu::fewshot::{Classifier, EpisodeSize, Features, score_episode, score_episodes, score_run};
use ieq_wgpu::random::{Rng, Stream};

/// The reference is exact to f32 rounding: so is a converged solver, far inside the stated tolerance,
/// which covers scikit-learn's default one.
#[test]
fn the_logistic_regression_is_converged() {
    let golden = Golden::open(&own_folder(), "evalcls.safetensors").unwrap();
    for case in golden.cases() {
        let name = |part: &str| format!("{case}.{part}");
        let matrix = |part: &str| {
            let tensor = golden.get(&name(part)).unwrap();
            Features::new(&tensor.data, tensor.shape[1]).unwrap()
        };
        let labels = golden.indices(&name("support_y")).unwrap();
        let ways = golden.shape(&name("b")).unwrap()[0];
        let fit = ieq_wgpu::fewshot::LogisticRegression::fit(matrix("support"), &labels, ways, 1.0).unwrap();
        let tight = Tolerance { atol: 3e-7, rtol: Some(1e-5) };
        let (w, b): (Vec<f32>, Vec<f32>) =
            (fit.weights().iter().map(|&x| x as f32).collect(), fit.bias().iter().map(|&x| x as f32).collect());
        golden.check_with(&name("W"), &w, tight).unwrap();
        golden.check_with(&name("b"), &b, tight).unwrap();
    }
}

/// `classes * each` rows around one centre per class.
fn clusters(seed: u64, classes: usize, each: usize, dim: usize, noise: f32) -> Vec<f32> {
    let mut rng = Rng::new(seed, Stream::Episodes, 0, 0);
    let mut draw = || (0..4).map(|_| rng.unit()).sum::<f32>() - 2.0;
    let mut data = Vec::with_capacity(classes * each * dim);
    for _ in 0..classes {
        let centre: Vec<f32> = (0..dim).map(|_| draw()).collect();
        for _ in 0..each {
            data.extend(centre.iter().map(|c| c + noise * draw()));
        }
    }
    data
}

/// `count` class-major episodes over `classes` classes of `each` consecutive rows.
fn episodes(seed: u64, count: u32, classes: u32, each: u32, size: EpisodeSize) -> Vec<(Vec<u32>, Vec<u32>)> {
    use rand::seq::SliceRandom as _;
    (0..count)
        .map(|number| {
            let mut rng = Rng::new(seed, Stream::Episodes, number, 1);
            let mut picked: Vec<u32> = (0..classes).collect();
            picked.shuffle(&mut rng);
            let (mut support, mut query) = (Vec::new(), Vec::new());
            for &class in &picked[..size.ways] {
                let mut rows: Vec<u32> = (class * each..(class + 1) * each).collect();
                rows.shuffle(&mut rng);
                support.extend_from_slice(&rows[..size.shots]);
                query.extend_from_slice(&rows[size.shots..size.shots + size.queries]);
            }
            (support, query)
        })
        .collect()
}

#[test]
fn separable_classes_score_one_and_noise_scores_chance() {
    let size = EpisodeSize { ways: 5, shots: 5, queries: 15 };
    let list = episodes(1, 100, 8, 20, size);
    let pairs = || list.iter().map(|(s, q)| (s.as_slice(), q.as_slice()));
    let data = clusters(1, 8, 20, 32, 0.01);
    for score in score_episodes(Features::new(&data, 32).unwrap(), pairs(), size, &Classifier::ALL).unwrap() {
        assert_eq!((score.accuracy.mean, score.accuracy.n), (1.0, 100), "{}", score.classifier);
    }
    // 160 centres of one row each: labels mean nothing.
    let data = clusters(2, 160, 1, 32, 0.0);
    let features = Features::new(&data, 32).unwrap();
    for score in score_episodes(features, pairs(), size, &Classifier::ALL).unwrap() {
        assert!((score.accuracy.mean - 0.2).abs() <= 0.02, "{} {}", score.classifier, score.accuracy);
        assert!(score.accuracy.half_width.unwrap() <= 0.02);
    }
}

#[test]
fn one_shot_rules_agree_and_scale_does_not_matter() {
    let size = EpisodeSize { ways: 5, shots: 1, queries: 15 };
    let list = episodes(3, 50, 8, 20, size);
    let data = clusters(3, 8, 20, 16, 1.5);
    let features = Features::new(&data, 16).unwrap();
    // Powers of two, so that normalising gives the same bits.
    let scaled: Vec<f32> =
        data.chunks(16).enumerate().flat_map(|(i, row)| row.iter().map(move |x| x * [0.25, 8.0][i % 2])).collect();
    let scaled = Features::new(&scaled, 16).unwrap();
    for (support, query) in &list {
        let score = |features, classifier| score_episode(features, support, query, size, classifier).unwrap();
        let nn = score(features, Classifier::NearestNeighbour);
        assert_eq!(nn, score(features, Classifier::Cosine));
        assert_eq!(nn, score(features, Classifier::NearestCentroid));
        for classifier in Classifier::ALL {
            assert_eq!(score(features, classifier), score(scaled, classifier));
        }
    }
}

#[test]
fn a_one_shot_run_counts_right_answers() {
    let train = [1.0, 0.0, 0.0, 2.0, -3.0, 0.0];
    let test = [0.0, 5.0, 4.0, 0.5, -1.0, -0.2, 0.1, 0.9];
    let (train, test) = (Features::new(&train, 2).unwrap(), Features::new(&test, 2).unwrap());
    for classifier in Classifier::ALL {
        assert_eq!(score_run(train, test, &[1, 0, 2, 1], classifier).unwrap(), 1.0, "{classifier}");
        assert_eq!(score_run(train, test, &[1, 0, 2, 0], classifier).unwrap(), 0.75, "{classifier}");
    }
    let say = |answer: &[u32]| score_run(train, test, answer, Classifier::Cosine).unwrap_err().to_string();
    assert!(say(&[1, 0, 2]).contains("3 answers for 4"));
    assert!(say(&[1, 0, 2, 3]).contains("answer 3"));
}

#[test]
fn episodes_that_do_not_fit_are_refused() {
    let data = clusters(4, 5, 4, 8, 0.1);
    let features = Features::new(&data, 8).unwrap();
    let size = EpisodeSize { ways: 2, shots: 1, queries: 1 };
    let say = |support: &[u32], query: &[u32], size| {
        score_episode(features, support, query, size, Classifier::Cosine).unwrap_err().to_string()
    };
    assert!(say(&[0], &[1, 5], size).contains("1 support indices"));
    assert!(say(&[0, 4], &[1, 5, 6], size).contains("3 query indices"));
    assert!(say(&[0, 20], &[1, 5], size).contains("image 20 is asked for and the split has 20"));
    assert!(say(&[0, u32::MAX], &[1, 5], size).contains("image 4294967295"));
    assert!(say(&[], &[], EpisodeSize { shots: 0, ..size }).contains("at least one"));
    assert!(say(&[0], &[1], EpisodeSize { ways: 1, ..size }).contains("2 or more"));
    let none = score_episodes(features, [], size, &[Classifier::Cosine]);
    assert!(none.unwrap_err().to_string().contains("no episodes"));
    let mut data = data.clone();
    data[4 * 8] = f32::NAN;
    let features = Features::new(&data, 8).unwrap();
    let error = score_episode(features, &[0, 4], &[1, 5], size, Classifier::LogisticRegression).unwrap_err();
    assert!(error.to_string().contains("not finite"), "{error}");
    assert_eq!(ieq_wgpu::cli::sentence::exit_code(&error), 1);
}

/// 600 episodes, the field's number, are a matter of seconds; `--nocapture` shows the times.
#[test]
#[allow(clippy::print_stdout, reason = "the times are what one runs it for")]
fn six_hundred_episodes_are_fast() {
    for dim in [128, 640] {
        let data = clusters(5, 20, 30, dim, 1.5);
        let features = Features::new(&data, dim).unwrap();
        for shots in [1, 5] {
            let size = EpisodeSize { ways: 5, shots, queries: 15 };
            let list = episodes(6, 600, 20, 30, size);
            for classifier in Classifier::ALL {
                let started = Instant::now();
                let pairs = list.iter().map(|(s, q)| (s.as_slice(), q.as_slice()));
                let score = score_episodes(features, pairs, size, &[classifier]).unwrap()[0];
                let seconds = started.elapsed().as_secs_f64();
                println!("5-way {shots}-shot, {dim} features, {classifier}: {} in {seconds:.2} s", score.accuracy);
                // Far above what one core takes: a guard against an order of magnitude only.
                assert!(cfg!(debug_assertions) || seconds <= 10.0);
            }
        }
    }
}

/// Whatever a caller gives, each public entry answers with an error.
#[test]
fn no_argument_makes_an_entry_panic() {
    use ieq_wgpu::Error;
    use ieq_wgpu::fewshot::{LogisticRegression, MeanInterval};
    let good = [1.0, 0.0, 0.0, 1.0];
    let nan = [1.0, f32::NAN, 0.0, 1.0];
    let infinite = [1.0, 0.0, f32::INFINITY, 1.0];
    for (data, dim) in [(&good[..], 0), (&good[..], 3), (&[][..], 2), (&good[..], usize::MAX)] {
        assert!(matches!(Features::new(data, dim), Err(Error::Shape { .. })), "{data:?} {dim}");
    }
    let of = |data: &'static [f32]| Features::new(data, 2).unwrap();
    let (good, nan, infinite) = (of(good.to_vec().leak()), of(nan.to_vec().leak()), of(infinite.to_vec().leak()));
    let wide = Features::new(good.data(), 4).unwrap();
    for classifier in Classifier::ALL {
        let predict = |s, l: &[u32], w, q| classifier.predict(s, l, w, q).unwrap_err();
        for ways in [0, 1, 3, usize::MAX] {
            assert!(matches!(predict(good, &[0, 1], ways, good), Error::Shape { .. }), "{classifier} {ways}");
        }
        for labels in [&[][..], &[0], &[0, 1, 0], &[0, 2], &[0, u32::MAX], &[1, 1]] {
            assert!(matches!(predict(good, labels, 2, good), Error::Shape { .. }), "{classifier} {labels:?}");
        }
        assert!(matches!(predict(good, &[0, 1], 2, wide), Error::Shape { .. }));
        for bad in [nan, infinite] {
            assert!(matches!(predict(bad, &[0, 1], 2, good), Error::NonFinite(_)));
            assert!(matches!(predict(good, &[0, 1], 2, bad), Error::NonFinite(_)));
            assert!(matches!(score_run(good, bad, &[0, 1], classifier), Err(Error::NonFinite(_))));
        }
        for answer in [&[][..], &[0], &[0, 2], &[0, u32::MAX]] {
            assert!(matches!(score_run(good, good, answer, classifier), Err(Error::Shape { .. })));
        }
        for (ways, shots, queries) in
            [(0, 1, 1), (1, 1, 1), (2, 0, 1), (2, 1, 0), (usize::MAX, 2, 2), (2, usize::MAX, 1)]
        {
            let size = EpisodeSize { ways, shots, queries };
            assert!(matches!(score_episode(good, &[0, 1], &[0, 1], size, classifier), Err(Error::Shape { .. })));
            assert!(matches!(score_episode(good, &[], &[], size, classifier), Err(Error::Shape { .. })));
        }
    }
    for c in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(LogisticRegression::fit(good, &[0, 1], 2, c), Err(Error::Argument { .. })));
    }
    let fit = LogisticRegression::fit(good, &[0, 1], 2, 1.0).unwrap();
    assert!(matches!(fit.decision(wide), Err(Error::Shape { .. })));
    assert!(matches!(fit.predict(nan), Err(Error::NonFinite(_))));
    assert!(matches!(MeanInterval::of(&[]), Err(Error::Argument { .. })));
    assert!(matches!(MeanInterval::of(&[f64::NAN]), Err(Error::NonFinite(_))));
    assert!(matches!("".parse::<Classifier>(), Err(Error::Argument { .. })));
}
