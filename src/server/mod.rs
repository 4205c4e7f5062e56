//! The shell: the only folder that touches sockets, files and clocks.
//!
//! ```text
//!   listener ─one task a connection→ publisher ─tags→ broadcast (Packager) ─actions→ writer ─batches→ store (disk)
//!       │ gate (limits), tls                │ claims the name                                     ↑ reads
//!                                     door (auth), registry                                  http
//! ```
//!
//! A publisher's task owns everything of its broadcast: the machines, the queue of actions, the claim of the name. When
//! the connection breaks, the same task keeps the broadcast open for the publisher's return, and hands it over to the
//! task of the connection that comes back. Publishers' tasks run on the work queue, where each may block:
//! nothing waits for anybody else, and a stalled disk stops the reading of the socket of that publisher alone.

#![expect(
    clippy::disallowed_methods,
    reason = "the shell reads the clock and touches files, so that nothing else has to"
)]

pub mod auth;
mod beat;
mod broadcast;
mod clock;
pub mod demo;
mod descriptors;
mod ending;
mod folder;
mod governor;
mod http;
mod landing;
mod limits;
mod listener;
mod publisher;
mod recovery;
mod registry;
mod service;
mod socket;
mod stalled;
mod stop;
mod store;
mod tempo;
#[cfg(test)]
mod tests;
mod tls;
mod undeleted;
mod watch;
mod wire;
mod work_queue;
mod writer;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::auth::Door;
use self::broadcast::Broadcast;
use self::clock::Clock;
use self::governor::Governor;
use self::limits::{Gate, Limits};
use self::registry::Registry;
use self::service::{Inherited, Manager};
use self::socket::Rhythm;
use self::store::{DiskStore, Durability, MakeStore};
use self::tls::Identity;
use self::work_queue::WorkQueue;
use crate::action::BroadcastId;
use crate::config::{self, AtStop, Config};
use crate::hls;
use crate::media::Moment;
use crate::packager::Settings;

/// How long the stop may wait for the callback to hear of the ends.
const LAST_NEWS_WITHIN: Duration = Duration::from_millis(500);
/// How long the stop may wait for what stores are at work on.
const LAST_WORK_WITHIN: Duration = Duration::from_millis(500);

/// Listens, and knows its addresses; [`run`](Self::run) makes it work.
#[derive(Debug)]
pub struct Server {
    rtmp: TcpListener,
    rtmps: Option<(TcpListener, Arc<Identity>)>,
    http: Option<TcpListener>,
    door: Door,
    /// Nobody else writes to the output folder.
    lock: folder::Lock,
    config: Config,
}

/// What to do when a port is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenTaken {
    /// It is an error.
    Fail,
    /// Try the ports after it.
    TakeNext,
}

impl Server {
    /// Makes and locks the output folder, and takes the ports: those that a service manager holds for us, or our own.
    ///
    /// # Errors
    /// The folder cannot be made, another process writes to it, or a port cannot be had.
    pub fn bind(config: &Config, rtmp_taken: WhenTaken, http_taken: WhenTaken) -> anyhow::Result<Self> {
        let out = &config.out.0;
        fs::create_dir_all(out).with_context(|| format!("make the output folder {}", out.display()))?;
        let lock = folder::Lock::take(out)?;
        let mut inherited = Inherited::from_env();
        let rtmp = match inherited.take("rtmp")? {
            Some(listener) => listener,
            None => listener::bind(config.rtmp.0, rtmp_taken)
                .with_context(|| format!("listen for RTMP on {} (--rtmp)", config.rtmp.0))?,
        };
        let rtmps = match (config.rtmps.0, &config.tls_cert.0, &config.tls_key.0) {
            (Some(address), Some(certificate), Some(key)) => {
                let identity = Identity::read(certificate, key)?;
                let listener = match inherited.take("rtmps")? {
                    Some(listener) => listener,
                    None => listener::bind(address, WhenTaken::Fail)
                        .with_context(|| format!("listen for RTMPS on {address} (--rtmps)"))?,
                };
                Some((listener, identity))
            }
            _ => None,
        };
        let http = match (inherited.take("http")?, config.http.0) {
            (Some(listener), _) => Some(listener),
            (None, Some(address)) => Some(
                listener::bind(address, http_taken)
                    .with_context(|| format!("listen for HTTP on {address} (--http)"))?,
            ),
            (None, None) => None,
        };
        Ok(Self { rtmp, rtmps, http, door: Door::new(config)?, lock, config: config.clone() })
    }

    /// Where broadcasters connect.
    ///
    /// # Errors
    /// Of the system.
    pub fn rtmp_address(&self) -> anyhow::Result<SocketAddr> {
        self.rtmp.local_addr().context("learn the RTMP address")
    }

    /// Where broadcasters connect over TLS, if they can.
    ///
    /// # Errors
    /// Of the system.
    pub fn rtmps_address(&self) -> anyhow::Result<Option<SocketAddr>> {
        let listener = self.rtmps.as_ref().map(|(listener, _)| listener);
        listener.map(TcpListener::local_addr).transpose().context("learn the RTMPS address")
    }

    /// Where viewers connect, if they can.
    ///
    /// # Errors
    /// Of the system.
    pub fn http_address(&self) -> anyhow::Result<Option<SocketAddr>> {
        self.http.as_ref().map(TcpListener::local_addr).transpose().context("learn the HTTP address")
    }

    /// A stream key that lets in under `name`, whoever else may publish.
    ///
    /// # Errors
    /// The name is not allowed, or the system has no random numbers.
    pub fn let_in(&mut self, name: &str) -> anyhow::Result<String> {
        self.door.let_in(name)
    }

    /// Works until `stop` is ready, then ends every broadcast properly.
    ///
    /// # Errors
    /// Of the system, before any work; nothing that comes from outside ends it.
    pub async fn run(self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        // Whole sentences, because people look for them; the fields are for programs.
        let address = self.rtmp_address()?;
        tracing::info!(rtmp = %address, "listening for RTMP on {address}");
        if let Some(address) = self.rtmps_address()? {
            tracing::info!(rtmps = %address, "listening for RTMPS on {address}");
        }
        tracing::info!("who may publish: {}", self.door.describe());
        if let Some(address) = self.http_address()? {
            tracing::info!(http = %address, "listening for HTTP on {address}");
        }

        let (stopper, stop_word) = stop::stop();
        let door = Arc::new(self.door);
        let context = Arc::new(Context::new(&self.config, Arc::clone(&door)));
        let _keys = self.config.keys.0.as_deref().and_then(|file| door.watch_keys(file));
        let _identity = self.rtmps.as_ref().map(|(_, identity)| identity.watch());
        let rtmps = match self.rtmps {
            Some((listener, identity)) => Some((listener, identity.acceptor()?)),
            None => None,
        };
        let out: Arc<Path> = self.config.out.0.as_path().into();
        // Viewers find everything on the disk after the stop too: nobody waits for their connections.
        let _viewers =
            self.http.map(|http| AbortOnDrop::spawn(http::serve(http, Arc::clone(&out), Arc::clone(&context))));
        // Held until everything is written.
        let _lock = self.lock;
        let mut tasks = JoinSet::new();
        recovery::recover(out, &context, &mut tasks, &stop_word).await;
        // Before the first publisher, who may be fast.
        context.governor.measure();
        let governor = Arc::clone(&context.governor).run(Arc::clone(&context.registry));
        let _governor = AbortOnDrop::spawn(governor);
        let work = context.work.clone();
        let broadcasters = listener::serve(self.rtmp, rtmps, tasks, context, stop_word);
        tokio::pin!(broadcasters);
        let manager = Manager::from_env();
        manager.tell_ready();
        tokio::select! {
            () = stop => {}
            // They end only when told to.
            () = &mut broadcasters => return Ok(()),
            () = manager.keep_telling() => return Ok(()),
        }
        manager.tell_stopping();
        stopper.stop();
        broadcasters.await;
        // A callback or a disk that does not answer holds up nobody for long.
        let _ = timeout(LAST_NEWS_WITHIN, door.has_told()).await;
        let _ = timeout(LAST_WORK_WITHIN, work.is_done()).await;
        tracing::info!("stopped");
        Ok(())
    }
}

/// What all publishers share.
struct Context {
    clock: Clock,
    registry: Arc<Registry<Box<Broadcast>>>,
    make_store: Arc<MakeStore>,
    /// Where stores are at work.
    work: WorkQueue,
    settings: Settings,
    /// Says who may publish.
    door: Arc<Door>,
    /// Says how much of everything there may be.
    gate: Arc<Gate>,
    /// Keeps the folder within its bounds.
    governor: Arc<Governor>,
    /// What becomes of broadcasts when the server stops.
    at_stop: AtStop,
    /// How long a broadcast is kept open for a publisher that vanished.
    grace: Duration,
    /// When publishers' sockets are looked at.
    rhythm: Rhythm,
    /// When the last broadcast began, in milliseconds since 1970.
    last_began_ms: AtomicU64,
}

impl Context {
    /// As the operator wants it.
    fn new(config: &Config, door: Arc<Door>) -> Self {
        let governor = Governor::new(config);
        Self {
            clock: Clock::start(),
            registry: Registry::new(config.on_duplicate),
            make_store: governor.bound(make_store(config.out.0.as_path().into(), Durability::from(config))),
            work: WorkQueue::start(),
            settings: Settings::from(config),
            door,
            gate: Gate::new(Limits::from(config)),
            governor,
            at_stop: config.stop,
            grace: config.grace.0,
            rhythm: Rhythm::start(config.ingest_delay.0),
            last_began_ms: AtomicU64::new(0),
        }
    }

    /// Broadcasts up to `last` have begun, in former processes.
    fn have_begun(&self, last: BroadcastId) {
        self.last_began_ms.fetch_max(last.unix_ms, Ordering::Relaxed);
    }

    /// Now, for a broadcast that begins. No two begin in the same millisecond, whatever the clock does, because the time
    /// is what their files are told apart by.
    fn begin(&self) -> Moment {
        let now = self.clock.now();
        let now_ms = u64::try_from(now.unix.as_millis()).unwrap_or(u64::MAX);
        let later = |last: u64| Some(now_ms.max(last.saturating_add(1)));
        let began_ms = match self.last_began_ms.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later) {
            Ok(last) | Err(last) => now_ms.max(last.saturating_add(1)),
        };
        Moment { unix: Duration::from_millis(began_ms), ..now }
    }
}

/// Makes stores that write below `out`.
fn make_store(out: Arc<Path>, durability: Durability) -> Arc<MakeStore> {
    Arc::new(move || Box::new(DiskStore::new(Arc::clone(&out), durability)))
}

/// A task that ends with its handle.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl AbortOnDrop {
    fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(future))
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl From<&Config> for Durability {
    fn from(config: &Config) -> Self {
        if config.durable.0 { Self::Power } else { Self::Process }
    }
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        Self {
            segment: config.segment.0,
            window: match config.window {
                config::Window::Segments(count) => hls::Window::Segments(count),
                config::Window::Time(time) => hls::Window::Lasting(time),
            },
            track_wait: config.track_wait.0,
        }
    }
}
