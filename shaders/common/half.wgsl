// Floats that are stored in half precision, two to a word: element i of the tensor that the word is from.
fn half_of(word: u32, i: u32) -> f32 {
    let pair = unpack2x16float(word);
    return select(pair.x, pair.y, (i & 1u) == 1u);
}
