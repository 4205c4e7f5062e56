//! The limits that have a flag, each reached with the real program: the connection is closed, and one line names the flag.

mod common;

use std::time::Duration;

use common::peer::{self, Peer};
use common::server::Server;

/// How long the server may take for anything that it does at once.
const SOON: Duration = Duration::from_secs(3);

/// The last of `peers` is closed, and one line names the `flag`.
fn assert_closed(server: &mut Server, peers: &mut [Peer], flag: &str) {
    let peer = peers.last_mut().unwrap();
    assert!(peer.closed_within(SOON).is_some(), "{flag}: not closed\n{}", server.log());
    let port = format!(":{} ", peer.socket.local_addr().unwrap().port());
    assert!(server.says(&[flag], SOON), "{flag}: not named\n{}", server.log());
    // With a space behind the line's end too.
    let lines = server.log().lines().filter(|line| format!("{line} ").contains(&port)).count();
    assert_eq!(lines, 1, "{flag}:\n{}", server.log());
}

#[test]
fn each_limit_with_a_flag_closes_the_connection_and_is_named_once() {
    let dialled = |server: &Server, count: usize, bytes: &dyn Fn(usize) -> Vec<u8>| -> Vec<Peer> {
        let dial = |index| {
            let mut peer = Peer::dial(server.address());
            let bytes = bytes(index);
            peer.send(&bytes);
            if !bytes.is_empty() {
                peer.hears("NetStream.Publish.", SOON);
            }
            peer
        };
        (0..count).map(dial).collect()
    };
    let silent = |_| Vec::new();
    let own_name = |index| peer::opening("live", &format!("s{index}"));
    let film: Vec<u8> = peer::film().iter().flat_map(peer::media).collect();
    let streaming = |index| [own_name(index), peer::set_chunk_size(60_000), film.clone()].concat();
    for (flag, value, count, bytes) in [
        ("max-connections", "3", 4, &silent as &dyn Fn(usize) -> Vec<u8>),
        ("max-connections-per-address", "2", 3, &silent),
        ("max-publish-rate", "2", 3, &own_name),
        ("max-streams", "1", 2, &own_name),
        ("max-bitrate", "300k", 1, &streaming),
    ] {
        let mut server = Server::start_with(&[&format!("--{flag}"), value, "--grace", "0s"]);
        let mut peers = dialled(&server, count, bytes);
        if flag == "max-bitrate" {
            // The line at the end of a stream, beside the one at its start.
            assert!(peers[0].closed_within(SOON).is_some(), "{flag}: not closed\n{}", server.log());
            assert!(server.says(&["gone: ", flag], SOON), "{flag}: not named\n{}", server.log());
        } else {
            assert_closed(&mut server, &mut peers, &format!("({flag})"));
        }
    }
}

#[test]
fn whoever_says_nothing_is_closed_and_named_too() {
    let mut server = Server::start();
    let mut peers = [Peer::dial(server.address())];
    assert!(peers[0].closed_within(Duration::from_secs(12)).is_some());
    assert_closed(&mut server, &mut peers, "no publish within 10s");
}

#[test]
fn a_peer_that_does_not_read_our_replies_is_closed_and_named() {
    let mut server = Server::start();
    let mut peer = Peer::dial(server.address());
    // So that little fits into what the system holds for it.
    socket2::SockRef::from(&peer.socket).set_recv_buffer_size(4096).unwrap();
    peer.send(&[peer::hello(), peer::connect("live")].concat());
    while peer.send(&peer::create_stream().repeat(1000)) {}
    assert!(server.says(&["bytes of replies that the peer does not read"], SOON), "{}", server.log());
}
