//! Contact sheets: many small pictures in one, each with a caption, as PNG.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use font8x8::{
    BASIC_FONTS, BLOCK_FONTS, BOX_FONTS, GREEK_FONTS, HIRAGANA_FONTS, LATIN_FONTS, MISC_FONTS, UnicodeFonts,
};
use image::codecs::png::{CompressionType, FilterType as PngFilter, PngEncoder};
use image::imageops::{self, FilterType};
use image::{ExtendedColorType, ImageEncoder, Rgb, RgbImage};

use crate::{Error, Result};

/// Side of the square in which a picture is shown, pixels, unless the sheet says another.
pub const TILE: u32 = 112;

/// Colours for frames that tell right from wrong and from neither.
pub mod colours {
    /// Blue: right, or the picture that was asked about.
    pub const GOOD: [u8; 3] = [0, 114, 178];
    /// Vermilion: wrong, or suspicious. With the blue above it can be told apart by eyes that cannot see red or green.
    pub const BAD: [u8; 3] = [213, 94, 0];
    /// Gray: neither.
    pub const PLAIN: [u8; 3] = [140, 140, 140];
}

/// Largest area of a sheet, pixels: what common viewers open.
const MAX_AREA: u64 = 80_000_000;
/// Largest width or height.
const MAX_EDGE: u64 = 32_000;
/// Preferred width of a sheet whose number of columns is not given.
const WIDTH: u32 = 1_240;
const MARGIN: u32 = 12;
const FRAME: u32 = 3;
/// Width of a letter, and height of a line of captions.
const LETTER: u32 = 8;
const LINE: u32 = 11;
/// Lines of a caption at most; what is longer ends with three dots.
const CAPTION_LINES: usize = 3;
/// Height of a title, whose letters are twice as large.
const TITLE: u32 = 2 * LETTER + 14;

const PAPER: Rgb<u8> = Rgb([255, 255, 255]);
const INK: Rgb<u8> = Rgb([34, 34, 34]);

/// A letter that no font has.
const UNKNOWN: [u8; 8] = [0x7e, 0x42, 0x42, 0x42, 0x42, 0x42, 0x7e, 0x00];

/// A picture of a sheet.
#[derive(Clone, Debug)]
pub struct Cell {
    /// The picture, of any size: small ones are enlarged by a whole factor with their pixels kept, large ones shrunk.
    pub picture: RgbImage,
    /// What stands below it, broken into lines where it is long, and at `\n`.
    pub caption: String,
    /// The colour of a frame around it.
    pub frame: Option<[u8; 3]>,
}

impl Cell {
    /// A picture with a caption and no frame.
    pub fn new(picture: RgbImage, caption: impl Into<String>) -> Cell {
        Cell { picture, caption: caption.into(), frame: None }
    }

    /// As [`Cell::new`], of the RGBA8 words of an [`ImageSet`](super::ImageSet)'s image; black where they are too few.
    pub fn of_words(words: &[u32], side: usize, caption: impl Into<String>) -> Cell {
        Cell::new(picture(words, side), caption)
    }

    /// With a frame of this colour.
    pub fn framed(mut self, colour: [u8; 3]) -> Cell {
        self.frame = Some(colour);
        self
    }
}

/// RGBA8 words, row by row, as a picture of `side` x `side` pixels; black where they are too few.
pub fn picture(words: &[u32], side: usize) -> RgbImage {
    let side = u32::try_from(side).unwrap_or(0);
    let mut picture = RgbImage::new(side, side);
    for (pixel, word) in picture.pixels_mut().zip(words) {
        let [r, g, b, _] = word.to_le_bytes();
        *pixel = Rgb([r, g, b]);
    }
    picture
}

/// Pictures under one title.
#[derive(Clone, Debug, Default)]
struct Section {
    title: String,
    cells: Vec<Cell>,
}

/// Pictures side by side, in sections.
#[derive(Clone, Debug)]
pub struct Sheet {
    tile: u32,
    columns: Option<usize>,
    sections: Vec<Section>,
}

impl Default for Sheet {
    fn default() -> Self {
        Sheet { tile: TILE, columns: None, sections: Vec::new() }
    }
}

impl Sheet {
    /// A sheet without pictures, whose columns follow from its width.
    pub fn new() -> Sheet {
        Sheet::default()
    }

    /// With this many pictures side by side, at least one.
    pub fn columns(mut self, columns: usize) -> Sheet {
        self.columns = Some(columns.max(1));
        self
    }

    /// With pictures shown in squares of this side, pixels, 16 to 1024.
    pub fn tile(mut self, side: u32) -> Sheet {
        self.tile = side.clamp(16, 1024);
        self
    }

    /// Begins a section: what is pushed next stands below this title; an empty one leaves a gap only.
    pub fn section(&mut self, title: impl Into<String>) {
        self.sections.push(Section { title: title.into(), cells: Vec::new() });
    }

    /// Adds a picture to the last section, at the size at which it is shown: a sheet of photos is small.
    pub fn push(&mut self, cell: Cell) {
        let cell = Cell { picture: fitted(&cell.picture, self.tile), ..cell };
        match self.sections.last_mut() {
            Some(section) => section.cells.push(cell),
            None => self.sections.push(Section { title: String::new(), cells: vec![cell] }),
        }
    }

    /// Number of pictures.
    pub fn len(&self) -> usize {
        self.sections.iter().map(|section| section.cells.len()).sum()
    }

    /// Whether it has no pictures.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sheet as a picture.
    ///
    /// # Errors
    /// [`Error::Argument`] where it has no pictures, or more than a picture of 80 million pixels holds.
    pub fn draw(&self) -> Result<RgbImage> {
        if self.is_empty() {
            let (got, wanted) = ("none".into(), "at least one".into());
            return Err(Error::Argument { what: "the pictures of a sheet", got, wanted });
        }
        let cell = self.tile + 2 * FRAME;
        let pitch = cell + MARGIN;
        let fit = ((WIDTH - MARGIN) / pitch).max(1) as usize;
        let longest = self.sections.iter().map(|section| section.cells.len()).max().unwrap_or(1);
        let columns = self.columns.unwrap_or(fit).min(longest).max(1);
        let letters = (cell / LETTER) as usize;
        // Every row is as high as its longest caption.
        let rows = self.sections.iter().map(|section| {
            section.cells.chunks(columns).map(|row| {
                let captions: Vec<_> = row.iter().map(|cell| wrapped(&cell.caption, letters)).collect();
                let lines = captions.iter().map(Vec::len).max().unwrap_or(0) as u32;
                (row, captions, cell + lines * LINE + if lines > 0 { 4 } else { 0 } + MARGIN)
            })
        });
        let rows: Vec<Vec<_>> = rows.map(Iterator::collect).collect();
        let titles = self.sections.iter().map(|section| if section.title.is_empty() { 0 } else { TITLE });
        let height: u64 = rows.iter().flatten().map(|row| u64::from(row.2)).sum::<u64>()
            + titles.map(u64::from).sum::<u64>()
            + u64::from(MARGIN);
        let width = (columns as u64).saturating_mul(u64::from(pitch)).saturating_add(u64::from(MARGIN));
        if width > MAX_EDGE || height > MAX_EDGE || width * height > MAX_AREA {
            return Err(Error::Argument {
                what: "the size of a sheet",
                got: format!("{} pictures, {width} x {height} pixels", self.len()),
                wanted: format!("at most {MAX_EDGE} pixels wide and high and {} million in all", MAX_AREA / 1_000_000),
            });
        }
        let mut sheet = RgbImage::from_pixel(width as u32, height as u32, PAPER);
        let mut top = MARGIN;
        for (section, rows) in self.sections.iter().zip(rows) {
            if !section.title.is_empty() {
                let letters = ((width as u32 - 2 * MARGIN) / (2 * LETTER)) as usize;
                write(&mut sheet, &elided(&section.title, letters), [MARGIN, top + 2], 2);
                top += TITLE;
            }
            for (row, captions, height) in rows {
                for (i, (shown, caption)) in row.iter().zip(captions).enumerate() {
                    let left = MARGIN + i as u32 * pitch;
                    self.place(&mut sheet, shown, [left, top]);
                    for (line, text) in caption.iter().enumerate() {
                        write(&mut sheet, text, [left, top + cell + 4 + line as u32 * LINE], 1);
                    }
                }
                top += height;
            }
        }
        Ok(sheet)
    }

    /// The bytes of a PNG file, which [`is_sheet`] knows again.
    ///
    /// # Errors
    /// As [`Sheet::draw`].
    pub fn to_png(&self) -> Result<Vec<u8>> {
        let mut bytes = png(&self.draw()?)?;
        bytes.splice(HEADER..HEADER, MADE_BY.iter().copied());
        Ok(bytes)
    }

    /// Draws a picture and its frame into the square at `left`, `top`.
    fn place(&self, sheet: &mut RgbImage, cell: &Cell, [left, top]: [u32; 2]) {
        let outer = self.tile + 2 * FRAME;
        if let Some(colour) = cell.frame {
            for y in 0..outer {
                for x in 0..outer {
                    if x < FRAME || y < FRAME || x >= outer - FRAME || y >= outer - FRAME {
                        put(sheet, left + x, top + y, Rgb(colour));
                    }
                }
            }
        }
        let (width, height) = cell.picture.dimensions();
        let offset = [left + FRAME + (self.tile - width) / 2, top + FRAME + (self.tile - height) / 2];
        imageops::replace(sheet, &cell.picture, i64::from(offset[0]), i64::from(offset[1]));
    }
}

/// The chunk of a PNG file that says which program has made it, with its check sum.
const MADE_BY: &[u8] = b"\0\0\0\x11tEXtSoftware\0ieq-wgpu\x73\x9d\x88\x91";
/// Bytes of a PNG file before its first chunk that is not the header: the signature, and the header of 13 bytes.
const HEADER: usize = 8 + 12 + 13;

/// Whether a file is a contact sheet that [`Sheet::to_png`] has made.
pub fn is_sheet(path: &Path) -> bool {
    let mut begins = [0; HEADER + MADE_BY.len()];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut begins));
    read.is_ok() && begins.ends_with(MADE_BY)
}

/// `picture` in a square of `tile`, its proportions kept: enlarged by a whole factor, or shrunk.
pub fn fitted(picture: &RgbImage, tile: u32) -> RgbImage {
    let (width, height) = picture.dimensions();
    let longest = width.max(height);
    if longest == 0 {
        return RgbImage::from_pixel(1, 1, PAPER);
    }
    if longest > tile {
        let scaled = |edge: u32| (u64::from(edge) * u64::from(tile) / u64::from(longest)).max(1) as u32;
        return imageops::resize(picture, scaled(width), scaled(height), FilterType::Triangle);
    }
    let factor = tile / longest;
    imageops::resize(picture, width * factor, height * factor, FilterType::Nearest)
}

/// The bytes of a PNG file of a picture.
///
/// # Errors
/// [`Error::Internal`] where the encoder refuses it, as it does one without pixels.
pub fn png(picture: &RgbImage) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let encoder = PngEncoder::new_with_quality(&mut bytes, CompressionType::Best, PngFilter::Adaptive);
    encoder
        .write_image(picture.as_raw(), picture.width(), picture.height(), ExtendedColorType::Rgb8)
        .map_err(|e| Error::Internal(format!("cannot encode a picture: {e}")))?;
    Ok(bytes)
}

/// The lines of a caption, each of `letters` at most.
fn wrapped(caption: &str, letters: usize) -> Vec<String> {
    let letters = letters.max(4);
    let mut lines: Vec<String> = Vec::new();
    for part in caption.split('\n').map(str::trim_end) {
        let mut line = String::new();
        for word in part.split(' ') {
            let gap = usize::from(!line.is_empty());
            if !line.is_empty() && line.chars().count() + gap + word.chars().count() > letters {
                lines.push(std::mem::take(&mut line));
            } else if gap == 1 {
                line.push(' ');
            }
            // A word that is longer than a line is broken where it is full.
            for letter in word.chars() {
                if line.chars().count() == letters {
                    lines.push(std::mem::take(&mut line));
                }
                line.push(letter);
            }
        }
        lines.push(line);
    }
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    if lines.len() > CAPTION_LINES {
        lines.truncate(CAPTION_LINES);
        if let Some(last) = lines.last_mut() {
            *last = elided(&format!("{last}...."), letters);
        }
    }
    lines
}

/// `text` with three dots in place of what is longer than `letters`.
fn elided(text: &str, letters: usize) -> String {
    match text.chars().count() > letters {
        true => text.chars().take(letters.saturating_sub(3)).chain("...".chars()).collect(),
        false => text.into(),
    }
}

/// The rows of a letter, lowest bit left. Fonts have Latin, Greek and hiragana; other letters are an empty box.
fn glyph(letter: char) -> [u8; 8] {
    let fonts: [&dyn UnicodeFonts; 7] =
        [&BASIC_FONTS, &LATIN_FONTS, &GREEK_FONTS, &HIRAGANA_FONTS, &BOX_FONTS, &BLOCK_FONTS, &MISC_FONTS];
    let plain = match letter {
        '\u{2018}' | '\u{2019}' => '\'',
        '\u{201c}' | '\u{201d}' => '"',
        '\u{2010}'..='\u{2015}' | '\u{2212}' => '-',
        letter if letter.is_control() || letter.is_whitespace() => ' ',
        letter => letter,
    };
    fonts.iter().find_map(|font| font.get(plain)).unwrap_or(UNKNOWN)
}

fn write(sheet: &mut RgbImage, text: &str, [left, top]: [u32; 2], scale: u32) {
    for (i, letter) in text.chars().enumerate() {
        for (y, row) in (0..).zip(glyph(letter)) {
            for x in (0..LETTER).filter(|x| row >> x & 1 == 1) {
                let corner = [left + (i as u32 * LETTER + x) * scale, top + y * scale];
                for (dx, dy) in (0..scale).flat_map(|dy| (0..scale).map(move |dx| (dx, dy))) {
                    put(sheet, corner[0] + dx, corner[1] + dy, INK);
                }
            }
        }
    }
}

/// Sets a pixel that may lie outside.
fn put(sheet: &mut RgbImage, x: u32, y: u32, colour: Rgb<u8>) {
    if let Some(pixel) = sheet.get_pixel_mut_checked(x, y) {
        *pixel = colour;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn plain(width: u32, height: u32, colour: [u8; 3]) -> RgbImage {
        RgbImage::from_pixel(width, height, Rgb(colour))
    }

    #[test]
    fn a_sheet_is_a_png_with_every_picture_in_its_colour() {
        let mut sheet = Sheet::new().columns(2).tile(64);
        sheet.section("first");
        sheet.push(Cell::new(plain(28, 28, [255, 0, 0]), "red"));
        sheet.push(Cell::new(plain(500, 100, [0, 255, 0]), "a wide one").framed(colours::BAD));
        sheet.section("second <b>");
        sheet.push(Cell::of_words(&[0xff_ff_00_00; 9], 3, "blue\nこれは 漢字 and then very much more text than fits"));
        sheet.push(Cell::new(RgbImage::new(0, 0), ""));
        let bytes = sheet.to_png().unwrap();
        let read = image::load_from_memory(&bytes).unwrap().to_rgb8();
        assert_eq!(read, sheet.draw().unwrap());
        let (chunk, sum) = MADE_BY.split_at(MADE_BY.len() - 4);
        let mut crc = flate2::Crc::new();
        crc.update(&chunk[4..]);
        assert_eq!((crc.sum().to_be_bytes().as_slice(), chunk.len() - 8), (sum, usize::from(chunk[3])));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        assert!(is_sheet(file.path()));
        std::fs::write(file.path(), png(&read).unwrap()).unwrap();
        assert!(!is_sheet(file.path()));
        let count = |colour: [u8; 3]| read.pixels().filter(|pixel| pixel.0 == colour).count();
        assert_eq!(count([255, 0, 0]), 56 * 56, "enlarged by a whole factor");
        assert_eq!(count([0, 255, 0]), 64 * 12, "shrunk in proportion");
        assert_eq!(count([0, 0, 255]), 63 * 63);
        assert_eq!(count(colours::BAD), 70 * 70 - 64 * 64);
        assert!(count(INK.0) > 200, "there is text");
    }

    #[test]
    fn captions_are_broken_into_lines() {
        let lines = |text: &str| wrapped(text, 10);
        assert_eq!(lines("one two three"), ["one two", "three"]);
        assert_eq!(lines("0123456789abc"), ["0123456789", "abc"]);
        assert_eq!(lines("a\nb"), ["a", "b"]);
        assert_eq!(lines(""), [""; 0]);
        assert_eq!(lines("a b c d e f g h i j k l m n o p q r s t u v w"), ["a b c d e", "f g h i j", "k l m n..."]);
        assert!(glyph('é') != UNKNOWN && glyph('あ') != UNKNOWN && glyph('漢') == UNKNOWN && glyph('\u{1b}') == [0; 8]);
    }

    #[test]
    fn what_is_empty_or_too_large_is_refused() {
        assert!(Sheet::new().to_png().unwrap_err().to_string().contains("at least one"));
        let mut sheet = Sheet::new().columns(1).tile(1024);
        for _ in 0..40 {
            sheet.push(Cell::new(plain(1, 1, [0; 3]), ""));
        }
        assert!(sheet.to_png().unwrap_err().to_string().contains("at most"));
        assert!(png(&RgbImage::new(0, 0)).is_err());
    }
}
