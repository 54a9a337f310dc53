//! How fast ranks exchange what a training step makes, measured (`bench --link`), and what a run among several comes to by
//! that (`plan --ranks`).

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Session;
use crate::progress::Progress;
use crate::ranks::Ranks;
use crate::settings::{Matrix, Tune};
use crate::train::exchange::Exchanged;
use crate::{Error, Result};

/// Sums of gradients that are exchanged, bytes: from a network of a few thousand parameters to ResNet-12 at full width.
const SIZES: [u64; 5] = [1 << 12, 1 << 16, 1 << 20, 1 << 23, 1 << 26];

/// Exchanges of each size; the median counts. Of one that takes longer than [`LONG`], seconds, only the first; larger ones
/// than that are left out.
const SAMPLES: usize = 7;
const LONG: f64 = 1.0;

/// What a step computes between two exchanges: after so long TCP begins slowly again. It begins a new time at 0.2 s.
const COMPUTING: Duration = Duration::from_millis(250);

/// What was measured between ranks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkOutcome {
    /// The ranks.
    pub ranks: usize,
    /// Seconds of an exchange of nothing among all ranks.
    pub latency_s: f64,
    /// Bytes per second that a rank sends, and as many that it receives, of the largest all-reduce.
    pub bytes_per_second: f64,
    /// Bytes per second from the device to this process, and back, on rank 0.
    pub device_bytes_per_second: [f64; 2],
    /// Whether rank 0's device is a program on the processor. Then what is exchanged meanwhile takes time from it.
    pub software_adapter: bool,
    /// All-reduces of vectors of each size, from the smallest to the largest, each after a pause as long as computing.
    pub all_reduce: Vec<AllReduce>,
}

impl LinkOutcome {
    /// Seconds of an exchange in which each rank sends so many bytes: in proportion between the sizes that were measured, and
    /// as fast as the largest beyond it.
    pub fn seconds(&self, sent: u64) -> f64 {
        // An all-reduce is two exchanges of one size.
        let sent = 2.0 * sent as f64;
        let mut below = (0.0, 2.0 * self.latency_s);
        for it in &self.all_reduce {
            let (most, seconds) = (it.sent as f64, it.seconds);
            if sent <= most {
                return 0.5 * (below.1 + (seconds - below.1) * (sent - below.0) / (most - below.0));
            }
            below = (most, seconds);
        }
        0.5 * below.1 * sent / below.0.max(1.0)
    }
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
        std::thread::sleep(COMPUTING);
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
    let (device_bytes_per_second, software_adapter) = device(session, progress)?;
    // Two exchanges of a head and a body.
    let per_second = |it: &AllReduce| it.sent as f64 / (it.seconds - 4.0 * latency_s).max(1e-9);
    let bytes_per_second = all_reduce.last().map_or(0.0, per_second);
    Ok(LinkOutcome {
        ranks: ranks.size(),
        latency_s,
        bytes_per_second,
        device_bytes_per_second,
        software_adapter,
        all_reduce,
    })
}

/// Bytes per second from the session's device and to it, and whether it is a program.
fn device(session: &Session, progress: &mut dyn Progress) -> Result<([f64; 2], bool)> {
    let kernels = session.open(Tune::Off, Matrix::Off, progress)?;
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
    Ok(([reads, writes].map(|times| bytes as f64 / median(times).max(1e-9)), gpu.is_software()))
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
    /// Seconds of the exchanges of a step.
    pub exchange_s: Option<f64>,
    /// Those of them in which the device computes.
    pub overlapped_s: Option<f64>,
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
    let begin = AllReduce { bytes: 0, sent: 0, seconds: 0.0 };
    let sizes = [&begin].into_iter().chain(&link.all_reduce).zip(&link.all_reduce);
    let rising = sizes.fold(true, |rising, (a, b)| rising && a.sent < b.sent && b.seconds > 0.0);
    match [link.bytes_per_second, read, write].iter().all(|speed| *speed > 0.0) && link.latency_s >= 0.0 {
        false => Err(wrong("a speed in it is not above 0")),
        true if !rising || link.all_reduce.is_empty() => Err(wrong("it has no all-reduces, or not in order of size")),
        true => Ok(link),
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
        let alone_s = self.images_per_second.map(|images| batch as f64 / images.max(1e-9));
        // Of a micro-batch of each rank.
        let others = (self.ranks as u64).saturating_sub(1);
        let one_s = link.as_ref().map(|link| link.seconds(others * (made.piece(self.ranks) + made.rest)));
        let exchange_s = link.as_ref().zip(one_s).map(|(link, one)| {
            let [read, write] = link.device_bytes_per_second;
            let own = (parts_per_rank as u64 * (made.gradients + made.rest) + made.piece(self.ranks)) as f64;
            let all = (parts as u64 * (made.piece(self.ranks) + made.rest) + made.gradients) as f64;
            // The last is whether the run goes on: a head and a body.
            let rest = link.seconds(others * made.piece(self.ranks)) + 2.0 * link.latency_s;
            let (bytes, times) = (made.joined, made.joins);
            // Of each batch norm, forward and backward, those of all micro-batches of a rank at once.
            let join = link.seconds(others * parts_per_rank as u64 * bytes / times.max(1));
            parts_per_rank as f64 * one + rest + own / read + all / write + times as f64 * join
        });
        let overlapped_s =
            link.zip(one_s).zip(alone_s).map(|((link, one), alone)| match link.software_adapter || made.joins > 0 {
                // Where statistics are joined, all micro-batches are done at once.
                true => 0.0,
                false => parts_per_rank.saturating_sub(1) as f64 * one.min(alone / parts.max(1) as f64),
            });
        let step_s = exchange_s.zip(overlapped_s).zip(alone_s);
        let step_s = step_s.map(|((exchange, overlapped), alone)| alone / self.ranks as f64 + exchange - overlapped);
        Ok(Shared {
            ranks: self.ranks,
            parts_per_rank,
            exchange_bytes: made.held(self.ranks),
            pictures_bytes: pictures,
            sent_bytes,
            exchange_s,
            overlapped_s,
            step_s,
            speed_up: alone_s.zip(step_s).map(|(alone, step)| alone / step),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    /// 1 ms for nothing; sizes of which the larger ones are slower than they would be in proportion.
    fn measured() -> LinkOutcome {
        let all_reduce = [(1 << 20, 0.012), (1 << 23, 0.132)];
        LinkOutcome {
            ranks: 2,
            latency_s: 0.001,
            bytes_per_second: 6.4e7,
            device_bytes_per_second: [1e9, 2e9],
            software_adapter: false,
            all_reduce: all_reduce.map(|(bytes, seconds)| AllReduce { bytes, sent: bytes, seconds }).to_vec(),
        }
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-12
    }

    #[test]
    fn an_exchange_is_interpolated_between_the_measured_sizes() {
        let link = measured();
        // Half an all-reduce: of 1 MiB 6 ms, of 8 MiB 66 ms.
        for (sent, seconds) in
            [(0, 0.001), (1 << 18, 0.0035), (1 << 19, 0.006), (9 << 18, 0.036), (1 << 22, 0.066), (1 << 23, 0.132)]
        {
            assert!(close(link.seconds(sent), seconds), "{sent}: {}", link.seconds(sent));
        }
    }

    #[test]
    fn a_plan_counts_each_exchange_by_its_size_and_those_behind_computing_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("link.json");
        // 2 ranks, 8 micro-batches: 4 exchanges of half of 2 MiB less 64 KiB and these, and one of that half.
        let mut made = Exchanged { gradients: (1 << 21) - (1 << 17), rest: 1 << 16, joined: 0, joins: 0 };
        let plan = |link: &LinkOutcome, images_per_second: f64, made: Exchanged| {
            std::fs::write(&file, serde_json::to_vec(link).unwrap()).unwrap();
            let (link, images_per_second) = (Some(file.clone()), Some(images_per_second));
            Sharing { ranks: 2, link, images_per_second }.plan(16, 8, made, 0).unwrap()
        };
        let mut link = measured();
        let (one, sums) = (link.seconds(1 << 20), link.seconds((1 << 20) - (1 << 16)));
        let (read, written) = (4 * ((1 << 21) - (1 << 16)) + (1 << 20) - (1 << 16), (8 << 20) + (1 << 21) - (1 << 17));
        let exchange = 4.0 * one + sums + 0.002 + f64::from(read) / 1e9 + f64::from(written) / 2e9;
        // Micro-batches of 0.1 s are longer than an exchange, those of 1 ms are not.
        for (images_per_second, alone, overlapped) in [(20.0, 0.8, 3.0 * one), (2000.0, 0.008, 0.003)] {
            let shared = plan(&link, images_per_second, made);
            assert!(close(shared.exchange_s.unwrap(), exchange), "{shared:?} {exchange}");
            assert!(close(shared.overlapped_s.unwrap(), overlapped), "{shared:?} {overlapped}");
            assert!(close(shared.step_s.unwrap(), alone / 2.0 + exchange - overlapped), "{shared:?}");
            assert!(close(shared.speed_up.unwrap(), alone / shared.step_s.unwrap()), "{shared:?}");
        }
        // A program computes with what exchanges, and neither is hidden behind the other.
        link.software_adapter = true;
        let shared = plan(&link, 20.0, made);
        assert!(close(shared.step_s.unwrap(), 0.4 + exchange), "{shared:?}");
        // Two joined statistics of 128 KiB a micro-batch, of the four of a rank at once; nothing is hidden behind them.
        link.software_adapter = false;
        (made.joined, made.joins) = (1 << 18, 2);
        let (joined, sent) = (plan(&link, 20.0, made), shared.sent_bytes);
        assert_eq!(joined.sent_bytes, sent + 4 * (1 << 18));
        assert!(close(joined.step_s.unwrap(), 0.4 + exchange + 2.0 * link.seconds(1 << 19)), "{joined:?}");
        link.all_reduce.reverse();
        std::fs::write(&file, serde_json::to_vec(&link).unwrap()).unwrap();
        assert!(read_error(&file).contains("not in order of size"));
        link.all_reduce.clear();
        std::fs::write(&file, serde_json::to_vec(&link).unwrap()).unwrap();
        assert!(read_error(&file).contains("it has no all-reduces"));
    }

    fn read_error(file: &Path) -> String {
        read(file).unwrap_err().to_string()
    }
}
