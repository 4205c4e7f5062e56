//! Takes connections, and sees to it that all of them end.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;

use super::limits::{Admission, Who};
use super::socket::Socket;
use super::stop::Stop;
use super::{Context, WhenTaken, publisher};

/// Newcomers that the system holds for us.
const BACKLOG: i32 = 1024;
/// How long accepting rests after an error, so that running out of descriptors does not become a busy loop.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The least time between two log lines on failing accepts.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// How long broadcasts may take to write their ends when the server stops.
const STOP_WITHIN: Duration = Duration::from_secs(4);
/// How many ports are tried when taken ones are to be passed over.
const PORTS_TRIED: u16 = 100;

/// Listens on `address`. `[::]` means IPv4 too, and IPv4 alone where there is no IPv6.
pub(super) fn bind(address: SocketAddr, when_taken: WhenTaken) -> io::Result<TcpListener> {
    let tries = match when_taken {
        WhenTaken::Fail => 1,
        WhenTaken::TakeNext => PORTS_TRIED,
    };
    let mut result = Err(io::ErrorKind::AddrInUse.into());
    for port in (address.port()..=u16::MAX).take(tries.into()) {
        result = bind_either_stack(SocketAddr::new(address.ip(), port));
        if !matches!(&result, Err(error) if error.kind() == io::ErrorKind::AddrInUse) {
            break;
        }
    }
    TcpListener::from_std(result?)
}

fn bind_either_stack(address: SocketAddr) -> io::Result<StdListener> {
    match bind_one(address) {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && error.kind() != io::ErrorKind::AddrInUse => {
            // Told as the IPv6 error if IPv4 does not help either.
            bind_one((Ipv4Addr::UNSPECIFIED, address.port()).into()).map_err(|_| error)
        }
        other => other,
    }
}

fn bind_one(address: SocketAddr) -> io::Result<StdListener> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // A restart does not wait for the connections of the run before.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Serves publishers until told to stop, then waits for their broadcasts to end, and for those of `tasks`.
pub(super) async fn serve(
    listener: TcpListener,
    tls_listener: Option<(TcpListener, TlsAcceptor)>,
    mut tasks: JoinSet<()>,
    context: Arc<Context>,
    mut stop: Stop,
) {
    let mut log_at = Instant::now();
    loop {
        let accepted = async {
            tokio::select! {
                accepted = listener.accept() => accepted.map(|accepted| (accepted, None)),
                (accepted, acceptor) = accept_tls(tls_listener.as_ref()) => {
                    accepted.map(|accepted| (accepted, Some(acceptor)))
                }
            }
        };
        tokio::select! {
            accepted = accepted => match accepted {
                Ok(((socket, peer), acceptor)) => {
                    let peer = canonical(peer);
                    let admission = match context.gate.enter(Who::Broadcaster, peer.ip()) {
                        Ok(admission) => admission,
                        Err(reached) => {
                            if context.gate.may_log() {
                                tracing::info!(%peer, "connection closed at once: {reached}");
                            }
                            continue;
                        }
                    };
                    // Our replies are small and waited for. A socket that refuses this works all the same.
                    let _ = socket.set_nodelay(true);
                    let (context, stop) = (Arc::clone(&context), stop.clone());
                    match acceptor {
                        None => tasks.spawn(context.work.run({
                            publisher::serve(Socket::new(socket), peer, admission, Arc::clone(&context), stop)
                        })),
                        Some(acceptor) => tasks.spawn(context.work.run({
                            serve_tls(acceptor, socket, peer, admission, Arc::clone(&context), stop)
                        })),
                    };
                }
                Err(error) => {
                    if Instant::now() >= log_at {
                        log_at = Instant::now() + LOG_EVERY;
                        tracing::warn!("failed to accept a connection: {error}; trying again");
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(ended) = tasks.join_next() => report(ended),
            () = stop.said() => break,
        }
    }
    drop((listener, tls_listener));
    let all_ended = async {
        while let Some(ended) = tasks.join_next().await {
            report(ended);
        }
    };
    if timeout(STOP_WITHIN, all_ended).await.is_err() {
        tracing::error!("{} broadcasts could not be ended in {STOP_WITHIN:?}", tasks.len());
    }
}

/// The next connection to the TLS port, if there is one.
async fn accept_tls(
    listener: Option<&(TcpListener, TlsAcceptor)>,
) -> (io::Result<(TcpStream, SocketAddr)>, TlsAcceptor) {
    match listener {
        Some((listener, acceptor)) => (listener.accept().await, acceptor.clone()),
        None => std::future::pending().await,
    }
}

/// Shakes hands for TLS, within the time that there is until a publish, and serves what is inside.
async fn serve_tls(
    acceptor: TlsAcceptor,
    socket: TcpStream,
    peer: SocketAddr,
    admission: Admission,
    context: Arc<Context>,
    mut stop: Stop,
) {
    let shaken = async {
        let mut first = [0];
        if socket.peek(&mut first).await? == 1 && first[0] != TLS_HANDSHAKE {
            let hint = if first[0] == 3 { ": plain RTMP; use rtmp:// and its port" } else { "" };
            return Err(io::Error::other(format!("the peer does not speak TLS (first byte 0x{:02x}{hint})", first[0])));
        }
        acceptor.accept(Socket::new(socket)).await
    };
    let shaken = tokio::select! {
        shaken = timeout_at(admission.arrived + publisher::PUBLISH_WITHIN, shaken) => shaken,
        () = stop.said() => return,
    };
    let shaken = shaken
        .unwrap_or_else(|_| Err(io::Error::other(format!("no TLS handshake within {:?}", publisher::PUBLISH_WITHIN))));
    match shaken {
        Ok(socket) => publisher::serve(Box::new(socket), peer, admission, context, stop).await,
        Err(error) => {
            if context.gate.may_log() {
                tracing::info!(%peer, "connection without a publish closed: {error}");
            }
        }
    }
}

/// What every TLS connection starts with (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// A panic is a bug of ours; it costs one connection.
fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!("a publisher's task failed: {error}");
    }
}

/// An IPv4 peer by its IPv4 address.
pub(super) fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_an_error_or_the_next_one_is_taken() {
        let first = bind("127.0.0.1:0".parse().unwrap(), WhenTaken::Fail).unwrap();
        let taken = first.local_addr().unwrap();
        assert_eq!(bind(taken, WhenTaken::Fail).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let next = bind(taken, WhenTaken::TakeNext).unwrap().local_addr().unwrap();
        assert_ne!(next.port(), taken.port());
    }

    #[tokio::test]
    async fn all_addresses_means_ipv4_too() {
        let listener = bind("[::]:0".parse().unwrap(), WhenTaken::Fail).unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let (_, peer) = listener.accept().await.unwrap();
        assert!(canonical(peer).is_ipv4());
    }
}
