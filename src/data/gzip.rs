//! Gzip files that are read anywhere without being unpacked: one pass over the file checks it and keeps points at which
//! unpacking can begin again, so that what lies far behind is not reached from the beginning each time.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use flate2::Crc;
use miniz_oxide::inflate::stream::{InflateState, MinReset, inflate};
use miniz_oxide::{DataFormat, MZError, MZFlush, MZStatus};

/// How a gzip file begins.
const SIGNATURE: [u8; 2] = [0x1f, 0x8b];
/// Unpacked bytes between two points, at the least. A point takes 43 KB.
const SPACING: u64 = 1 << 19;
/// The most points of one file; where there are more, every second goes and those that follow lie twice as far apart.
const MAX_POINTS: usize = 256;
/// The most points of all files that are open together, but for a few of each.
const MAX_POINTS_OF_ALL: usize = 2048;
/// The most places that are kept where a reader was last. Readers that each go forwards find their own among them.
const MAX_RECENT: usize = 16;
/// A file may not unpack to more than this many times its size, above `RATIO_FREE_BYTES`: what lists its content takes
/// memory for it.
const MAX_RATIO: u64 = 200;
const RATIO_FREE_BYTES: u64 = 64 << 20;

/// Whether a file begins as gzip files do.
///
/// # Errors
/// Where it cannot be read.
pub(super) fn is_gzip(path: &Path) -> io::Result<bool> {
    let mut head = Vec::new();
    File::open(path)?.take(2).read_to_end(&mut head)?;
    Ok(head == SIGNATURE)
}

/// Where unpacking can go on.
#[derive(Clone)]
struct Point {
    /// Bytes of the file, and of its content, before it.
    input: u64,
    output: u64,
    inflate: Box<InflateState>,
    /// Whether a member begins here, as one does at the start; several may follow each other.
    begins: bool,
}

impl Point {
    fn start() -> Point {
        Point { input: 0, output: 0, inflate: InflateState::new_boxed(DataFormat::Raw), begins: true }
    }
}

fn damaged(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// The content from a point on.
struct Unpacker {
    file: BufReader<File>,
    point: Point,
    /// The sum over the member so far, where it is to be compared with what the member says.
    sum: Option<Crc>,
}

impl Unpacker {
    fn new(path: &Path, point: Point, sum: Option<Crc>) -> io::Result<Unpacker> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(point.input))?;
        Ok(Unpacker { file: BufReader::with_capacity(1 << 15, file), point, sum })
    }

    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes)?;
        self.point.input += N as u64;
        Ok(bytes)
    }

    /// Skips a text that ends in a zero.
    fn text(&mut self) -> io::Result<()> {
        while self.bytes::<1>()? != [0] {}
        Ok(())
    }

    /// Reads what stands before a member; `false` where there is none. As for other programs, what follows the last member
    /// and is none does not count.
    fn header(&mut self) -> io::Result<bool> {
        let is_first = self.point.input == 0;
        if !is_first && self.file.fill_buf()?.is_empty() {
            return Ok(false);
        }
        if self.bytes()? != SIGNATURE {
            return if is_first { Err(damaged("it does not begin as one")) } else { Ok(false) };
        }
        let [method, flags, ..] = self.bytes::<8>()?;
        if method != 8 || flags & 0xe0 != 0 {
            return Err(damaged("it is packed in a way that no standard has"));
        }
        if flags & 4 != 0 {
            for _ in 0..u16::from_le_bytes(self.bytes()?) {
                self.bytes::<1>()?;
            }
        }
        // The name of what was packed, and a comment.
        for flag in [8, 16] {
            if flags & flag != 0 {
                self.text()?;
            }
        }
        if flags & 2 != 0 {
            self.bytes::<2>()?;
        }
        self.point.inflate.reset_as(MinReset);
        self.point.begins = false;
        Ok(true)
    }

    /// Reads what stands behind a member.
    fn trailer(&mut self) -> io::Result<()> {
        let [sum, amount] = [u32::from_le_bytes(self.bytes()?), u32::from_le_bytes(self.bytes()?)];
        self.point.begins = true;
        match &mut self.sum {
            Some(own) if (own.sum(), own.amount()) != (sum, amount) => Err(damaged("its check sum is another")),
            Some(own) => {
                own.reset();
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Read for Unpacker {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            if self.point.begins && !self.header()? {
                return Ok(0);
            }
            let packed = self.file.fill_buf()?;
            let is_end = packed.is_empty();
            let done = inflate(&mut self.point.inflate, packed, out, MZFlush::None);
            let n = done.bytes_written;
            self.file.consume(done.bytes_consumed);
            self.point.input += done.bytes_consumed as u64;
            self.point.output += n as u64;
            if let Some(sum) = &mut self.sum {
                sum.update(&out[..n]);
            }
            match done.status {
                Ok(MZStatus::StreamEnd) => self.trailer()?,
                // There is neither input nor anything that is held back.
                Ok(_) | Err(MZError::Buf) if is_end && n == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(MZError::Buf) => {}
                Err(_) => return Err(damaged("it cannot be unpacked")),
            }
            if n > 0 {
                return Ok(n);
            }
        }
    }
}

/// A gzip file whose content can be read anywhere.
pub(super) struct Gzip {
    path: PathBuf,
    points: Vec<Point>,
    recent: Mutex<Vec<Point>>,
    max_recent: usize,
}

impl Gzip {
    /// The content from `offset` on, `out.len()` bytes of it.
    ///
    /// # Errors
    /// Where the file cannot be read, or has no such content any more.
    pub(super) fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        // Readers wait for each other: they mostly want what follows, and one of them unpacks it for all.
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let before = |point: &&Point| point.output <= offset;
        let fixed = self.points.iter().filter(before).max_by_key(|point| point.output);
        let last = (0..recent.len()).filter(|&i| recent[i].output <= offset).max_by_key(|&i| recent[i].output);
        let point = match (last, fixed) {
            (Some(i), fixed) if fixed.is_none_or(|fixed| fixed.output <= recent[i].output) => recent.remove(i),
            (_, Some(fixed)) => fixed.clone(),
            (_, None) => Point::start(),
        };
        let mut unpacker = Unpacker::new(&self.path, point, None)?;
        let skipped = offset - unpacker.point.output;
        io::copy(&mut (&mut unpacker).take(skipped), &mut io::sink())?;
        unpacker.read_exact(out)?;
        if recent.len() >= self.max_recent {
            recent.remove(0);
        }
        recent.push(unpacker.point);
        Ok(())
    }
}

/// The pass over a gzip file by which it becomes a [`Gzip`]. Gives its content.
pub(super) struct Pass {
    path: PathBuf,
    unpacker: Unpacker,
    points: Vec<Point>,
    max_points: usize,
    spacing: u64,
    /// The most bytes that are unpacked.
    limit: u64,
    /// What was wrong with the file, whatever its reader made of it.
    failure: Option<io::Error>,
}

impl Pass {
    /// Begins the pass over one of `among` files that are open together.
    ///
    /// # Errors
    /// Where the file cannot be opened.
    pub(super) fn open(path: &Path, among: usize) -> io::Result<Pass> {
        let limit = path.metadata()?.len().saturating_mul(MAX_RATIO).max(RATIO_FREE_BYTES);
        let unpacker = Unpacker::new(path, Point::start(), Some(Crc::new()))?;
        let max_points = (MAX_POINTS_OF_ALL / among.max(1)).clamp(4, MAX_POINTS);
        Ok(Pass {
            path: path.to_path_buf(),
            unpacker,
            points: Vec::new(),
            max_points,
            spacing: SPACING,
            limit,
            failure: None,
        })
    }

    /// Reads what is left, so that the whole file has been checked.
    ///
    /// # Errors
    /// As reading: [`io::ErrorKind::InvalidData`] and [`io::ErrorKind::UnexpectedEof`] where the file is damaged,
    /// [`io::ErrorKind::FileTooLarge`] where far more is in it than pictures ever become.
    pub(super) fn finish(mut self) -> io::Result<Gzip> {
        let rest = if self.failure.is_none() { io::copy(&mut self, &mut io::sink()).err() } else { None };
        if let Some(error) = self.failure.take().or(rest) {
            return Err(error);
        }
        let Pass { path, points, max_points, .. } = self;
        Ok(Gzip { path, points, recent: Mutex::new(Vec::new()), max_recent: max_points.min(MAX_RECENT) })
    }
}

impl Read for Pass {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = match self.unpacker.read(out) {
            Ok(_) if self.unpacker.point.output > self.limit => {
                Err(io::Error::new(io::ErrorKind::FileTooLarge, "unpacks to more than 200 times its size"))
            }
            read => read,
        };
        let n = match read {
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => {
                let kind = error.kind();
                self.failure = Some(error);
                return Err(kind.into());
            }
        };
        let point = &self.unpacker.point;
        if point.output >= self.points.last().map_or(0, |last| last.output) + self.spacing {
            if self.points.len() >= self.max_points {
                let mut number = 0;
                self.points.retain(|_| {
                    number += 1;
                    number % 2 == 1
                });
                self.spacing *= 2;
            }
            self.points.push(point.clone());
        }
        Ok(n)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    /// Bytes that are packed to about half, from a seed.
    fn content(n: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let mut byte = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 28) as u8
        };
        (0..n).map(|_| byte()).collect()
    }

    fn packed(content: &[u8]) -> Vec<u8> {
        let mut writer = GzEncoder::new(Vec::new(), Compression::fast());
        writer.write_all(content).unwrap();
        writer.finish().unwrap()
    }

    fn pass(bytes: &[u8]) -> io::Result<(tempfile::NamedTempFile, Vec<u8>, Gzip)> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let mut pass = Pass::open(file.path(), 1)?;
        let mut content = Vec::new();
        pass.read_to_end(&mut content)?;
        Ok((file, content, pass.finish()?))
    }

    #[test]
    fn what_lies_anywhere_is_read_in_any_order() {
        let whole = content(9 << 20);
        // Two members, the second with a name, and what other programs pass over.
        let (one, two) = whole.split_at(5 << 20);
        let mut named =
            flate2::GzBuilder::new().filename("x").comment("y").extra(*b"abc").buf_read(two, Compression::best());
        let mut bytes = packed(one);
        named.read_to_end(&mut bytes).unwrap();
        bytes.extend([0; 600]);
        let (_file, read, gzip) = pass(&bytes).unwrap();
        assert!(read == whole);
        assert!((15..=18).contains(&gzip.points.len()), "{}", gzip.points.len());
        // Forwards, backwards, across the members, and up to the end.
        let forwards = (0..200).map(|i| i * 40_000);
        let backwards = (0..20).map(|i| (9 << 20) - 70_000 - i * 400_000);
        for offset in forwards.chain(backwards).chain([(5 << 20) - 10, (9 << 20) - 5000, 0]) {
            let mut out = vec![0; 5000];
            gzip.read_at(offset as u64, &mut out).unwrap();
            assert!(out == whole[offset..offset + 5000], "{offset}");
        }
        assert!(gzip.recent.lock().unwrap().len() <= MAX_RECENT);
        let end = gzip.read_at((9 << 20) - 1, &mut [0; 2]).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn points_of_long_files_lie_further_apart() {
        let whole = vec![7; 140 << 20];
        let mut writer = GzEncoder::new(Vec::new(), Compression::none());
        writer.write_all(&whole).unwrap();
        let (_file, _, gzip) = pass(&writer.finish().unwrap()).unwrap();
        let apart: Vec<u64> = gzip.points.windows(2).map(|pair| pair[1].output - pair[0].output).collect();
        assert!((MAX_POINTS / 2..=MAX_POINTS).contains(&gzip.points.len()), "{}", gzip.points.len());
        assert!(apart.iter().all(|&apart| (2 * SPACING..2 * SPACING + (1 << 17)).contains(&apart)), "{apart:?}");
    }

    #[test]
    fn damage_is_an_error() {
        let whole = packed(&content(100_000));
        let why = |bytes: &[u8]| pass(bytes).map(|_| ()).unwrap_err();
        for cut in [1, 5, 12, whole.len() / 2, whole.len() - 9, whole.len() - 1] {
            assert_eq!(why(&whole[..cut]).kind(), io::ErrorKind::UnexpectedEof, "{cut}");
        }
        for at in [0, 2, 3, whole.len() - 1, whole.len() - 5, whole.len() / 2] {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x80;
            let kind = why(&bytes).kind();
            assert!(matches!(kind, io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof), "{at} {kind}");
        }
        // Zeros that pack to a thousandth.
        let bomb = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(bomb.path(), packed(&vec![0; 100 << 20])).unwrap();
        let why = Pass::open(bomb.path(), 1).unwrap().finish().err().unwrap();
        assert_eq!((why.kind(), why.to_string().contains("200 times")), (io::ErrorKind::FileTooLarge, true));
    }
}
