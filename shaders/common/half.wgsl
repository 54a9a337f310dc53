// Floats that are stored in half precision, two to a word: element i of the tensor that the word is from.
fn half_of(word: u32, i: u32) -> f32 {
    let pair = unpack2x16float(word);
    return select(pair.x, pair.y, (i & 1u) == 1u);
}

// Four neighbouring elements, the run-th four of the tensor, of the eight in the vector that has them.
fn four_halves_of(both: vec4<u32>, run: u32) -> vec4<f32> {
    let words = select(both.xy, both.zw, (run & 1u) == 1u);
    return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));
}
