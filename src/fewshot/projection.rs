//! Principal components: features in two dimensions, for people to look at.

use super::features::Features;

/// Rounds of the iteration: enough for a picture.
const ROUNDS: usize = 60;

/// Features in two dimensions.
#[derive(Clone, Debug, PartialEq)]
pub struct Projection {
    /// A row's coordinates along the first two components.
    pub coordinates: Vec<[f64; 2]>,
    /// Shares of the variance that both carry, 0 to 1.
    pub explained: [f64; 2],
}

/// The first two principal components of `features`, by subspace iteration on the matrix of products of centred rows:
/// `rows^2 x columns` multiply-adds. The same features give the same picture: the start is fixed, and of every component the
/// coordinate that is largest in size is positive.
pub fn principal(features: Features) -> Projection {
    let (n, dim) = (features.rows(), features.dim());
    let mut mean = vec![0.0; dim];
    for row in features.iter() {
        mean.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x) / n as f64);
    }
    let centred: Vec<Vec<f64>> =
        features.iter().map(|row| row.iter().zip(&mean).map(|(&x, m)| f64::from(x) - m).collect()).collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    let gram: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| dot(&centred[i], &centred[j])).collect()).collect();
    let total: f64 = (0..n).map(|i| gram[i][i]).sum();
    // A fixed start that no symmetric data is orthogonal to.
    let start = |k: usize| (0..n).map(|i| ((i * (2 * k + 3) + k) as f64 * 0.754_877_666 % 1.0) - 0.5).collect();
    let mut basis: [Vec<f64>; 2] = [start(0), start(1)];
    let mut sizes = [0.0; 2];
    for _ in 0..ROUNDS {
        for k in 0..2 {
            let mut next: Vec<f64> = gram.iter().map(|row| dot(row, &basis[k])).collect();
            if k == 1 {
                let along = dot(&next, &basis[0]);
                next.iter_mut().zip(&basis[0]).for_each(|(x, first)| *x -= along * first);
            }
            sizes[k] = dot(&next, &next).sqrt();
            // Where nothing is left, as of equal rows, all coordinates are zero.
            let scale = if sizes[k] > 1e-12 * total.max(1e-300) { 1.0 / sizes[k] } else { 0.0 };
            next.iter_mut().for_each(|x| *x *= scale);
            basis[k] = next;
        }
    }
    for component in &mut basis {
        let largest = component.iter().copied().fold(0.0, |most: f64, x| if x.abs() > most.abs() { x } else { most });
        if largest < 0.0 {
            component.iter_mut().for_each(|x| *x = -*x);
        }
    }
    let lengths = sizes.map(|size| size.max(0.0).sqrt());
    let coordinates = (0..n).map(|i| [0, 1].map(|k| basis[k][i] * lengths[k])).collect();
    Projection { coordinates, explained: sizes.map(|size| if total > 0.0 { size / total } else { 0.0 }) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn distances_in_a_plane_are_kept() {
        // Points of a plane in five dimensions: two orthogonal directions of length 1.
        let plane: Vec<[f64; 2]> =
            (0..12).map(|i| [3.0 * (f64::from(i) * 1.7).sin(), (f64::from(i) * 0.9).cos()]).collect();
        let rows: Vec<f32> =
            plane.iter().flat_map(|[a, b]| [0.6 * a + 2.0, 0.8 * a, *b, 7.0, 0.0].map(|x| x as f32)).collect();
        let found = principal(Features::new(&rows, 5).unwrap());
        assert!((found.explained[0] + found.explained[1] - 1.0).abs() < 1e-6, "{:?}", found.explained);
        assert!(found.explained[0] > found.explained[1]);
        let distance = |p: [f64; 2], q: [f64; 2]| ((p[0] - q[0]).powi(2) + (p[1] - q[1]).powi(2)).sqrt();
        for i in 0..12 {
            for j in 0..12 {
                let (got, want) = (distance(found.coordinates[i], found.coordinates[j]), distance(plane[i], plane[j]));
                assert!((got - want).abs() < 1e-4, "{i} {j}: {got} {want}");
            }
        }
        assert_eq!(found, principal(Features::new(&rows, 5).unwrap()));
    }

    #[test]
    fn equal_rows_are_at_the_origin() {
        let found = principal(Features::new(&[1.0, 2.0, 1.0, 2.0, 1.0, 2.0], 2).unwrap());
        assert_eq!(found.coordinates, [[0.0; 2]; 3]);
        assert_eq!(found.explained, [0.0; 2]);
    }
}
