//! Takes connections, and sees to it that all of them end.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Type};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use super::socket::Socket;
use super::stop::Stop;
use super::{Context, WhenTaken, publisher};

/// Connections at the same time; more wait in the system's queue.
const MOST_CONNECTIONS: usize = 4096;
/// Newcomers that the system holds for us.
const BACKLOG: i32 = 1024;
/// How long accepting rests after an error, so that running out of descriptors does not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
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

/// Serves publishers until told to stop, then waits for their broadcasts to end.
pub(super) async fn serve(listener: TcpListener, context: Arc<Context>, mut stop: Stop) {
    let slots = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut tasks = JoinSet::new();
    let mut log_at = Instant::now();
    loop {
        let accepted = async {
            // The semaphore is never closed; an error would mean to accept nobody, which is the same as waiting.
            let slot = Arc::clone(&slots).acquire_owned().await.map_err(io::Error::other)?;
            let (socket, peer) = listener.accept().await?;
            Ok::<_, io::Error>((slot, socket, peer))
        };
        tokio::select! {
            accepted = accepted => match accepted {
                Ok((slot, socket, peer)) => {
                    // Our replies are small and waited for. A socket that refuses this works all the same.
                    let _ = socket.set_nodelay(true);
                    let (context, stop) = (Arc::clone(&context), stop.clone());
                    tasks.spawn(publisher::serve(Socket::new(socket), canonical(peer), slot, context, stop));
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
    drop(listener);
    let all_ended = async {
        while let Some(ended) = tasks.join_next().await {
            report(ended);
        }
    };
    if timeout(STOP_WITHIN, all_ended).await.is_err() {
        tracing::error!("{} broadcasts could not be ended in {STOP_WITHIN:?}", tasks.len());
    }
}

/// A panic is a bug of ours; it costs one connection.
fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!("a publisher's task failed: {error}");
    }
}

/// An IPv4 peer by its IPv4 address.
fn canonical(peer: SocketAddr) -> SocketAddr {
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
        tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let (_, peer) = listener.accept().await.unwrap();
        assert!(canonical(peer).is_ipv4());
    }
}
