//! Boxes (ISO/IEC 14496-12) by a few lines that share nothing with the program.

/// A box: its type and what stands behind its header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mp4Box<'a> {
    pub(crate) kind: [u8; 4],
    pub(crate) size: usize,
    pub(crate) body: &'a [u8],
}

/// The boxes that `bytes` consists of.
pub(crate) fn boxes(mut bytes: &[u8]) -> Vec<Mp4Box<'_>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let size = u32_at(bytes, 0) as usize;
        assert!((8..=bytes.len()).contains(&size), "a box of {size} bytes where {} are left", bytes.len());
        let (this, rest) = bytes.split_at(size);
        found.push(Mp4Box { kind: this[4..8].try_into().unwrap(), size, body: &this[8..] });
        bytes = rest;
    }
    found
}

impl<'a> Mp4Box<'a> {
    /// The only box of type `kind` in this one.
    pub(crate) fn only(&self, kind: &[u8; 4]) -> Self {
        let mut found = boxes(self.body).into_iter().filter(|inner| inner.kind == *kind);
        let only = found.next().unwrap_or_else(|| panic!("no {}", kind.escape_ascii()));
        assert!(found.next().is_none(), "more than one {}", kind.escape_ascii());
        only
    }

    pub(crate) fn version(&self) -> u8 {
        self.body[0]
    }

    /// The flags of a full box.
    pub(crate) fn flags(&self) -> u32 {
        u32_at(self.body, 0) & 0xFF_FFFF
    }

    /// Fields of four bytes behind version and flags.
    pub(crate) fn fields(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.body[4..].chunks_exact(4).map(|field| u32_at(field, 0))
    }
}

/// One coded picture or audio frame, in ticks of its track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) decode_time: u64,
    pub(crate) duration: u32,
    pub(crate) composition_offset: i32,
    pub(crate) size: u32,
    pub(crate) is_sync: bool,
}

/// The samples of a segment, chunk by chunk. Asserts that each `mdat` is what the `moof` before it says.
pub(crate) fn chunks(segment: &[u8]) -> Vec<Vec<Sample>> {
    let mut boxes = boxes(segment);
    boxes.retain(|found| found.kind != *b"emsg");
    assert!(boxes.len().is_multiple_of(2), "not pairs of moof and mdat");
    boxes
        .chunks_exact(2)
        .map(|pair| {
            let [moof, mdat] = pair else { unreachable!() };
            assert_eq!([moof.kind, mdat.kind], [*b"moof", *b"mdat"]);
            let (data_offset, samples) = samples(moof);
            assert_eq!(data_offset as usize, moof.size + 8, "the data offset");
            let bytes: usize = samples.iter().map(|sample| sample.size as usize).sum();
            assert_eq!(bytes, mdat.body.len(), "the bytes of a chunk's samples");
            samples
        })
        .collect()
}

/// §8.8.7, §8.8.8, §8.8.12.
fn samples(moof: &Mp4Box<'_>) -> (u32, Vec<Sample>) {
    const NON_SYNC: u32 = 0x1_0000;
    let traf = moof.only(b"traf");
    let (tfhd, tfdt, trun) = (traf.only(b"tfhd"), traf.only(b"tfdt"), traf.only(b"trun"));
    let mut fields = tfhd.fields().skip(1);
    let mut next_if = |flag| (tfhd.flags() & flag != 0).then(|| fields.next().unwrap());
    let (duration, size, flags) = (next_if(0x08), next_if(0x10), next_if(0x20));
    let mut decode_time = match tfdt.version() {
        0 => u64::from(u32_at(tfdt.body, 4)),
        _ => u64::from(u32_at(tfdt.body, 4)) << 32 | u64::from(u32_at(tfdt.body, 8)),
    };
    let mut fields = trun.fields();
    let count = fields.next().unwrap();
    let mut next_if = |flag| (trun.flags() & flag != 0).then(|| fields.next().unwrap());
    let data_offset = next_if(0x01).expect("a data offset");
    let mut first_flags = next_if(0x04);
    let samples = (0..count)
        .map(|_| {
            let sample = Sample {
                decode_time,
                duration: next_if(0x100).or(duration).unwrap(),
                size: next_if(0x200).or(size).unwrap(),
                is_sync: next_if(0x400).or_else(|| first_flags.take()).or(flags).unwrap() & NON_SYNC == 0,
                composition_offset: next_if(0x800).unwrap_or(0).cast_signed(),
            };
            decode_time += u64::from(sample.duration);
            sample
        })
        .collect();
    (data_offset, samples)
}

/// The ticks a second of a header's track (§8.4.2).
pub(crate) fn timescale(header: &[u8]) -> u64 {
    let moov = boxes(header).into_iter().find(|found| found.kind == *b"moov").expect("no moov");
    let mdhd = moov.only(b"trak").only(b"mdia").only(b"mdhd");
    u32_at(mdhd.body, if mdhd.version() == 0 { 12 } else { 20 }).into()
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}
