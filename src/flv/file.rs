//! FLV files (FLV 10.1 §E.2, §E.3): the tags in a slice of bytes.

use bytes::{Buf, Bytes};

use super::{Error, Tag, parse_audio, parse_data, parse_video};

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
    pub fn parse(&self) -> Result<Option<Tag>, Error> {
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
