//! Closed captions within pictures: CEA-608 and CEA-708 in ATSC's user data.
//!
//! | document | what of it |
//! |---|---|
//! | [ATSC A/53 Part 4](https://www.atsc.org/atsc-documents/a53-atsc-digital-television-standard/) §6.2.3 | `ATSC_user_data`, `cc_data` |
//! | ANSI/CTA-608-E §8 | control codes and the channel they are for |
//! | ANSI/CTA-708-E §6, §7 | caption channel packets, service blocks |

use std::fmt;
use std::ops::BitOrAssign;

/// Which caption channels were seen: CC1 to CC4 of CEA-608, services 1 to 16 of CEA-708.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Captions(u32);

/// A caption channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaptionChannel {
    /// CEA-608, 1 to 4.
    Cc(u8),
    /// CEA-708, 1 to 16.
    Service(u8),
}

impl Captions {
    /// None was seen.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The channels, those of CEA-608 first.
    pub fn channels(self) -> impl Iterator<Item = CaptionChannel> {
        (0..CEA_608_CHANNELS + MOST_SERVICE).filter(move |bit| self.0 >> bit & 1 == 1).map(|bit| {
            if bit < CEA_608_CHANNELS {
                CaptionChannel::Cc(bit + 1)
            } else {
                CaptionChannel::Service(bit - CEA_608_CHANNELS + 1)
            }
        })
    }

    /// What the payload of an ITU-T T.35 message carries, from the country code on.
    pub(super) fn of_itu_t_t35(mut payload: impl Iterator<Item = u8>) -> Self {
        if !ATSC_CAPTIONS.iter().all(|&expected| payload.next() == Some(expected)) {
            return Self::default();
        }
        Self::of_cc_data(payload).unwrap_or_default()
    }

    /// A/53 Part 4 §6.2.3.1; what is cut short counts as far as it goes.
    fn of_cc_data(mut payload: impl Iterator<Item = u8>) -> Option<Self> {
        let flags = payload.next()?;
        let _em_data = payload.next()?;
        let mut found = Self::default();
        if flags & PROCESS_CC_DATA == 0 {
            return Some(found);
        }
        let mut packet = Packet::default();
        for _ in 0..flags & 0b1_1111 {
            let (Some(marker), Some(first), Some(second)) = (payload.next(), payload.next(), payload.next()) else {
                break;
            };
            if marker & CC_VALID == 0 {
                continue;
            }
            match marker & 0b11 {
                field @ (0 | 1) => found.see_pair(field, first),
                3 => {
                    found.see_services(&packet);
                    packet = Packet::begin(first);
                    packet.push(second);
                }
                _ => {
                    packet.push(first);
                    packet.push(second);
                }
            }
        }
        found.see_services(&packet);
        Some(found)
    }

    /// CTA-608 §8.4: a control code names the channel of its field; what is no control code goes on with that channel.
    fn see_pair(&mut self, field: u8, first: u8) {
        let code = first & 0x7f;
        if (0x10..=0x1f).contains(&code) {
            self.0 |= 1 << (2 * field + (code >> 3 & 1));
        }
    }

    /// CTA-708 §6.2: the service blocks of a packet.
    fn see_services(&mut self, packet: &Packet) {
        let mut rest = packet.bytes();
        while let Some(&header) = rest.split_off_first() {
            let size = usize::from(header & 0b1_1111);
            let service = match header >> 5 {
                0 => return,
                7 if size > 0 => match rest.split_off_first() {
                    Some(extended) => extended & 0b11_1111,
                    None => return,
                },
                service => service,
            };
            if size > 0 && (1..=MOST_SERVICE).contains(&service) {
                self.0 |= 1 << (CEA_608_CHANNELS + service - 1);
            }
            rest = rest.get(size..).unwrap_or_default();
        }
    }
}

impl BitOrAssign for Captions {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// `CC1`, `SERVICE1` (RFC 8216bis §4.4.6.1).
impl fmt::Display for CaptionChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cc(number) => write!(f, "CC{number}"),
            Self::Service(number) => write!(f, "SERVICE{number}"),
        }
    }
}

impl fmt::Debug for Captions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.channels()).finish()
    }
}

/// A caption channel packet, as far as it lies within one picture.
struct Packet {
    bytes: [u8; MOST_PACKET_BYTES],
    filled: usize,
    size: usize,
}

impl Default for Packet {
    fn default() -> Self {
        Self { bytes: [0; MOST_PACKET_BYTES], filled: 0, size: 0 }
    }
}

impl Packet {
    /// §5.1: the header says how long it is.
    fn begin(header: u8) -> Self {
        let size = match usize::from(header & 0b11_1111) {
            0 => MOST_PACKET_BYTES,
            pairs => 2 * pairs - 1,
        };
        Self { size, ..Self::default() }
    }

    fn push(&mut self, byte: u8) {
        if self.filled < self.size {
            self.bytes[self.filled] = byte;
            self.filled += 1;
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

/// Country United States, provider ATSC, identifier `GA94`, captions.
const ATSC_CAPTIONS: [u8; 8] = *b"\xb5\0\x31GA94\x03";
const PROCESS_CC_DATA: u8 = 0x40;
const CC_VALID: u8 = 0b100;
const CEA_608_CHANNELS: u8 = 4;
const MOST_SERVICE: u8 = 16;
/// Without its header.
const MOST_PACKET_BYTES: usize = 127;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::samples::hex;

    fn seen(cc_data: &str) -> Vec<String> {
        let payload = [&ATSC_CAPTIONS[..], &hex(cc_data)].concat();
        Captions::of_itu_t_t35(payload.into_iter()).channels().map(|channel| channel.to_string()).collect()
    }

    #[test]
    fn channels_are_those_of_control_codes_and_service_blocks() {
        // Resume caption loading with parity, on each channel; letters; padding.
        assert_eq!(seen("42 ff fc 9420 fc c1c2 ff"), ["CC1"]);
        assert_eq!(seen("41 ff fc 1c20"), ["CC2"]);
        assert_eq!(seen("42 ff fd 1520 fd 1d20"), ["CC3", "CC4"]);
        assert_eq!(seen("42 ff fc 8080 fd 8080"), Vec::<String>::new());
        // A packet of 5 bytes behind its header: two bytes of service 1, one of service 2.
        assert_eq!(seen("43 ff ff 0322 fe 4141 fe 4142"), ["SERVICE1", "SERVICE2"]);
        // Extended service 9; a null block ends a packet.
        assert_eq!(seen("42 ff ff 02e1 fe 0941"), ["SERVICE9"]);
        assert_eq!(seen("42 ff ff 0200 fe 2141"), Vec::<String>::new());
        // Invalid pairs, and those that are not to be processed, say nothing.
        assert_eq!(seen("41 ff f8 9420"), Vec::<String>::new());
        assert_eq!(seen("01 ff fc 9420"), Vec::<String>::new());
        assert_eq!(seen("43 ff fc 9420 fc"), ["CC1"]);
        assert_eq!(seen(""), Vec::<String>::new());
        assert!(Captions::of_itu_t_t35(hex("b5003147413935 03 41ff fc9420").into_iter()).is_empty());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(rest in prop::collection::vec(any::<u8>(), 0..120)) {
            let payload = [&ATSC_CAPTIONS[..], &rest].concat();
            prop_assert!(Captions::of_itu_t_t35(payload.into_iter()).channels().count() <= 20);
        }
    }
}
