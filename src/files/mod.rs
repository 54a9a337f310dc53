//! Files that the program writes: their replacement in one step, and the run folder.

pub mod replace;
pub mod run_folder;

pub use replace::replace_file;
