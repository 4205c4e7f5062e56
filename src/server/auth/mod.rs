//! Who may publish, and under which name.
//!
//! ```text
//!   no --keys, --sign-key, --auth-url:   this machine (loopback), or everybody with --open
//!
//!   --keys       stream key is in the file  ─┐
//!   --sign-key   name?exp=…&sig=… is right  ─┴→ public name ──→ --auth-url says 2xx ──→ let in
//!   neither      the name as sent ────────────────────────────↗
//! ```
//!
//! A refusal says why in words that encoders show. What a publisher sent as its key is never in one, nor in a log line.

mod callback;
mod keys;
mod signed;

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::Instant;

use self::callback::Callback;
pub use self::keys::add_key;
use self::keys::{Found, Keys};
use self::signed::Signer;
pub use self::signed::sign;
use super::AbortOnDrop;
use super::clock::Clock;
use super::watch::watch;
use crate::action::{BadName, StreamName};
use crate::config::Config;

/// Says who may publish.
pub(super) struct Door {
    is_open: bool,
    keys: Option<Arc<RwLock<Keys>>>,
    signer: Option<Signer>,
    callback: Option<Callback>,
    /// For a publisher of our own.
    own: Option<Keys>,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}

/// A wish to publish.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish<'a> {
    pub(super) app: &'a str,
    pub(super) stream_key: &'a str,
    pub(super) query: Option<&'a str>,
    pub(super) peer: SocketAddr,
    pub(super) encoder: Option<&'a str>,
}

/// Who was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) name: StreamName,
    /// By what right; who comes with the same is the same publisher.
    pub(super) credential: Credential,
    /// In bits per second, if this publisher has a limit of its own.
    pub(super) bitrate: Option<u64>,
}

/// By what right somebody publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Credential {
    /// None was asked for.
    None,
    /// A stream key, known by its hash.
    Key([u8; 32]),
    /// A name signed by the operator: whoever has it is its owner.
    Signed,
    /// What the callback let in, known by the hash of all that was sent.
    Called([u8; 32]),
}

impl Credential {
    /// Whether who has it is known to be who has `other`.
    pub(super) fn proves_the_same(&self, other: &Self) -> bool {
        *self != Self::None && self == other
    }
}

/// Why somebody was not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    BadName(BadName),
    /// Nothing says who may, and the peer is not on this machine.
    NotFromHere,
    UnknownKey,
    ExpiredKey,
    BadSignature,
    ExpiredSignature,
    /// In the words of the callback.
    ByCallback(String),
    /// The callback does not answer, or not as it should.
    CallbackFailed,
}

impl Refusal {
    /// The code of the status that the publisher gets.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::BadName(_) => "NetStream.Publish.BadName",
            _ => "NetStream.Publish.Denied",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadName(bad) => bad.fmt(f),
            Self::NotFromHere => f.write_str(
                "only programs on the server's own machine may publish; its operator can allow others with --keys, \
                 --sign-key, --auth-url or --open",
            ),
            Self::UnknownKey => f.write_str("the stream key is not known"),
            Self::ExpiredKey => f.write_str("the stream key has expired"),
            Self::BadSignature => f.write_str("the name is not signed, or its signature is wrong"),
            Self::ExpiredSignature => f.write_str("the signature of the name has expired"),
            Self::ByCallback(reason) => f.write_str(reason),
            Self::CallbackFailed => f.write_str("nobody can say now whether you may publish; try again"),
        }
    }
}

impl Door {
    /// Reads what the options name.
    ///
    /// # Errors
    /// A file cannot be read or is wrong.
    pub(super) fn new(config: &Config) -> anyhow::Result<Self> {
        let keys = match &config.keys.0 {
            Some(path) => Some(Arc::new(RwLock::new(Keys::read(path).context("read the stream keys (--keys)")?))),
            None => None,
        };
        let signer = match &config.sign_key.0 {
            Some(secret) => Some(Signer::new(secret).context("read the secret (--sign-key)")?),
            None => None,
        };
        let callback = match &config.auth_url.0 {
            Some(url) => Some(Callback::new(url).context("use the callback (--auth-url)")?),
            None => None,
        };
        Ok(Self { is_open: config.open.0, keys, signer, callback, own: None })
    }

    /// Makes a key that lets in under `name` whatever the operator demands of others. It is valid as long as we run.
    ///
    /// # Errors
    /// The name is not allowed, or the system has no random numbers.
    pub(super) fn let_in(&mut self, name: &str) -> anyhow::Result<String> {
        let (key, keys) = Keys::with_new_key(name)?;
        self.own = Some(keys);
        Ok(key)
    }

    fn own(&self, wish: Wish<'_>, now: Duration) -> Option<Grant> {
        match self.own.as_ref()?.find(wish.stream_key, now) {
            Found::Key(grant) => Some(grant),
            Found::Expired | Found::Nothing => None,
        }
    }

    /// Keeps the keys as the file has them, as long as what is returned lives.
    pub(super) fn watch_keys(&self, path: &Path) -> Option<AbortOnDrop> {
        let keys = Arc::clone(self.keys.as_ref()?);
        let file = path.to_owned();
        let read_again = move || {
            let read = Keys::read(&file)?;
            let said = format!("{} stream keys read from {}", read.len(), file.display());
            *keys.write().unwrap_or_else(PoisonError::into_inner) = read;
            Ok(said)
        };
        Some(AbortOnDrop::spawn(watch(vec![path.to_owned()], read_again)))
    }

    /// Who may publish, in words.
    pub(super) fn describe(&self) -> String {
        let mut ways = Vec::new();
        if let Some(keys) = &self.keys {
            let count = keys.read().unwrap_or_else(PoisonError::into_inner).len();
            ways.push(format!("with one of {count} stream keys"));
        }
        if self.signer.is_some() {
            ways.push("under a signed name".to_owned());
        }
        let ways = ways.join(" or ");
        match (&self.callback, ways.as_str()) {
            (Some(callback), "") => format!("who is let in by {callback}"),
            (Some(callback), ways) => format!("{ways}, and let in by {callback}"),
            (None, "") if self.is_open => "EVERYBODY who reaches the port (--open)".to_owned(),
            (None, "") => "only programs on this machine (see --keys, --sign-key, --auth-url, --open)".to_owned(),
            (None, ways) => ways.to_owned(),
        }
    }

    /// Whether what publishers send as their name may be secret.
    pub(super) fn has_secrets(&self) -> bool {
        self.keys.is_some() || self.signer.is_some() || self.callback.is_some()
    }

    /// Decides, before `deadline`.
    pub(super) async fn ask(&self, wish: Wish<'_>, clock: Clock, deadline: Instant) -> Result<Grant, Refusal> {
        let now = clock.now().unix;
        if let Some(grant) = self.own(wish, now) {
            return Ok(grant);
        }
        let granted = self.identify(wish, now)?;
        match &self.callback {
            None => granted.ok_or(Refusal::NotFromHere),
            // On the heap, because every connection has room for this state, and few come to it.
            Some(callback) => Box::pin(callback.ask(wish, granted, deadline)).await,
        }
    }

    /// By key, signature or address; `None` if that is for the callback to say.
    fn identify(&self, wish: Wish<'_>, now: Duration) -> Result<Option<Grant>, Refusal> {
        let mut refusal = None;
        if let Some(keys) = &self.keys {
            match keys.read().unwrap_or_else(PoisonError::into_inner).find(wish.stream_key, now) {
                Found::Key(grant) => return Ok(Some(grant)),
                Found::Expired => return Err(Refusal::ExpiredKey),
                Found::Nothing => refusal = Some(Refusal::UnknownKey),
            }
        }
        if let Some(signer) = &self.signer {
            match signer.check(wish.app, wish.stream_key, wish.query, now) {
                Ok(name) => return Ok(Some(Grant { name, credential: Credential::Signed, bitrate: None })),
                Err(wrong) => refusal = Some(wrong),
            }
        }
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        if self.callback.is_some() {
            return Ok(None);
        }
        if !self.is_open && !wish.peer.ip().is_loopback() {
            return Err(Refusal::NotFromHere);
        }
        let name = StreamName::parse(wish.app, wish.stream_key).map_err(Refusal::BadName)?;
        Ok(Some(Grant { name, credential: Credential::None, bitrate: None }))
    }

    /// Tells the callback that a publish is over. Does not wait.
    pub(super) fn tell_done(&self, wish: Wish<'_>, name: &StreamName, received_bytes: u64) {
        if let Some(callback) = &self.callback
            && self.own(wish, Duration::ZERO).is_none()
        {
            callback.tell_done(wish, name, received_bytes);
        }
    }

    /// Waits until the callback has been told of all ends.
    pub(super) async fn has_told(&self) {
        if let Some(callback) = &self.callback {
            callback.has_told().await;
        }
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
    hash
}

/// In the digits of `sha256sum`.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        let [high, low] = [pair[0], pair[1]].map(|digit| char::from(digit).to_digit(16));
        *byte = u8::try_from(high? << 4 | low?).ok()?;
    }
    Some(bytes)
}

/// A public name as operators write it: `APP/NAME`, or `NAME` for `live/NAME`.
fn public_name(text: &str) -> Result<StreamName, BadName> {
    let (app, name) = text.rsplit_once('/').unwrap_or(("live", text));
    StreamName::parse(app, name)
}
