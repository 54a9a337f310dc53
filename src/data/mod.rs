//! Data sets: reading the field's formats into host memory, splitting classes, ordering epochs, and
//! sampling episodes.
//!
//! Every random choice is a pure function of (seed, epoch or episode index): nothing here keeps generator state. There
//! is one file per format; `load` tells formats apart by content and layout.

#[cfg(feature = "formats")]
pub mod ahead;
#[cfg(feature = "formats")]
mod archive;
#[cfg(feature = "formats")]
mod array_files;
#[cfg(feature = "formats")]
mod arrays;
#[cfg(feature = "formats")]
mod braces;
#[cfg(feature = "formats")]
mod choose;
#[cfg(feature = "formats")]
pub mod convert;
#[cfg(feature = "formats")]
mod decode;
#[cfg(feature = "formats")]
pub mod embeddings;
mod episodes;
#[cfg(feature = "formats")]
mod glyphs;
#[cfg(feature = "formats")]
mod gzip;
#[cfg(feature = "formats")]
mod idx;
#[cfg(feature = "formats")]
mod image_folder;
#[cfg_attr(not(feature = "formats"), allow(dead_code, reason = "readers use all of it"))]
mod image_set;
#[cfg(feature = "formats")]
mod index;
#[cfg(feature = "formats")]
mod kind;
#[cfg(feature = "formats")]
mod labels;
#[cfg(feature = "formats")]
mod left_out;
#[cfg(feature = "formats")]
mod listing;
#[cfg(feature = "formats")]
mod load;
#[cfg(feature = "formats")]
mod look;
#[cfg(feature = "formats")]
mod npz;
mod official;
#[cfg(feature = "formats")]
mod oneshot;
#[cfg(feature = "formats")]
mod options;
mod order;
#[cfg(feature = "formats")]
mod parts;
#[cfg(feature = "formats")]
mod pickle;
#[cfg(feature = "formats")]
mod pictures;
mod places;
#[cfg(feature = "formats")]
mod selection;
#[cfg(feature = "formats")]
pub mod sheet;
#[cfg(feature = "formats")]
mod source;
#[cfg_attr(not(feature = "formats"), allow(dead_code, reason = "readers use all of it"))]
mod split;
#[cfg(feature = "resize")]
mod square;
mod statistics;
#[cfg(feature = "formats")]
mod table;
#[cfg(feature = "formats")]
mod tar_archive;
#[cfg(feature = "formats")]
mod text;
#[cfg(feature = "formats")]
pub(crate) mod unpickle;
#[cfg(feature = "formats")]
mod webdataset;
#[cfg(feature = "formats")]
pub(crate) mod zip_archive;

#[cfg(feature = "formats")]
pub use braces::braces;
#[cfg(feature = "formats")]
pub use decode::decode_rgb;
pub use episodes::{Episode, draw, read_episodes, room, shortage};
#[cfg(feature = "formats")]
pub use glyphs::{GLYPH_CLASSES, GLYPH_INSTANCES, GLYPH_SIDE};
pub use image_set::{ImageSet, Warning, WarningKind};
#[cfg(feature = "formats")]
pub use left_out::LeftOut;
#[cfg(feature = "formats")]
pub use listing::is_image_name;
#[cfg(feature = "formats")]
pub use load::{Finder, load, load_unlabelled, sample_unlabelled};
#[cfg(feature = "formats")]
pub use look::Look;
pub use official::official;
#[cfg(feature = "formats")]
pub use oneshot::{OneShotRun, read_oneshot_runs};
#[cfg(feature = "formats")]
pub use options::DataOptions;
pub use order::epoch_order;
#[cfg(feature = "formats")]
pub use pictures::Pictures;
pub use places::Places;
pub use split::{Split, class_split};
#[cfg(feature = "resize")]
pub use square::{fitted_side, square_words};
pub use statistics::Statistics;
#[cfg(feature = "jobs")]
pub(crate) use tar_archive::stem as tar_stem;
#[cfg(feature = "jobs")]
pub(crate) use webdataset::split_of_shard;
