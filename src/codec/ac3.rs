//! AC-3 and E-AC-3, which have no sequence header: each syncframe says what it is.

use bytes::{BufMut, Bytes, BytesMut};

use super::bits::Bits;
use super::{Error, Sound};

/// What the syncframes of a message say that may not change without a new CMAF header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    is_enhanced: bool,
    sound: Sound,
    samples_per_frame: u32,
    /// Objects of joint object coding (Dolby Atmos).
    objects: Option<u8>,
    /// The body of `dac3` or `dec3`.
    record: Bytes,
}

impl Configuration {
    /// The configuration of an access unit: one AC-3 syncframe, or the E-AC-3 syncframes of one program and what depends on
    /// them.
    ///
    /// # Errors
    /// When it does not begin with a syncframe, or with one that is cut short or reserved.
    pub fn of_access_unit(data: &[u8]) -> Result<Self, Error> {
        let mut bits = Bits::new(data, SYNCFRAME);
        sync(&mut bits)?;
        // `bsid` stands at the same place in both.
        let bsid = data.get(5).ok_or(Error::CutShort(SYNCFRAME))? >> 3;
        match bsid {
            0..=10 => ac3(&mut bits),
            11..=16 => eac3(data),
            other => Err(Error::Unsupported { field: "AC-3 bit stream identification", value: other.into() }),
        }
    }

    /// It is E-AC-3.
    pub fn is_enhanced(&self) -> bool {
        self.is_enhanced
    }

    /// What comes out of the decoder.
    pub fn sound(&self) -> Sound {
        self.sound
    }

    /// Samples of each channel in a message.
    pub fn samples_per_frame(&self) -> u32 {
        self.samples_per_frame
    }

    /// How many objects joint object coding has (Dolby Atmos): the first of the two in `CHANNELS="16/JOC"`.
    pub fn objects(&self) -> Option<u8> {
        self.objects
    }

    /// The body of `dac3` or `dec3`.
    pub fn record(&self) -> &Bytes {
        &self.record
    }

    /// The same but for the bit rate, of which the header only informs: at 44.1 kHz, syncframes of a constant bit rate are now
    /// and then a little longer.
    pub fn is_same_but_for_rate(&self, other: &Self) -> bool {
        let rate: &[u8] = if self.is_enhanced { &[0xff, 0xf8] } else { &[0, 0x03, 0xe0] };
        let rate = || rate.iter().copied().chain(std::iter::repeat(0));
        let mut bytes = self.record.iter().zip(&other.record).zip(rate());
        self.record.len() == other.record.len()
            && bytes.all(|((ours, theirs), rate)| ours & !rate == theirs & !rate)
            && (self.is_enhanced, self.sound, self.samples_per_frame)
                == (other.is_enhanced, other.sound, other.samples_per_frame)
    }

    /// `ac-3` or `ec-3`.
    pub fn rfc6381(&self) -> String {
        if self.is_enhanced { "ec-3" } else { "ac-3" }.to_owned()
    }
}

fn sync(bits: &mut Bits<'_>) -> Result<(), Error> {
    if bits.read(16)? == SYNC_WORD { Ok(()) } else { Err(Error::Missing("AC-3 sync word")) }
}

/// `syncinfo()` and the start of `bsi()` (ETSI TS 102 366 §4.3), into `AC3SpecificBox` (Annex F.4).
fn ac3(bits: &mut Bits<'_>) -> Result<Configuration, Error> {
    bits.skip(16)?;
    let rate_code = bits.read_u8(2)?;
    let frame_size_code = bits.read(6)?;
    let bsid = bits.read_u8(5)?;
    let mode = bits.read(3)?;
    let channels = bits.read_u8(3)?;
    if channels & 1 == 1 && channels != 1 {
        bits.skip(2)?;
    }
    if channels & 0b100 != 0 {
        bits.skip(2)?;
    }
    if channels == STEREO {
        bits.skip(2)?;
    }
    let has_lfe = bits.flag()?;
    let Some(&full_rate) = SAMPLE_RATES.get(usize::from(rate_code)) else {
        return Err(Error::Invalid { field: "AC-3 sample rate code", value: rate_code.into() });
    };
    // §Annex E of the first edition: half and quarter rates.
    let sample_rate = full_rate >> bsid.saturating_sub(8);
    let fields = [
        (rate_code.into(), 2),
        (bsid.into(), 5),
        (mode, 3),
        (channels.into(), 3),
        (has_lfe.into(), 1),
        (frame_size_code >> 1, 5),
        (0, 5),
    ];
    Ok(Configuration {
        is_enhanced: false,
        sound: Sound { sample_rate, channels: full_bandwidth(channels) + u8::from(has_lfe) },
        samples_per_frame: 6 * SAMPLES_PER_BLOCK,
        objects: None,
        record: packed(&fields),
    })
}

/// A syncframe of E-AC-3.
struct Syncframe {
    is_dependent: bool,
    substream: u8,
    bytes: usize,
    rate_code: u8,
    sample_rate: u32,
    blocks: u32,
    channels: u8,
    has_lfe: bool,
    bsid: u8,
    /// Speakers beyond 5.1, in the order of `chan_loc`.
    more_speakers: u16,
    objects: Option<u8>,
}

impl Syncframe {
    /// The start of `bsi()` of Annex E.1.2.2.
    fn read(data: &[u8]) -> Result<Self, Error> {
        let mut bits = Bits::new(data, SYNCFRAME);
        sync(&mut bits)?;
        let kind = bits.read(2)?;
        let substream = bits.read_u8(3)?;
        let bytes = (bits.read(11)? as usize + 1) * 2;
        let rate_code = bits.read_u8(2)?;
        let second_code = bits.read_u8(2)?;
        let (sample_rate, blocks) = match SAMPLE_RATES.get(usize::from(rate_code)) {
            Some(&rate) => (rate, [1, 2, 3, 6][usize::from(second_code)]),
            None => match SAMPLE_RATES.get(usize::from(second_code)) {
                Some(&rate) => (rate / 2, 6),
                None => return Err(Error::Invalid { field: "AC-3 sample rate code", value: second_code.into() }),
            },
        };
        let channels = bits.read_u8(3)?;
        let has_lfe = bits.flag()?;
        let bsid = bits.read_u8(5)?;
        let is_dependent = kind == DEPENDENT;
        // Dialogue level and compression, twice for two programs in one.
        for _ in 0..if channels == 0 { 2 } else { 1 } {
            bits.skip(5)?;
            if bits.flag()? {
                bits.skip(8)?;
            }
        }
        let mut more_speakers = 0;
        if is_dependent && bits.flag()? {
            // `chanmap` from Lc/Rc (its bit 5) to Cvh, and LFE2 (bit 14).
            let map = bits.read_u16()?;
            let speakers = (5..=12).chain([14]).map(|bit| map >> (15 - bit) & 1);
            more_speakers = speakers.enumerate().fold(0, |all, (place, is_there)| all | is_there << place);
        }
        let mut frame = Self {
            is_dependent,
            substream,
            bytes,
            rate_code,
            sample_rate,
            blocks,
            channels,
            has_lfe,
            bsid,
            more_speakers,
            objects: None,
        };
        // What is cut short behind here has no objects.
        frame.objects = frame.objects(kind, &mut bits).unwrap_or(None);
        Ok(frame)
    }

    /// The rest of `bsi()`, at whose end the objects of ETSI TS 103 420 §8.3 stand.
    fn objects(&self, kind: u32, bits: &mut Bits<'_>) -> Result<Option<u8>, Error> {
        if bits.flag()? {
            self.skip_mixing(kind, bits)?;
        }
        if bits.flag()? {
            self.skip_information(bits)?;
        }
        let has_all_blocks = self.blocks == 6;
        if kind == INDEPENDENT && !has_all_blocks {
            bits.skip(1)?;
        }
        if kind == CONVERTED && (has_all_blocks || bits.flag()?) {
            bits.skip(6)?;
        }
        if !bits.flag()? {
            return Ok(None);
        }
        let bytes = bits.read(6)? + 1;
        let has_objects = bits.read(8)? & 1 == 1;
        Ok(if has_objects && bytes > 1 { Some(bits.read_u8(8)?) } else { None })
    }

    /// `mixmdate`.
    fn skip_mixing(&self, kind: u32, bits: &mut Bits<'_>) -> Result<(), Error> {
        let Self { channels, has_lfe, blocks, .. } = *self;
        if channels > STEREO {
            let has_centre = channels & 1 == 1;
            let has_surround = channels & 0b100 != 0;
            bits.skip(2 + if has_centre { 6 } else { 0 } + if has_surround { 6 } else { 0 })?;
        }
        if has_lfe {
            bits.skip_if_told(5)?;
        }
        if kind != INDEPENDENT {
            return Ok(());
        }
        // Scale factors of the programmes and of one mixed in.
        for _ in 0..if channels == DUAL_MONO { 3 } else { 2 } {
            bits.skip_if_told(6)?;
        }
        match bits.read(2)? {
            0 => {}
            1 => bits.skip(5)?,
            2 => bits.skip(12)?,
            _ => {
                let bytes = bits.read(5)? as usize + 2;
                bits.skip(8 * bytes)?;
            }
        }
        if channels < STEREO {
            for _ in 0..if channels == DUAL_MONO { 2 } else { 1 } {
                bits.skip_if_told(14)?;
            }
        }
        if bits.flag()? {
            match blocks {
                1 => bits.skip(5)?,
                _ => (0..blocks).try_for_each(|_| bits.skip_if_told(5))?,
            }
        }
        Ok(())
    }

    /// `infomdate`.
    fn skip_information(&self, bits: &mut Bits<'_>) -> Result<(), Error> {
        bits.skip(3 + 1 + 1)?;
        match self.channels {
            STEREO => bits.skip(2 + 2)?,
            6.. => bits.skip(2)?,
            _ => {}
        }
        for _ in 0..if self.channels == DUAL_MONO { 2 } else { 1 } {
            bits.skip_if_told(5 + 2 + 1)?;
        }
        if usize::from(self.rate_code) < SAMPLE_RATES.len() {
            bits.skip(1)?;
        }
        Ok(())
    }
}

impl Bits<'_> {
    /// A flag, and `count` bits behind it if it is set.
    fn skip_if_told(&mut self, count: usize) -> Result<(), Error> {
        if self.flag()? { self.skip(count) } else { Ok(()) }
    }
}

/// All syncframes of an access unit, into `EC3SpecificBox` (Annex F.6).
fn eac3(data: &[u8]) -> Result<Configuration, Error> {
    let mut rest = data;
    let mut main: Option<Syncframe> = None;
    let (mut blocks, mut bytes, mut more_speakers, mut objects) = (0, 0, 0, None);
    let mut dependents = std::collections::BTreeSet::new();
    // What lies behind the last whole syncframe is padding.
    while let Ok(frame) = Syncframe::read(rest) {
        let whole = frame.bytes.min(rest.len());
        objects = objects.or(frame.objects);
        match &main {
            _ if frame.is_dependent => {
                more_speakers |= frame.more_speakers;
                dependents.insert(frame.substream);
            }
            // Another program, for those who choose it.
            Some(main) if main.substream != frame.substream => {}
            _ => blocks += frame.blocks,
        }
        bytes += whole;
        rest = &rest[whole..];
        if !frame.is_dependent {
            main = main.or(Some(frame));
        }
    }
    let Some(main) = main else {
        Syncframe::read(data)?;
        return Err(Error::Missing("independent E-AC-3 substream"));
    };
    let samples_per_frame = blocks * SAMPLES_PER_BLOCK;
    let kilobits =
        u64::try_from(bytes).unwrap_or(0) * 8 * u64::from(main.sample_rate) / u64::from(samples_per_frame) / 1000;
    let dependents = if more_speakers == 0 { 0 } else { u32::try_from(dependents.len()).unwrap_or(0) };
    let mut fields = vec![
        (u32::try_from(kilobits).unwrap_or(0).min(0x1fff), 13),
        // One program, as HLS has no way to choose another.
        (0, 3),
        (main.rate_code.into(), 2),
        (main.bsid.into(), 5),
        (0, 1 + 1 + 3),
        (main.channels.into(), 3),
        (main.has_lfe.into(), 1),
        (0, 3),
        (dependents, 4),
    ];
    fields.push(if dependents > 0 { (more_speakers.into(), 9) } else { (0, 1) });
    if let Some(objects) = objects {
        // `flag_ec3_extension_type_a` and `complexity_index_type_a` of ETSI TS 103 420 Annex C.
        fields.extend([(0, 7), (1, 1), (objects.into(), 8)]);
    }
    let channels = full_bandwidth(main.channels) + u8::from(main.has_lfe) + channels_of(more_speakers);
    Ok(Configuration {
        is_enhanced: true,
        sound: Sound { sample_rate: main.sample_rate, channels },
        samples_per_frame,
        objects,
        record: packed(&fields),
    })
}

/// Channels of an `acmod`, without the LFE.
fn full_bandwidth(mode: u8) -> u8 {
    [2, 1, 2, 3, 3, 4, 4, 5][usize::from(mode & 0b111)]
}

/// Channels of a `chan_loc`: its speakers at 0, 1, 4, 5 and 6 are pairs.
fn channels_of(more_speakers: u16) -> u8 {
    (0..9)
        .filter(|place| more_speakers >> place & 1 == 1)
        .map(|place| if matches!(place, 0 | 1 | 4..=6) { 2 } else { 1 })
        .sum()
}

/// Fields of so many bits, one after another.
fn packed(fields: &[(u32, u32)]) -> Bytes {
    let mut out = BytesMut::new();
    let (mut byte, mut filled) = (0, 0);
    for &(value, count) in fields {
        for shift in (0..count).rev() {
            byte = byte << 1 | u8::from(value >> shift & 1 == 1);
            filled += 1;
            if filled == 8 {
                out.put_u8(byte);
                (byte, filled) = (0, 0);
            }
        }
    }
    if filled > 0 {
        out.put_u8(byte << (8 - filled));
    }
    out.freeze()
}

const SYNC_WORD: u32 = 0x0b77;
const SYNCFRAME: &str = "AC-3 syncframe";
/// `fscod`.
const SAMPLE_RATES: [u32; 3] = [48_000, 44_100, 32_000];
const SAMPLES_PER_BLOCK: u32 = 256;
/// `acmod`.
const DUAL_MONO: u8 = 0;
const STEREO: u8 = 2;
/// `strmtyp`.
const INDEPENDENT: u32 = 0;
const DEPENDENT: u32 = 1;
const CONVERTED: u32 = 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::samples::hex;

    /// ffmpeg 9: 192 kbit/s stereo.
    const AC3: &str = "0b77fe95144043e106f46370c0c0c218";
    /// The same as E-AC-3, without what follows the header.
    const EAC3: &str = "0b77017f3487c0002084210838008c06";

    fn filled(start: &str, bytes: usize) -> Vec<u8> {
        let mut frame = hex(start).to_vec();
        frame.resize(bytes, 0);
        frame
    }

    #[test]
    fn ac3_says_what_it_is() {
        let found = Configuration::of_access_unit(&hex(AC3)).unwrap();
        assert_eq!(found.sound(), Sound { sample_rate: 48_000, channels: 2 });
        assert_eq!((found.samples_per_frame(), found.rfc6381().as_str()), (1536, "ac-3"));
        // fscod 0, bsid 8, bsmod 0, acmod 2, no LFE, bit rate code 10.
        assert_eq!(found.record(), &hex("101140"));
        // 5.1, 44.1 kHz: acmod 7, centre and surround mix levels, LFE.
        let surround = Configuration::of_access_unit(&hex("0b77 0000 5c 40 e5 00")).unwrap();
        assert_eq!(surround.sound(), Sound { sample_rate: 44_100, channels: 6 });
    }

    #[test]
    fn eac3_counts_all_syncframes_of_the_message() {
        let frame = filled(EAC3, 768);
        let found = Configuration::of_access_unit(&frame).unwrap();
        assert_eq!(found.sound(), Sound { sample_rate: 48_000, channels: 2 });
        assert_eq!((found.samples_per_frame(), found.rfc6381().as_str()), (1536, "ec-3"));
        // 192 kbit/s, one substream: fscod 0, bsid 16, acmod 2.
        assert_eq!(found.record(), &hex("0600 200400"));
        let two = Configuration::of_access_unit(&[&frame[..], &frame].concat()).unwrap();
        assert_eq!(two.samples_per_frame(), 3072);
        // A dependent substream with the rear surrounds: 7.1 of 5.1.
        let main = filled("0b77 0007 3f 87c0", 16);
        let rear = filled("0b77 4007 34 87 d0 20 00", 16);
        let found = Configuration::of_access_unit(&[main, rear].concat()).unwrap();
        assert_eq!(found.samples_per_frame(), 1536);
        assert_eq!(found.sound().channels, 6 + 2);
        // fscod 0, bsid 16, acmod 7, LFE, one dependent substream with Lrs/Rrs.
        assert_eq!(found.record()[2..], hex("20 0f 02 02")[..]);
    }

    #[test]
    fn objects_stand_at_the_end_of_what_is_said_of_the_stream() {
        /// 5.1 in 6 blocks at 48 kHz, up to `compre`.
        const START: [(u32, u32); 9] =
            [(SYNC_WORD, 16), (0, 2), (0, 3), (7, 11), (0, 2), (3, 2), (7, 3), (1, 1), (16, 5)];
        let objects = [(1, 1), (1, 6), (1, 8), (16, 8)];
        let joc = |between: &[(u32, u32)]| {
            let fields = [&START[..], &[(31, 5), (0, 1)], between, &objects].concat();
            Configuration::of_access_unit(&packed(&fields)).unwrap()
        };
        // No mixing metadata, no information.
        let plain = joc(&[(0, 2)]);
        assert_eq!((plain.objects(), plain.sound().channels), (Some(16), 6));
        // fscod 0, bsid 16, acmod 7, LFE, no dependent substream; the extension with 16 objects.
        assert_eq!(plain.record()[2..], hex("20 0f 00 01 10")[..]);
        // All of it: mix levels, LFE level, scales, a definition of 3 bytes, blocks; audio production, source rate.
        let mixing = [(1, 1), (0, 14), (1, 1), (0, 5), (1, 1), (0, 6), (1, 1), (0, 6), (3, 2), (1, 5), (0, 24), (1, 1)];
        let blocks = [(1, 1), (0, 5), (0, 1), (0, 1), (0, 1), (0, 1), (0, 1)];
        let information = [(1, 1), (0, 5), (0, 2), (1, 1), (0, 8), (0, 1)];
        assert!(joc(&[&mixing[..], &blocks, &information].concat()).is_same_but_for_rate(&plain));
        // Additional information of another kind.
        let other = [&START[..], &[(31, 5), (0, 1), (0, 2), (1, 1), (1, 6), (0, 8), (16, 8)]].concat();
        assert_eq!(Configuration::of_access_unit(&packed(&other)).unwrap().objects(), None);
    }

    #[test]
    fn a_longer_syncframe_is_the_same_configuration() {
        let of = |bytes| Configuration::of_access_unit(&filled(EAC3, bytes)).unwrap();
        assert_ne!(of(768), of(760));
        assert!(of(768).is_same_but_for_rate(&of(760)));
        let of = |frame| Configuration::of_access_unit(&hex(frame)).unwrap();
        // 192 and 224 kbit/s; another number of channels.
        assert!(of(AC3).is_same_but_for_rate(&of("0b77fe95164043e1")));
        assert!(!of(AC3).is_same_but_for_rate(&of("0b77fe95144023e1")));
    }

    #[test]
    fn what_is_no_syncframe_is_refused_in_words() {
        for (frame, words) in [
            ("", "the bytes end within the AC-3 syncframe"),
            ("0b78fe95144043", "there is no AC-3 sync word"),
            ("0b77fe95d44043e1", "3 is no AC-3 sample rate code"),
            ("0b77fe9514c843", "AC-3 bit stream identification 25 is not supported"),
            ("0b77017f3487", "the bytes end within the AC-3 syncframe"),
            ("0b77417f3487c00020", "there is no independent E-AC-3 substream"),
        ] {
            assert_eq!(Configuration::of_access_unit(&hex(frame)).unwrap_err().to_string(), words, "{frame}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            start in prop::sample::select(vec!["", "0b77", AC3, EAC3, "0b77 0003 34 87"]),
            rest in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            if let Ok(found) = Configuration::of_access_unit(&[&hex(start)[..], &rest].concat()) {
                prop_assert!(found.sound().sample_rate > 0 && found.samples_per_frame() > 0);
            }
        }
    }
}
