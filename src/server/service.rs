//! The service manager (systemd, or what does as it does): it may give us sockets that listen already, and wants to hear
//! how we are.
//!
//! | Document | Here |
//! |---|---|
//! | sd_listen_fds(3) | `LISTEN_PID`, `LISTEN_FDS`, `LISTEN_FDNAMES` |
//! | sd_notify(3) | `NOTIFY_SOCKET`: `READY=1`, `STOPPING=1` |
//! | sd_watchdog_enabled(3) | `WATCHDOG_USEC`, `WATCHDOG_PID`: `WATCHDOG=1` |
//!
//! Sockets that the manager holds outlive the process: who connects during an upgrade waits for the next one.

use std::env;
use std::io;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use anyhow::Context as _;
use listenfd::ListenFd;
use tokio::net::TcpListener;
use tokio::time::sleep;

/// Sockets that listen already.
pub(super) struct Inherited {
    sockets: ListenFd,
    names: Vec<String>,
}

impl Inherited {
    /// The names that sockets may have (`FileDescriptorName=`), which are those of options.
    const NAMES: [&str; 3] = ["rtmp", "rtmps", "http"];

    /// Those that were left for this process.
    pub(super) fn from_env() -> Self {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        Self { sockets: ListenFd::from_env(), names: names.split(':').map(str::to_owned).collect() }
    }

    /// The socket of this name, if there is one. Where none has a name of ours, the first is for RTMP.
    ///
    /// # Errors
    /// It is no TCP socket, or does not listen.
    pub(super) fn take(&mut self, name: &str) -> anyhow::Result<Option<TcpListener>> {
        let Some(position) = position(&self.names, name) else { return Ok(None) };
        self.take_at(position).with_context(|| format!("use the service manager's socket {name:?}"))
    }

    fn take_at(&mut self, position: usize) -> io::Result<Option<TcpListener>> {
        let Some(socket) = self.sockets.take_tcp_listener(position)? else { return Ok(None) };
        socket.set_nonblocking(true)?;
        TcpListener::from_std(socket).map(Some)
    }
}

fn position(names: &[String], name: &str) -> Option<usize> {
    let is_ours = |given: &String| Inherited::NAMES.contains(&given.as_str());
    match names.iter().position(|given| given == name) {
        None if name == Inherited::NAMES[0] && !names.iter().any(is_ours) => Some(0),
        position => position,
    }
}

/// Whoever started us, if he wants to hear how we are.
#[derive(Debug)]
pub(super) struct Manager {
    socket: Option<UnixDatagram>,
    /// He takes us for dead if he does not hear from us for so long.
    watchdog: Option<Duration>,
}

impl Manager {
    /// The one that the environment names.
    pub(super) fn from_env() -> Self {
        let socket = env::var("NOTIFY_SOCKET").ok().filter(|name| !name.is_empty());
        let socket = socket.and_then(|name| match connect(&name) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!("the service manager cannot be told how we are (NOTIFY_SOCKET): {error}");
                None
            }
        });
        let number = |name| env::var(name).ok()?.parse::<u64>().ok();
        let is_meant = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|micros| is_meant && *micros > 0).map(Duration::from_micros);
        Self { socket, watchdog }
    }

    /// We are there for everybody.
    pub(super) fn tell_ready(&self) {
        self.tell("READY=1");
    }

    /// We are about to leave.
    pub(super) fn tell_stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// Says that we are alive, as often as he wants to hear it, for ever.
    pub(super) async fn keep_telling(&self) {
        let Some(watchdog) = self.watchdog.filter(|_| self.socket.is_some()) else {
            return std::future::pending().await;
        };
        loop {
            self.tell("WATCHDOG=1");
            // Half of it, as the manual has it.
            sleep(watchdog / 2).await;
        }
    }

    fn tell(&self, state: &str) {
        if let Some(socket) = &self.socket {
            // If he does not listen, there is nobody else to tell.
            let _ = socket.send(state.as_bytes());
        }
    }
}

/// A path, or behind `@` an abstract name.
fn connect(name: &str) -> io::Result<UnixDatagram> {
    let address = match name.strip_prefix('@') {
        Some(name) => abstract_address(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &str) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt as _;
    SocketAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_: &str) -> io::Result<SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_found_by_name_and_an_unnamed_one_is_for_rtmp() {
        let find = |names: &str, name| position(&names.split(':').map(str::to_owned).collect::<Vec<_>>(), name);
        assert_eq!(find("http:rtmp", "rtmp"), Some(1));
        assert_eq!(find("http:rtmp", "http"), Some(0));
        assert_eq!(find("http", "rtmp"), None);
        assert_eq!(find("upscope.socket", "rtmp"), Some(0));
        assert_eq!(find("upscope.socket", "http"), None);
        assert_eq!(find("", "rtmp"), Some(0));
    }
}
