//! Event messages: timed metadata within a segment.

use bytes::{BufMut, BytesMut};

use super::write_full_box;

/// An ID3 tag for the moment at which it is to be known.
///
/// [Carriage of ID3 timed metadata in CMAF](https://aomediacodec.github.io/id3-emsg/)
#[derive(Debug, Clone, Copy)]
pub struct EventMessage<'a> {
    /// Ticks a second of the track it travels with.
    pub timescale: u32,
    /// When it is to be known, in ticks of that track's presentation.
    pub presentation_time: u64,
    /// Tells it from the others of the track.
    pub id: u32,
    /// The tag.
    pub id3: &'a [u8],
}

impl EventMessage<'_> {
    /// Writes the box, version 1.
    pub fn write(&self, out: &mut BytesMut) {
        write_full_box(out, b"emsg", 1, 0, |out| {
            out.put_u32(self.timescale);
            out.put_u64(self.presentation_time);
            out.put_u32(UNKNOWN_DURATION);
            out.put_u32(self.id);
            out.put_slice(SCHEME);
            // No value.
            out.put_u8(0);
            out.put_slice(self.id3);
        });
    }
}

const SCHEME: &[u8] = b"https://aomedia.org/emsg/ID3\0";
const UNKNOWN_DURATION: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use mp4::ReadBox;

    use super::*;

    #[test]
    fn another_reader_reads_it() {
        let message = EventMessage { timescale: 90_000, presentation_time: 1 << 33, id: 7, id3: b"ID3" };
        let mut out = BytesMut::new();
        message.write(&mut out);
        let mut bytes = std::io::Cursor::new(&out[..]);
        let header = mp4::BoxHeader::read(&mut bytes).unwrap();
        assert_eq!(header.size, out.len() as u64);
        let found = mp4::EmsgBox::read_box(&mut bytes, header.size).unwrap();
        assert_eq!((found.version, found.timescale, found.presentation_time, found.id), (1, 90_000, Some(1 << 33), 7));
        assert_eq!((found.event_duration, found.scheme_id_uri.as_str()), (u32::MAX, "https://aomedia.org/emsg/ID3"));
        assert_eq!((found.value.as_str(), &found.message_data[..]), ("", &b"ID3"[..]));
    }
}
