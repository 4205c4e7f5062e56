//! FLV files (FLV 10.1 §E.2, §E.3): the tags in a slice of bytes.

use bytes::{Buf, Bytes};

use super::{Error, Tags, parse_audio, parse_data, parse_video};

/// The tags of an FLV file, in file order. After an error there is nothing more.
#[derive(Debug, Clone)]
pub struct FileTags {
    rest: Bytes,
    position: usize,
}

/// A tag of an FLV file, its body not yet parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileTag {
    /// Where in the file it begins, in bytes.
    pub position: usize,
    /// What its body is.
    pub kind: FileTagKind,
    /// When it is to be decoded, in milliseconds.
    pub timestamp: u32,
    /// Its body, that of an RTMP message of the same kind.
    pub body: Bytes,
}

/// What the body of an FLV tag is: its tag type, which is the RTMP message type too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileTagKind {
    /// 8.
    Audio,
    /// 9.
    Video,
    /// 18.
    Data,
}

impl FileTags {
    /// Reads the header of `file`.
    ///
    /// # Errors
    /// [`Error::NotFlv`] when it does not begin as FLV files do; [`Error::CutShort`] when it is shorter than its header.
    pub fn new(file: &Bytes) -> Result<Self, Error> {
        let Some(&[b'F', b'L', b'V', 1, _flags, a, b, c, d]) = file.first_chunk() else {
            return Err(Error::NotFlv);
        };
        let header_bytes = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        // PreviousTagSize0 stands between the header and the first tag.
        let position = header_bytes.saturating_add(PREVIOUS_TAG_SIZE_BYTES);
        if header_bytes < SHORTEST_HEADER_BYTES || position > file.len() {
            return Err(Error::CutShort("FLV file header"));
        }
        Ok(Self { rest: file.slice(position..), position })
    }

    fn read(&mut self) -> Result<Option<FileTag>, Error> {
        let Some(&[tag_type, s0, s1, s2, t0, t1, t2, t3, _, _, _]) = self.rest.first_chunk() else {
            return Err(Error::CutShort("FLV tag header"));
        };
        let body_bytes = usize::try_from(u32::from_be_bytes([0, s0, s1, s2])).unwrap_or(usize::MAX);
        let tag_bytes = TAG_HEADER_BYTES.saturating_add(body_bytes);
        if tag_bytes > self.rest.len() {
            return Err(Error::CutShort("FLV tag"));
        }
        if tag_type & FILTER_BIT != 0 {
            return Err(Error::Unsupported("encrypted FLV tags are"));
        }
        let position = self.position;
        let body = self.rest.slice(TAG_HEADER_BYTES..tag_bytes);
        // The PreviousTagSize behind the last tag is often missing.
        let step = (tag_bytes + PREVIOUS_TAG_SIZE_BYTES).min(self.rest.len());
        self.rest.advance(step);
        self.position += step;
        let kind = match tag_type & 0b1_1111 {
            8 => FileTagKind::Audio,
            9 => FileTagKind::Video,
            18 => FileTagKind::Data,
            _ => return Ok(None),
        };
        Ok(Some(FileTag { position, kind, timestamp: u32::from_be_bytes([t3, t0, t1, t2]), body }))
    }
}

impl Iterator for FileTags {
    type Item = Result<FileTag, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            match self.read() {
                Ok(None) => {}
                Ok(Some(tag)) => return Some(Ok(tag)),
                Err(error) => {
                    self.rest.clear();
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

impl FileTag {
    /// Parses the body, as that of the RTMP message of this kind.
    ///
    /// # Errors
    /// Those of [`parse_audio`], [`parse_video`] and [`parse_data`].
    pub fn parse(&self) -> Result<Tags, Error> {
        match self.kind {
            FileTagKind::Audio => parse_audio(self.timestamp, &self.body),
            FileTagKind::Video => parse_video(self.timestamp, &self.body),
            FileTagKind::Data => parse_data(self.timestamp, &self.body),
        }
    }
}

const SHORTEST_HEADER_BYTES: usize = 9;
const TAG_HEADER_BYTES: usize = 11;
const PREVIOUS_TAG_SIZE_BYTES: usize = 4;
/// The tag is encrypted.
const FILTER_BIT: u8 = 0x20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::samples::hex;
    use crate::flv::{FourCc, Tag, TagBody, VideoPacket, VideoTag};

    const HEADER: &str = "464c5601 05 00000009 00000000";
    const VIDEO: &str = "09 000006 ffffff fe 000000 270100000041 00000011";
    const AUDIO: &str = "08 000003 000017 00 000000 af0121 0000000e";

    fn tags(file: &str) -> Vec<Result<FileTag, Error>> {
        FileTags::new(&hex(file)).unwrap().collect()
    }

    #[test]
    fn a_file_gives_its_tags_in_order() {
        // An unknown tag type (15) between them is passed over.
        let found = tags(&format!("{HEADER}{VIDEO}0f 000001 000000 00 000000 00 0000000c{AUDIO}"));
        let video =
            FileTag { position: 13, kind: FileTagKind::Video, timestamp: 0xfeff_ffff, body: hex("270100000041") };
        let audio = FileTag { position: 50, kind: FileTagKind::Audio, timestamp: 23, body: hex("af0121") };
        assert_eq!(found, [Ok(video.clone()), Ok(audio)]);
        let packet = VideoPacket::CodedFrames { composition_ms: 0, data: hex("41") };
        let body = TagBody::Video(VideoTag { track: 0, codec: FourCc::AVC, is_key: false, offset_ns: 0, packet });
        assert_eq!(video.parse().unwrap().collect::<Vec<_>>(), [Tag { timestamp: 0xfeff_ffff, body }]);
    }

    #[test]
    fn the_last_tag_size_may_be_missing() {
        let file = format!("{HEADER}{AUDIO}");
        assert_eq!(tags(&file[..file.len() - 8]).len(), 1);
        assert_eq!(tags(HEADER), []);
    }

    #[test]
    fn a_file_cut_short_gives_what_is_whole_and_an_error() {
        let file = format!("{HEADER}{AUDIO}{VIDEO}");
        let found = tags(&file[..file.len() - 13]);
        assert_eq!(found.len(), 2);
        assert_eq!(found[1], Err(Error::CutShort("FLV tag")));
        assert_eq!(tags(&format!("{HEADER}0900")), [Err(Error::CutShort("FLV tag header"))]);
        assert_eq!(
            tags(&format!("{HEADER}29 000001 000000 00 000000 00")),
            [Err(Error::Unsupported("encrypted FLV tags are"))]
        );
    }

    #[test]
    fn what_is_no_flv_file_is_refused() {
        for (file, error) in [
            ("", Error::NotFlv),
            ("464c56", Error::NotFlv),
            ("0000001866747970 00", Error::NotFlv),
            ("464c5601 05 00000009", Error::CutShort("FLV file header")),
            ("464c5601 05 00000000 00000000", Error::CutShort("FLV file header")),
            ("464c5601 05 ffffffff 00000000", Error::CutShort("FLV file header")),
        ] {
            assert_eq!(FileTags::new(&hex(file)).unwrap_err(), error, "{file}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic_or_go_on_for_ever(rest in prop::collection::vec(any::<u8>(), 0..200)) {
            let file = [&hex(HEADER)[..], &rest].concat().into();
            prop_assert!(FileTags::new(&file).unwrap().count() <= rest.len());
        }
    }
}
