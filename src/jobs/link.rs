//! How fast ranks exchange what a training step makes, measured (`bench --link`), and what a run among several comes to by
//! that (`plan --ranks`).

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::Session;
use crate::progress::Progress;
use crate::ranks::Ranks;
use crate::train::exchange::Exchanged;
use crate::{Error, Result};

/// Sums of gradients that are exchanged, bytes: from a network of a few thousand parameters to ResNet-12 at full width.
const SIZES: [u64; 5] = [1 << 12, 1 << 16, 1 << 20, 1 << 23, 1 << 26];

/// Exchanges of each size; the median counts. Of one that takes longer than [`LONG`], seconds, only the first; larger ones
/// than that are left out.
const SAMPLES: usize = 7;
const LONG: f64 = 1.0;

/// Messages after each other in a step. Its exchanges are the shares of gradients with all the rest, the sums, and whether
/// the run goes on; each has a head and a body. An exchange of nothing is a head.
const MESSAGES: f64 = 6.0;

/// What was measured between ranks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkOutcome {
    /// The ranks.
    pub ranks: usize,
    /// Seconds of an exchange of nothing among all ranks.
    pub latency_s: f64,
    /// Bytes per second that a rank sends, and as many that it receives, of the largest exchange; by it `plan` goes.
    pub bytes_per_second: f64,
    /// Bytes per second from the device to this process, and back, on rank 0.
    pub device_bytes_per_second: [f64; 2],
    /// All-reduces of vectors of each size.
    pub all_reduce: Vec<AllReduce>,
}

/// An all-reduce as a step does it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AllReduce {
    /// Bytes of the vector that is summed.
    pub bytes: u64,
    /// Bytes that each rank sends for it.
    pub sent: u64,
    /// Median seconds, without the additions.
    pub seconds: f64,
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(0.0)
}

/// The seconds that all ranks take for what each does in `exchange`: the slowest rank's, the median of some.
fn timed(ranks: &Ranks, mut exchange: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut times = Vec::new();
    while times.len() < SAMPLES {
        ranks.all_gather(&[])?;
        let begun = Instant::now();
        exchange()?;
        let all = ranks.all_gather(&begun.elapsed().as_secs_f64().to_le_bytes())?;
        let seconds = all.iter().filter_map(|bytes| bytes.as_slice().try_into().ok().map(f64::from_le_bytes));
        times.push(seconds.fold(0.0, f64::max));
        if times.iter().sum::<f64>() > LONG {
            break;
        }
    }
    Ok(median(times))
}

/// Measures the link between the session's ranks; all of them call it. The outcome is the same on all but for the device.
///
/// # Errors
/// [`Error::Usage`] where there is one rank only; [`Error::Ranks`] when one cannot be reached; what the device refuses.
pub fn measure(session: &Session, progress: &mut dyn Progress) -> Result<LinkOutcome> {
    let Some(ranks) = &session.ranks else {
        return Err(Error::usage(
            "there is no link to measure: start several ranks (`mpirun -n 2 ieq-wgpu bench` ...)",
        ));
    };
    let size = ranks.size() as u64;
    let latency_s = timed(ranks, || ranks.all_gather(&[]).map(drop))?;
    let mut all_reduce: Vec<AllReduce> = Vec::new();
    for bytes in SIZES {
        progress.note(&format!("an all-reduce of {bytes} bytes among {size} ranks"));
        let piece = vec![0_u8; bytes.div_ceil(size) as usize];
        let seconds = timed(ranks, || {
            ranks.all_gather(&piece)?;
            ranks.all_gather(&piece).map(drop)
        })?;
        all_reduce.push(AllReduce { bytes, sent: 2 * piece.len() as u64 * (size - 1), seconds });
        if seconds > LONG {
            break;
        }
    }
    let device_bytes_per_second = device(session, progress)?;
    // Two exchanges of a head and a body.
    let per_second = |it: &AllReduce| it.sent as f64 / (it.seconds - 4.0 * latency_s).max(1e-9);
    let bytes_per_second = all_reduce.last().map_or(0.0, per_second);
    Ok(LinkOutcome { ranks: ranks.size(), latency_s, bytes_per_second, device_bytes_per_second, all_reduce })
}

/// Bytes per second from the session's device and to it.
fn device(session: &Session, progress: &mut dyn Progress) -> Result<[f64; 2]> {
    let kernels = session.open(crate::settings::Tune::Off, progress)?;
    let (gpu, words) = (kernels.gpu(), vec![0_u32; 1 << 22]);
    let bytes = size_of_val(words.as_slice()) as u64;
    let buffer = gpu.buffer("transfers", bytes)?;
    let (mut reads, mut writes) = (Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        let begun = Instant::now();
        gpu.write(&buffer, 0, &words)?;
        gpu.wait()?;
        writes.push(begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        gpu.read::<u32>(&buffer, 0, words.len())?;
        reads.push(begun.elapsed().as_secs_f64());
    }
    Ok([reads, writes].map(|times| bytes as f64 / median(times).max(1e-9)))
}

/// What is known of a run that several ranks are to share.
#[derive(Clone, Debug, PartialEq)]
pub struct Sharing {
    /// Their number.
    pub ranks: usize,
    /// The document of `bench --link --json`; none: no times.
    pub link: Option<PathBuf>,
    /// Images per second of one process, as a run's log has them; none: no times.
    pub images_per_second: Option<f64>,
}

/// What a run among several ranks comes to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shared {
    /// The ranks.
    pub ranks: usize,
    /// Micro-batches that each computes of a batch.
    pub parts_per_rank: usize,
    /// Bytes on a rank's device for the exchange, beside what a single process has there.
    pub exchange_bytes: u64,
    /// Bytes of the pictures, which every rank keeps in its process's memory, also beside others of its machine.
    pub pictures_bytes: u64,
    /// Bytes that a rank sends in a step, and as many that it receives: what its link carries in each direction.
    pub sent_bytes: u64,
    /// Seconds of the exchange of a step.
    pub exchange_s: Option<f64>,
    /// Seconds of a step.
    pub step_s: Option<f64>,
    /// How many times as fast as one process.
    pub speed_up: Option<f64>,
}

/// A measured link from the document of `bench --link --json`.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read, [`Error::Data`] when it is no such document.
pub fn read(path: &Path) -> Result<LinkOutcome> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, "cannot read the measured link", e))?;
    let wrong = |why: &str| {
        Error::data(path, format!("this is no document of `bench --link --json` ({why}): measure one, and name it"))
    };
    let link: LinkOutcome = serde_json::from_str(&text).map_err(|e| wrong(&e.to_string()))?;
    let [read, write] = link.device_bytes_per_second;
    match [link.bytes_per_second, read, write].iter().all(|speed| *speed > 0.0) && link.latency_s >= 0.0 {
        true => Ok(link),
        false => Err(wrong("a speed in it is not above 0")),
    }
}

impl Sharing {
    /// What a step of `batch` images in `parts` micro-batches comes to, each of which makes `made` for the others, where
    /// the pictures are so many bytes.
    ///
    /// # Errors
    /// As [`read`].
    pub(super) fn plan(&self, batch: usize, parts: usize, made: Exchanged, pictures: u64) -> Result<Shared> {
        let parts_per_rank = parts / self.ranks.max(1);
        let sent_bytes = made.sent(parts_per_rank, self.ranks);
        let link = self.link.as_deref().map(read).transpose()?;
        let exchange_s = link.map(|link| {
            let [read, write] = link.device_bytes_per_second;
            let own = (parts_per_rank as u64 * (made.gradients + made.rest) + made.piece(self.ranks)) as f64;
            let all = (parts as u64 * (made.piece(self.ranks) + made.rest) + made.gradients) as f64;
            MESSAGES * link.latency_s + sent_bytes as f64 / link.bytes_per_second.max(1.0) + own / read + all / write
        });
        let alone_s = self.images_per_second.map(|images| batch as f64 / images.max(1e-9));
        let step_s = exchange_s.zip(alone_s).map(|(exchange, alone)| alone / self.ranks as f64 + exchange);
        Ok(Shared {
            ranks: self.ranks,
            parts_per_rank,
            exchange_bytes: made.held(self.ranks),
            pictures_bytes: pictures,
            sent_bytes,
            exchange_s,
            step_s,
            speed_up: alone_s.zip(step_s).map(|(alone, step)| alone / step),
        })
    }
}
