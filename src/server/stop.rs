//! The word to stop, from one to all.

use tokio::sync::watch;

/// Hears when everything has to stop.
#[derive(Debug, Clone)]
pub(super) struct Stop(watch::Receiver<bool>);

/// Says when everything has to stop; dropping it says so too.
#[derive(Debug)]
pub(super) struct Stopper(watch::Sender<bool>);

/// A speaker and its first hearer.
pub(super) fn stop() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(false);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    /// Stops all hearers.
    pub(super) fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Waits for the word. Cancel safe.
    pub(super) async fn said(&mut self) {
        // An error means that the speaker is gone, which is the same word.
        let _ = self.0.wait_for(|stopped| *stopped).await;
    }
}
