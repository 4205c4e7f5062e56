//! After a restart: broadcasts that a former process left go on.
//!
//! There is no database. What the folder says is believed as far as it is what we would have written; the newest
//! broadcast of a stream, if its playlists have not ended, waits for its publisher as after a broken connection, and older
//! ones are ended. What left a playlist and was not yet deleted is deleted after its time.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::Instant;

use super::Context;
use super::auth::Credential;
use super::broadcast::{self, Broadcast};
use super::folder::{self, StreamFolder};
use super::governor::Ended;
use super::stop::Stop;
use crate::action::{BroadcastId, StreamName};
use crate::hls::{Found, MOST_PLAYLIST_BYTES, Object, Resumed};

/// What is read of a header or a segment, in bytes: more than the boxes at its beginning have.
const MOST_BOX_BYTES: u64 = 1 << 20;

/// What was found of a stream.
struct Left {
    name: StreamName,
    /// Waits for its publisher.
    open: Option<Resumed>,
    /// Has to be ended, or had ended and has files whose time will be over.
    ending: Vec<Resumed>,
    /// Had ended so long ago.
    ended: Vec<(Resumed, Duration)>,
}

/// Sweeps the folder, and lets the broadcasts in it go on as tasks of their own.
pub(super) async fn recover(out: Arc<Path>, context: &Arc<Context>, tasks: &mut JoinSet<()>, stop: &Stop) {
    let found = spawn_blocking(move || {
        let streams = folder::streams(&out);
        let last = streams.iter().filter_map(|stream| stream.broadcasts.last()).max().copied();
        let left: Vec<_> = streams.into_iter().map(|stream| examine(stream, &out)).collect();
        (last, left)
    });
    // An error is a panic, which has been reported: then nothing goes on, and broadcasts begin anew.
    let Ok((last, left)) = found.await else { return };
    if let Some(last) = last {
        context.have_begun(last);
    }
    let now = Instant::now();
    for Left { name, open, ending, ended } in left {
        if let Some(resumed) = open
            && let Ok((claim, None)) = context.registry.claim(&name, Credential::None)
        {
            tracing::info!(stream = %name, "waiting for its publisher to go on after segment {}", resumed.next_segment());
            let broadcast = Broadcast::resume(name.clone(), &resumed, context);
            tasks.spawn(broadcast::keep(broadcast, claim, context.grace, stop.clone()));
        }
        for resumed in ending {
            let broadcast = Broadcast::resume(name.clone(), &resumed, context);
            tasks.spawn(broadcast::close_and_linger(broadcast, stop.clone()));
        }
        for (resumed, ago) in ended {
            let at = now.checked_sub(ago).unwrap_or(now);
            let (broadcast, lifetime) = (resumed.broadcast(), resumed.lifetime());
            context.governor.note(Ended { name: name.clone(), broadcast, lifetime, at });
        }
    }
}

fn examine(stream: StreamFolder, out: &Path) -> Left {
    folder::sweep(&stream);
    let mut left = Left { name: stream.name, open: None, ending: Vec::new(), ended: Vec::new() };
    for broadcast in stream.broadcasts {
        let path = stream.path.join(broadcast.to_string());
        match read(broadcast, &path) {
            Ok(Found::Broadcast(resumed)) => {
                // Whatever was open before it is over.
                left.ending.extend(left.open.take());
                if !resumed.is_ending() {
                    left.open = Some(resumed);
                } else if resumed.is_unfinished() {
                    left.ending.push(resumed);
                } else {
                    // A clock that was wrong then or is now counts as no time.
                    let ago = folder::last_change(&path).and_then(|at| at.elapsed().ok()).unwrap_or_default();
                    left.ended.push((resumed, ago));
                }
            }
            // Nobody has ever seen it.
            Ok(Found::Nothing) => folder::remove_broadcast(&path, out),
            Err(error) => {
                tracing::warn!(stream = %left.name, "{broadcast} is left as it is: {error}");
            }
        }
    }
    left
}

fn read(broadcast: BroadcastId, path: &Path) -> Result<Found, crate::hls::Unreadable> {
    Resumed::read(broadcast, &folder::objects(path), |object| {
        let path = path.join(object.to_string());
        match object {
            Object::Playlist(_) => folder::read_file(&path, MOST_PLAYLIST_BYTES).filter(|text| !text.is_empty()),
            Object::Header(..) | Object::Segment(..) => folder::read_file(&path, MOST_BOX_BYTES),
        }
    })
}
