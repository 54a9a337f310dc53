// log(1 + r) for r >= 0 with small relative error where r is small and 1 + r has lost its digits.
//   log(1 + r) = 2 atanh(z), z = r / (2 + r);  2 atanh(z) = 2 z (1 + z^2 / 3 + z^4 / 5 + ...)
// z <= 1/3 for r <= 1, so that the first term left out is below 2^-25.
fn log1p(r: f32) -> f32 {
    if r > 1.0 {
        return log(1.0 + r);
    }
    let z = r / (2.0 + r);
    let q = z * z;
    let series = 1.0 / 3.0 + q * (1.0 / 5.0 + q * (1.0 / 7.0 + q * (1.0 / 9.0 + q * (1.0 / 11.0 + q * (1.0 / 13.0)))));
    return 2.0 * (z + z * q * series);
}
