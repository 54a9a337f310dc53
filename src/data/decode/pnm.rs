//! Netpbm: P1 to P6 and P7 (PAM), with any largest value.

use image::RgbImage;

use super::{MAX_DECODE_BYTES, Refusal, check_size};

type Result<T> = std::result::Result<T, Refusal>;

/// What the header says.
struct Header {
    width: u32,
    height: u32,
    channels: usize,
    largest: u32,
    /// Numbers are written out.
    plain: bool,
    /// One bit per pixel, and one is black.
    bitmap: bool,
}

/// Decodes to RGB; alpha is dropped.
pub(super) fn decode(bytes: &[u8]) -> Result<RgbImage> {
    let mut reader = Reader { bytes, pos: 2 };
    let header = match bytes[1] {
        b'7' => reader.pam_header()?,
        digit => reader.header(digit)?,
    };
    check_size(header.width, header.height)?;
    let per_row = header.width as usize * header.channels;
    let n = per_row * header.height as usize;
    if n as u64 > MAX_DECODE_BYTES {
        return Err(Refusal::TooLarge(header.width, header.height));
    }
    // To the nearest, halves to even, as Pillow rounds.
    let scale = |value: u32| {
        let (value, largest) = (value.min(header.largest) * 255, header.largest);
        let (whole, rest) = (value / largest, value % largest * 2);
        (whole + u32::from(rest > largest || (rest == largest && whole % 2 == 1))) as u8
    };
    let mut samples = Vec::with_capacity(n);
    if header.plain {
        for _ in 0..n {
            // Bits may stand without space between them.
            let value = if header.bitmap { 1 - reader.plain_bit()? } else { reader.number()? };
            samples.push(scale(value));
        }
    } else {
        let body = &bytes[reader.pos.min(bytes.len())..];
        let row_bytes = match (header.bitmap, header.largest) {
            (true, _) => per_row.div_ceil(8),
            (_, ..=255) => per_row,
            _ => per_row * 2,
        };
        let rows = body.get(..row_bytes * header.height as usize).ok_or_else(Refusal::early)?;
        for row in rows.chunks_exact(row_bytes) {
            match (header.bitmap, header.largest) {
                (true, _) => {
                    samples.extend((0..per_row).map(|x| if row[x / 8] >> (7 - x % 8) & 1 == 0 { 255 } else { 0 }))
                }
                (_, 255) => samples.extend_from_slice(row),
                (_, ..=254) => samples.extend(row.iter().map(|&value| scale(value.into()))),
                _ => {
                    samples.extend(row.chunks_exact(2).map(|pair| scale(u16::from_be_bytes([pair[0], pair[1]]).into())))
                }
            }
        }
    }
    let pixels = match header.channels {
        3 => samples,
        1 | 2 => samples.iter().step_by(header.channels).flat_map(|&y| [y; 3]).collect(),
        channels => samples.chunks_exact(channels).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect(),
    };
    RgbImage::from_raw(header.width, header.height, pixels).ok_or_else(Refusal::early)
}

struct Reader<'a> {
    bytes: &'a [u8],
    pos: usize,
}

impl Reader<'_> {
    /// Passes over white space and comments.
    fn blank(&mut self) -> Result<u8> {
        loop {
            match self.bytes.get(self.pos) {
                Some(b'#') => {
                    let rest = &self.bytes[self.pos..];
                    self.pos += rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(rest.len());
                }
                Some(byte) if byte.is_ascii_whitespace() || *byte == 0x0b => self.pos += 1,
                Some(&byte) => return Ok(byte),
                None => return Err(Refusal::early()),
            }
        }
    }

    fn number(&mut self) -> Result<u32> {
        self.blank()?;
        let start = self.pos;
        let mut value = 0u32;
        while let Some(digit) = self.bytes.get(self.pos).filter(|byte| byte.is_ascii_digit()) {
            value = value
                .checked_mul(10)
                .and_then(|value| value.checked_add(u32::from(digit - b'0')))
                .ok_or_else(|| Refusal::broken("a number in it is too large"))?;
            self.pos += 1;
        }
        if self.pos == start { Err(Refusal::broken("it has text where a number belongs")) } else { Ok(value) }
    }

    fn plain_bit(&mut self) -> Result<u32> {
        let byte = self.blank()?;
        self.pos += 1;
        match byte {
            b'0' => Ok(0),
            b'1' => Ok(1),
            _ => Err(Refusal::broken("it has text where a 0 or 1 belongs")),
        }
    }

    fn header(&mut self, digit: u8) -> Result<Header> {
        let (width, height) = (self.number()?, self.number()?);
        let bitmap = matches!(digit, b'1' | b'4');
        let largest = if bitmap { 1 } else { self.number()? };
        let plain = digit <= b'3';
        if !plain {
            // One white space, and then the pixels.
            self.pos += 1;
        }
        let channels = if matches!(digit, b'3' | b'6') { 3 } else { 1 };
        check_largest(largest)?;
        Ok(Header { width, height, channels, largest, plain, bitmap })
    }

    fn pam_header(&mut self) -> Result<Header> {
        let mut header = Header { width: 0, height: 0, channels: 0, largest: 0, plain: false, bitmap: false };
        loop {
            self.blank()?;
            let rest = &self.bytes[self.pos..];
            let end = rest.iter().position(|&byte| byte == b'\n').ok_or_else(Refusal::early)?;
            let line = String::from_utf8_lossy(&rest[..end]);
            self.pos += end + 1;
            let (key, value) = line.trim().split_once(char::is_whitespace).unwrap_or((line.trim(), ""));
            let number = || value.trim().parse().map_err(|_| Refusal::broken("its header is damaged"));
            match key {
                "ENDHDR" => break,
                "WIDTH" => header.width = number()?,
                "HEIGHT" => header.height = number()?,
                "DEPTH" => header.channels = number()? as usize,
                "MAXVAL" => header.largest = number()?,
                _ => {}
            }
        }
        check_largest(header.largest)?;
        if !(1..=4).contains(&header.channels) {
            return Err(Refusal::kind("is a PAM picture with other than 1 to 4 channels"));
        }
        Ok(header)
    }
}

fn check_largest(largest: u32) -> Result<()> {
    if (1..=65_535).contains(&largest) {
        Ok(())
    } else {
        Err(Refusal::broken("its largest value is not from 1 to 65535"))
    }
}
