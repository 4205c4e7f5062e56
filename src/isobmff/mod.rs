//! ISO base media file format: the boxes of a CMAF header and of a movie fragment.
//!
//! | document | what of it |
//! |---|---|
//! | [ISO/IEC 14496-12:2022](https://www.iso.org/standard/83102.html) | boxes; §8.8 movie fragments |
//! | [ISO/IEC 14496-14:2020](https://www.iso.org/standard/79110.html) | `mp4a`, `esds` |
//! | [ISO/IEC 14496-15:2022](https://www.iso.org/standard/83336.html) §5.4 | `avc1`, `avcC` |
//! | [ISO/IEC 23009-1:2022](https://www.iso.org/standard/83314.html) §5.10.3.3 | `emsg` |
//! | [ISO/IEC 23000-19:2024](https://www.iso.org/standard/85623.html) | what CMAF asks of them |
//!
//! ```text
//! ftyp                              write_header: once a track and configuration
//! moov  mvhd
//!       trak  tkhd
//!             mdia  mdhd hdlr
//!                   minf  vmhd | smhd
//!                         dinf
//!                         stbl  stsd  avc1 | mp4a …   stts stsc stsz stco, all empty
//!       mvex  trex
//!
//! emsg                              EventMessage: timed metadata, before the moof of its chunk
//! moof  mfhd                        MovieFragment: hot, written by hand into a reused buffer
//!       traf  tfhd tfdt trun
//! mdat                              only its header; the samples follow as they came
//! ```
//!
//! One track a file (as CMAF wants it), whose id is [`TRACK_ID`]. Knows nothing of HLS.

mod event_message;
#[cfg(test)]
mod listing;
mod movie;
mod movie_fragment;
mod read_header;
mod sample_entry;

use bytes::{BufMut, BytesMut};

pub use self::event_message::EventMessage;
pub use self::movie::write_header;
pub use self::movie_fragment::MovieFragment;
pub use self::read_header::{read_decode_time, read_header, read_timescale};

/// The id of the one track in each file.
pub const TRACK_ID: u32 = 1;

/// Writes a box: its size is patched once `body` has written the rest.
fn write_box(out: &mut BytesMut, kind: &[u8; 4], body: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u32(0);
    out.put_slice(kind);
    body(out);
    let size = u32::try_from(out.len() - start).expect("only mdat, written elsewhere, can be larger than 4 GiB");
    out[start..start + 4].copy_from_slice(&size.to_be_bytes());
}

/// Writes a box with version and flags.
fn write_full_box(out: &mut BytesMut, kind: &[u8; 4], version: u8, flags: u32, body: impl FnOnce(&mut BytesMut)) {
    write_box(out, kind, |out| {
        out.put_u32(u32::from(version) << 24 | flags);
        body(out);
    });
}
