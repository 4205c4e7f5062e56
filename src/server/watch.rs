//! Files of the operator's that are read again when they change: stream keys, certificates.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tokio::task::spawn_blocking;
use tokio::time::sleep;

/// How often it is looked whether a file has changed.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Calls `read_again` each time one of `files` has changed, for ever. What it fails with is logged, and what was read
/// before stays in force.
pub(super) async fn watch<F>(files: Vec<PathBuf>, read_again: F)
where
    F: Fn() -> anyhow::Result<String> + Clone + Send + 'static,
{
    let mut before = looks(files.clone()).await;
    loop {
        sleep(LOOK_EVERY).await;
        let now = looks(files.clone()).await;
        if now == before {
            continue;
        }
        before = now;
        let read_again = read_again.clone();
        match spawn_blocking(read_again).await {
            Ok(Ok(said)) => tracing::info!("{said}"),
            Ok(Err(error)) => tracing::error!("failed to {error:#}; what was read before stays in force"),
            Err(error) => tracing::error!("reading a changed file failed: {error}"),
        }
    }
}

/// What tells that a file is another one than before.
#[derive(Debug, PartialEq, Eq)]
struct Look {
    modified: Option<SystemTime>,
    bytes: u64,
    inode: u64,
}

async fn looks(files: Vec<PathBuf>) -> Vec<Option<Look>> {
    let look = |path: PathBuf| -> io::Result<Look> {
        use std::os::unix::fs::MetadataExt as _;
        let metadata = fs::metadata(path)?;
        Ok(Look { modified: metadata.modified().ok(), bytes: metadata.len(), inode: metadata.ino() })
    };
    let looked = spawn_blocking(move || files.into_iter().map(|file| look(file).ok()).collect());
    looked.await.unwrap_or_default()
}
