//! What strangers may have of us: connections, tries to publish, streams, log lines. Each limit has a name, which the
//! log line and the refusal say.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::descriptors;
use crate::config::{Config, PerAddress};

/// Connections of broadcasters from one address at the same time, unless told.
const BROADCASTERS_PER_ADDRESS: usize = 128;
/// Connections of viewers from one address at the same time, unless told: some eighty browsers behind one router.
const VIEWERS_PER_ADDRESS: usize = 512;
/// Tries to publish from one address in a minute, unless told. An encoder that tries again each second is not hindered.
const PUBLISHES_PER_ADDRESS: usize = 60;
/// The time over which tries to publish are counted.
const MINUTE: Duration = Duration::from_secs(60);
/// Addresses whose tries are remembered at the same time; who comes beyond that is not hindered, until they are forgotten.
const REMEMBERED_ADDRESSES: usize = 65_536;
/// Decoder configurations that a publisher may bring in a minute: those of 16 tracks, or a phone that is turned each
/// second, and then some.
const CONFIGURATIONS_A_MINUTE: u64 = 120;
/// Lines on what strangers do, in a second. More are counted and told as a number.
const LINES_A_SECOND: u32 = 100;

/// The limits, as told by the operator.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    broadcasters: Most,
    viewers: Most,
    publish_rate: PerAddress,
    /// Streams that are published, or kept for their publishers, at the same time.
    pub(super) streams: usize,
    /// Of a stream, in bits per second over [`Bitrate::OVER`].
    pub(super) bitrate: Option<u64>,
}

impl From<&Config> for Limits {
    fn from(config: &Config) -> Self {
        let possible = descriptors::most_connections();
        if possible < config.max_connections.0 {
            tracing::warn!(
                "the system's limit on open files is enough for {possible} connections of broadcasters, and not for {} \
                 (--max-connections)",
                config.max_connections.0
            );
        }
        Self {
            broadcasters: Most {
                in_all: config.max_connections.0.min(possible),
                from_one: config.max_connections_per_address,
                from_one_usually: BROADCASTERS_PER_ADDRESS,
            },
            viewers: Most {
                in_all: config.max_viewers.0.min(possible),
                from_one: config.max_viewers_per_address,
                from_one_usually: VIEWERS_PER_ADDRESS,
            },
            publish_rate: config.max_publish_rate,
            streams: config.max_streams.0,
            bitrate: config.max_bitrate.0,
        }
    }
}

/// How many connections of a kind there may be.
#[derive(Debug, Clone, Copy)]
struct Most {
    in_all: usize,
    from_one: PerAddress,
    from_one_usually: usize,
}

/// Who connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Broadcaster,
    Viewer,
}

/// A limit that somebody reached, named after its option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reached {
    Connections(Who, usize),
    ConnectionsPerAddress(Who, usize),
    PublishRate(usize),
    Streams(usize),
    UnreadReplies(usize),
    Bitrate(u64),
    Refusals(u32),
    Configurations(u64),
}

impl Who {
    fn option(self) -> &'static str {
        match self {
            Self::Broadcaster => "max-connections",
            Self::Viewer => "max-viewers",
        }
    }
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connections(who, most) => write!(f, "{most} connections are open ({})", who.option()),
            Self::ConnectionsPerAddress(who, most) => {
                write!(f, "{most} connections from its address are open ({}-per-address)", who.option())
            }
            Self::PublishRate(most) => {
                write!(f, "more than {most} tries to publish from its address in a minute (max-publish-rate)")
            }
            Self::Streams(most) => write!(f, "{most} streams are published (max-streams)"),
            Self::UnreadReplies(most) => write!(f, "more than {most} bytes of replies that the peer does not read"),
            Self::Bitrate(most) => {
                write!(f, "more than {} kbit/s over {:?} (max-bitrate)", most / 1000, Bitrate::OVER)
            }
            Self::Refusals(most) => write!(f, "refused {most} times"),
            Self::Configurations(most) => write!(f, "more than {most} changes of configuration in a minute"),
        }
    }
}

/// Counts who is here.
#[derive(Debug)]
pub(super) struct Gate {
    limits: Limits,
    broadcasters: Mutex<Counts>,
    viewers: Mutex<Counts>,
    tries: Mutex<Tries>,
    lines: Mutex<Lines>,
}

#[derive(Debug, Default)]
struct Counts {
    connections: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Tries to publish by address, all since the same minute began: what is remembered is forgotten at once, without a search
/// for what is old.
#[derive(Debug)]
struct Tries {
    since: Instant,
    by_address: HashMap<IpAddr, usize>,
}

impl Tries {
    fn count(&mut self, place: IpAddr) -> usize {
        let now = Instant::now();
        if now >= self.since + MINUTE {
            *self = Self { since: now, by_address: HashMap::new() };
        }
        if self.by_address.len() >= REMEMBERED_ADDRESSES && !self.by_address.contains_key(&place) {
            return 1;
        }
        let count = self.by_address.entry(place).or_insert(0);
        *count += 1;
        *count
    }
}

#[derive(Debug)]
struct Lines {
    since: Instant,
    count: u32,
    unsaid: u64,
}

impl Gate {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        let lines = Lines { since: Instant::now(), count: 0, unsaid: 0 };
        let tries = Tries { since: Instant::now(), by_address: HashMap::new() };
        Arc::new(Self {
            limits,
            broadcasters: Mutex::default(),
            viewers: Mutex::default(),
            tries: Mutex::new(tries),
            lines: Mutex::new(lines),
        })
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Lets a connection in, until what is returned is dropped.
    pub(super) fn enter(self: &Arc<Self>, who: Who, address: IpAddr) -> Result<Admission, Reached> {
        let limit = match who {
            Who::Broadcaster => self.limits.broadcasters,
            Who::Viewer => self.limits.viewers,
        };
        let mut counts = lock(self.counts(who));
        if counts.connections >= limit.in_all {
            return Err(Reached::Connections(who, limit.in_all));
        }
        let place = place(address);
        let from_there = counts.by_address.get(&place).copied().unwrap_or(0);
        if let Some(most) = most(limit.from_one, address, limit.from_one_usually)
            && from_there >= most
        {
            return Err(Reached::ConnectionsPerAddress(who, most));
        }
        counts.connections += 1;
        counts.by_address.insert(place, from_there + 1);
        Ok(Admission { gate: Arc::clone(self), who, place, arrived: Instant::now() })
    }

    fn counts(&self, who: Who) -> &Mutex<Counts> {
        match who {
            Who::Broadcaster => &self.broadcasters,
            Who::Viewer => &self.viewers,
        }
    }

    /// Counts a try to publish.
    pub(super) fn try_to_publish(&self, address: IpAddr) -> Result<(), Reached> {
        let Some(most) = most(self.limits.publish_rate, address, PUBLISHES_PER_ADDRESS) else { return Ok(()) };
        let count = lock(&self.tries).count(place(address));
        if count > most { Err(Reached::PublishRate(most)) } else { Ok(()) }
    }

    /// Whether one more line on what strangers do may be logged now.
    pub(super) fn may_log(&self) -> bool {
        let now = Instant::now();
        let mut lines = lock(&self.lines);
        if now >= lines.since + Duration::from_secs(1) {
            let unsaid = lines.unsaid;
            *lines = Lines { since: now, count: 0, unsaid: 0 };
            if unsaid > 0 {
                tracing::info!("{unsaid} more lines like these were left out");
            }
        }
        lines.count += 1;
        let may_log = lines.count <= LINES_A_SECOND;
        lines.unsaid += u64::from(!may_log);
        may_log
    }
}

/// A connection that was let in; it counts until this is dropped.
#[derive(Debug)]
pub(super) struct Admission {
    gate: Arc<Gate>,
    who: Who,
    place: IpAddr,
    /// When it came.
    pub(super) arrived: Instant,
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut counts = lock(self.gate.counts(self.who));
        counts.connections -= 1;
        if let Some(count) = counts.by_address.get_mut(&self.place) {
            *count -= 1;
            if *count == 0 {
                counts.by_address.remove(&self.place);
            }
        }
    }
}

/// Counts what a publisher sends.
#[derive(Debug)]
pub(super) struct Bitrate {
    since: Instant,
    received: u64,
}

impl Bitrate {
    /// A key frame may be many times the average; ten seconds hold several.
    const OVER: Duration = Duration::from_secs(10);

    /// Counts from `received` bytes on.
    pub(super) fn new(received: u64) -> Self {
        Self { since: Instant::now(), received }
    }

    /// Takes note that `received` bytes have come, of which there may be `most` bits a second.
    pub(super) fn check(&mut self, received: u64, most: u64) -> Result<(), Reached> {
        if (received - self.received).saturating_mul(8) > most.saturating_mul(Self::OVER.as_secs()) {
            return Err(Reached::Bitrate(most));
        }
        let now = Instant::now();
        if now >= self.since + Self::OVER {
            *self = Self { since: now, received };
        }
        Ok(())
    }
}

/// Watches the changes of decoder configurations: each costs viewers a header and a discontinuity.
#[derive(Debug)]
pub(super) struct Configurations {
    /// On the monotonic clock.
    since: Duration,
    before: u64,
}

impl Configurations {
    /// Counts from `seen` configurations on.
    pub(super) fn new(seen: u64, now: Duration) -> Self {
        Self { since: now, before: seen }
    }

    /// Takes note that `seen` configurations have come.
    pub(super) fn check(&mut self, seen: u64, now: Duration) -> Result<(), Reached> {
        if seen == self.before {
            return Ok(());
        }
        if seen - self.before > CONFIGURATIONS_A_MINUTE {
            return Err(Reached::Configurations(CONFIGURATIONS_A_MINUTE));
        }
        if now >= self.since + MINUTE {
            *self = Self { since: now, before: seen };
        }
        Ok(())
    }
}

fn most(limit: PerAddress, address: IpAddr, usual: usize) -> Option<usize> {
    match limit {
        PerAddress::Most(most) => Some(most),
        PerAddress::Auto => (!address.is_loopback()).then_some(usual),
    }
}

/// Who has one IPv6 address has all of its /64.
fn place(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Numbers only; right or nearly right whoever panicked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Given;

    fn gate(flags: &[(&str, &str)]) -> Arc<Gate> {
        let find = |name: &str| flags.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        let given = Given::collect(find, |_| None, None).unwrap();
        Gate::new(Limits::from(&Config::resolve(&given).unwrap()))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn connections_are_limited_in_all_and_for_each_address() {
        let gate = gate(&[("max-connections", "3"), ("max-connections-per-address", "2")]);
        let a = gate.enter(Who::Broadcaster, ip("192.0.2.1")).unwrap();
        let _b = gate.enter(Who::Broadcaster, ip("192.0.2.1")).unwrap();
        assert_eq!(
            gate.enter(Who::Broadcaster, ip("192.0.2.1")).err(),
            Some(Reached::ConnectionsPerAddress(Who::Broadcaster, 2))
        );
        let _c = gate.enter(Who::Broadcaster, ip("192.0.2.2")).unwrap();
        assert_eq!(
            gate.enter(Who::Broadcaster, ip("192.0.2.3")).err(),
            Some(Reached::Connections(Who::Broadcaster, 3))
        );
        gate.enter(Who::Viewer, ip("192.0.2.1")).unwrap();
        drop(a);
        gate.enter(Who::Broadcaster, ip("192.0.2.1")).unwrap();
    }

    #[test]
    fn a_64_is_one_address_and_this_machine_has_no_limit_unless_told() {
        let gate = gate(&[]);
        let held: Vec<_> =
            (0..128).map(|i| gate.enter(Who::Broadcaster, ip(&format!("2001:db8:0:1::{i:x}"))).unwrap()).collect();
        assert!(gate.enter(Who::Broadcaster, ip("2001:db8:0:1:ffff::1")).is_err());
        assert!(gate.enter(Who::Broadcaster, ip("2001:db8:0:2::1")).is_ok());
        let local: Vec<_> = (0..1000).map(|_| gate.enter(Who::Broadcaster, ip("127.0.0.1")).unwrap()).collect();
        drop((held, local));
        assert!(lock(&gate.broadcasters).by_address.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn tries_to_publish_are_counted_by_the_minute() {
        let gate = gate(&[("max-publish-rate", "2")]);
        let peer = ip("127.0.0.1");
        assert_eq!([0; 3].map(|_| gate.try_to_publish(peer)), [Ok(()), Ok(()), Err(Reached::PublishRate(2))]);
        assert_eq!(gate.try_to_publish(ip("192.0.2.1")), Ok(()));
        tokio::time::advance(MINUTE).await;
        assert_eq!(gate.try_to_publish(peer), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_addresses_is_not_remembered_without_end() {
        let gate = gate(&[("max-publish-rate", "1")]);
        let stranger = |number: u32| IpAddr::from(Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(number) << 64));
        for number in 0..100_000 {
            gate.try_to_publish(stranger(number)).unwrap();
        }
        assert_eq!(lock(&gate.tries).by_address.len(), REMEMBERED_ADDRESSES);
        assert!(gate.try_to_publish(stranger(7)).is_err());
        tokio::time::advance(MINUTE).await;
        gate.try_to_publish(stranger(99_999)).unwrap();
        assert_eq!(lock(&gate.tries).by_address.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn lines_are_limited_by_the_second() {
        let gate = gate(&[]);
        let said = |gate: &Gate| (0..500).filter(|_| gate.may_log()).count();
        assert_eq!(said(&gate), 100);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(said(&gate), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_bitrate_may_be_passed_for_a_moment_but_not_for_ten_seconds() {
        let mut bitrate = Bitrate::new(0);
        let most = 8_000_000;
        assert_eq!(bitrate.check(9_000_000, most), Ok(()));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(bitrate.check(10_000_000, most), Ok(()));
        assert_eq!(bitrate.check(20_000_000, most), Ok(()));
        assert_eq!(bitrate.check(20_000_001, most), Err(Reached::Bitrate(most)));
    }
}
