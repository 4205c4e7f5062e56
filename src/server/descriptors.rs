//! File descriptors: what the system gives us, and for how many connections that is enough.
//!
//! Whoever runs out of them cannot open the files of those who publish already. So newcomers are turned away before.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the program holds for itself, and files that are open for a moment.
const OWN: u64 = 16;
/// What a publisher needs: a socket, and a file for each of two tracks.
const PER_CONNECTION: u64 = 3;

/// Asks the system for as many as it gives, and says how many connections they are enough for.
pub(super) fn most_connections() -> usize {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // If it refuses, what there was is still there.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(connections(descriptors)).unwrap_or(usize::MAX)
}

fn connections(descriptors: u64) -> u64 {
    (descriptors.saturating_sub(OWN) / PER_CONNECTION).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_connections_need_never_exceeds_what_there_is() {
        assert_eq!([0, 17, 48, 1024, u64::MAX].map(connections), [1, 1, 10, 336, (u64::MAX - 16) / 3]);
        for descriptors in 20..5000 {
            assert!(connections(descriptors) * PER_CONNECTION + OWN <= descriptors);
        }
        assert!(most_connections() > 0);
    }
}
