//! Which codec is which, and where its configuration comes from: a sequence header, the frames, or both.

use bytes::Bytes;

use crate::codec::{Configuration, Error, aac, ac3, av1, avc, flac, hevc, mp3, opus, vp9};
use crate::flv::FourCc;

/// What a sequence header gives.
pub(super) enum SequenceStart {
    /// All there is to know.
    Configuration(Configuration),
    /// The rest stands in the first key frame.
    Vp9(vp9::Record),
    /// Nothing: the frames say it.
    InBand,
}

/// Whether a codec can be carried.
pub(super) fn is_carried(codec: FourCc) -> bool {
    matches!(
        codec,
        FourCc::AVC
            | FourCc::HEVC
            | FourCc::AV1
            | FourCc::VP9
            | FourCc::AAC
            | FourCc::MP3
            | FourCc::OPUS
            | FourCc::FLAC
            | FourCc::AC3
            | FourCc::EAC3
    )
}

/// Parses the sequence header of a codec that is carried.
pub(super) fn sequence_start(codec: FourCc, record: Bytes) -> Result<SequenceStart, Error> {
    let configuration = match codec {
        FourCc::AVC => Configuration::Avc(avc::Configuration::parse(record)?),
        FourCc::HEVC => Configuration::Hevc(hevc::Configuration::parse(record)?),
        FourCc::AV1 => match av1::Configuration::parse(record) {
            Err(Error::Missing(_)) => return Ok(SequenceStart::InBand),
            parsed => Configuration::Av1(parsed?),
        },
        FourCc::VP9 => return Ok(SequenceStart::Vp9(vp9::Record::parse(&record)?)),
        FourCc::AAC => Configuration::Aac(aac::Configuration::parse(record)?),
        FourCc::OPUS => Configuration::Opus(opus::Configuration::parse(record)?),
        FourCc::FLAC => Configuration::Flac(flac::Configuration::parse(record)?),
        _ => return Ok(SequenceStart::InBand),
    };
    Ok(SequenceStart::Configuration(configuration))
}

/// The configuration that stands in a coded frame, where it is another one than `current`.
pub(super) fn in_band(
    codec: FourCc,
    record: Option<vp9::Record>,
    current: Option<&Configuration>,
    data: &[u8],
) -> Result<Option<Configuration>, Error> {
    let found = match codec {
        FourCc::AV1 => match (av1::Configuration::of_temporal_unit(data)?, current) {
            (Some(found), Some(Configuration::Av1(current))) if found.is_same_sequence(current) => None,
            (found, _) => found.map(Configuration::Av1),
        },
        FourCc::VP9 => vp9::Configuration::of_frame(record, data)?.map(Configuration::Vp9),
        FourCc::MP3 => Some(Configuration::Mp3(mp3::Configuration::of_frame(data)?)),
        FourCc::AC3 | FourCc::EAC3 => match (ac3::Configuration::of_access_unit(data)?, current) {
            (found, Some(Configuration::Ac3(current))) if found.is_same_but_for_rate(current) => None,
            (found, _) => Some(Configuration::Ac3(found)),
        },
        _ => None,
    };
    Ok(found.filter(|found| current != Some(found)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::codec::samples::{FFMPEG_AAC, FFMPEG_HEVC, hex};
    use crate::codec::{Colour, Light};
    use crate::flv::{AudioPacket, AudioTag, FourCc, Tag, TagBody, VideoPacket, VideoTag};
    use crate::media::{Item, Moment};
    use crate::remuxer::Remuxer;

    fn remuxer() -> Remuxer {
        Remuxer::new(Duration::from_secs(1))
    }

    fn audio(timestamp: u32, codec: FourCc, packet: AudioPacket) -> Tag {
        Tag { timestamp, body: TagBody::Audio(AudioTag { track: 0, codec, packet }) }
    }

    fn sound(timestamp: u32, codec: FourCc, data: &str) -> Tag {
        audio(timestamp, codec, AudioPacket::CodedFrames(hex(data)))
    }

    fn video(timestamp: u32, codec: FourCc, is_key: bool, packet: VideoPacket) -> Tag {
        Tag { timestamp, body: TagBody::Video(VideoTag { track: 0, codec, is_key, offset_ns: 0, packet }) }
    }

    fn picture(timestamp: u32, codec: FourCc, is_key: bool, data: &str) -> Tag {
        video(timestamp, codec, is_key, VideoPacket::CodedFrames { composition_ms: 0, data: hex(data) })
    }

    /// What comes out of `tags`, a line an item; errors among them.
    fn said(remuxer: &mut Remuxer, tags: impl IntoIterator<Item = Tag>) -> Vec<String> {
        let mut lines = Vec::new();
        for tag in tags {
            lines.extend(remuxer.handle_tag(tag, Moment::default()).err().map(|error| error.to_string()));
            while let Some(item) = remuxer.poll_item() {
                lines.push(match item {
                    Item::Epoch(_) => "epoch".to_owned(),
                    Item::Track(track) => {
                        let ticks = track.timescale.ticks_per_second();
                        let range = track.configuration.picture().map(|picture| format!(" {:?}", picture.range()));
                        format!("{} {} {ticks}{}", track.id, track.configuration.rfc6381(), range.unwrap_or_default())
                    }
                    Item::Sample(id, sample) => {
                        format!("{id} {} +{} {} bytes", sample.decode_time, sample.duration, sample.data.len())
                    }
                    Item::Captions(id, captions) => format!("{id} captions {captions:?}"),
                    Item::Event(event) => format!("event {}", event.time_us),
                });
            }
        }
        lines
    }

    #[test]
    fn what_is_not_carried_is_said_once_and_not_waited_for() {
        let h263 = FourCc(*b"FLV1");
        let tags = [
            picture(0, h263, true, "00"),
            audio(0, FourCc::AAC, AudioPacket::SequenceStart(hex(FFMPEG_AAC))),
            sound(0, FourCc::AAC, "2110"),
            picture(40, h263, false, "00"),
        ];
        let expected = [
            "video is left out: HLS players do not take Sorenson H.263",
            "epoch",
            "audio mp4a.40.2 48000",
            "audio 48000 +1024 2 bytes",
        ];
        let mut remuxer = remuxer();
        assert_eq!(said(&mut remuxer, tags.clone()), expected);
        assert_eq!(remuxer.dropped().unsupported, 2);
        // Sound first: it goes on as soon as there is nothing more to hope for.
        let mut remuxer = self::remuxer();
        assert_eq!(said(&mut remuxer, tags[1..3].iter().cloned()), Vec::<String>::new());
        assert_eq!(said(&mut remuxer, [tags[0].clone()]).len(), 4);
        // The next publisher hears it again.
        remuxer.interrupt();
        assert_eq!(said(&mut remuxer, [tags[0].clone()])[0], expected[0]);
    }

    #[test]
    fn mp3_says_in_each_frame_what_it_is() {
        let mut remuxer = remuxer();
        let tags = [(0, "fffb9464"), (1000, "fffb9464"), (1024, "fff38044")];
        let found = said(&mut remuxer, tags.map(|(timestamp, frame)| sound(timestamp, FourCc::MP3, frame)));
        assert_eq!(found[..3], ["epoch", "audio mp4a.40.34 48000", "audio 48000 +1152 4 bytes"]);
        assert_eq!(found[4..5], ["audio mp4a.40.34 22050"]);
        let bad = said(&mut remuxer, [sound(1050, FourCc::MP3, "00000000")]);
        assert_eq!(bad, ["a message of the audio is passed over: there is no MP3 sync word"]);
    }

    #[test]
    fn syncframes_of_eac3_that_are_a_little_longer_change_nothing() {
        let frame = |bytes: usize| {
            let mut frame = hex("0b77017f5487c0002084210838008c06").to_vec();
            frame.resize(bytes, 0);
            AudioPacket::CodedFrames(frame.into())
        };
        let tags = (0..60).map(|number| audio(number * 35, FourCc::EAC3, frame(834 + 2 * (number as usize % 2))));
        let found = said(&mut remuxer(), tags);
        assert_eq!(found.iter().filter(|line| line.contains("ec-3")).count(), 1, "{found:?}");
    }

    #[test]
    fn vp9_is_whole_with_its_first_key_frame_and_another_size_is_another_configuration() {
        let mut remuxer = remuxer();
        let key = "824983420013f00b360638241c184a";
        let smaller = key.replace("0013f0", "0009f0");
        let record = VideoPacket::SequenceStart(hex("01000000 001482020202 0000"));
        let found = said(
            &mut remuxer,
            [
                video(0, FourCc::VP9, true, record),
                picture(0, FourCc::VP9, false, "86004092"),
                picture(40, FourCc::VP9, true, key),
                picture(1080, FourCc::VP9, true, &smaller),
            ],
        );
        // Its level is that of the record.
        let tracks: Vec<_> = found.iter().filter(|line| line.contains("vp09")).collect();
        assert_eq!(tracks, ["video vp09.00.20.08 90000 Sdr"; 2]);
        assert_eq!(remuxer.dropped().before_configuration, 1);
    }

    #[test]
    fn av1_may_have_its_sequence_header_in_the_first_key_frame_only() {
        let mut remuxer = remuxer();
        let found = said(
            &mut remuxer,
            [
                video(0, FourCc::AV1, true, VideoPacket::SequenceStart(hex("81000c00"))),
                picture(0, FourCc::AV1, true, "1200 0a0b0200000521e7f66257c802 3204 10009020"),
                picture(1040, FourCc::AV1, false, "1200 3204 30009020"),
            ],
        );
        let expected =
            ["epoch", "video av01.0.00M.08 90000 Sdr", "video 90000 +3000 19 bytes", "video 183600 +45000 6 bytes"];
        assert_eq!(found, expected);
    }

    #[test]
    fn light_that_key_frames_say_is_in_the_first_header() {
        let light =
            "0000001e 4e01 8918 33c286c41d4c0bb884d03e803d134042 00989680 0000030001 80 00000009 4e01 9004 03e80190 80";
        let key = |timestamp, light| {
            picture(timestamp, FourCc::HEVC, true, &format!("{light} 00000003 2801af").replace(' ', ""))
        };
        let start = video(0, FourCc::HEVC, true, VideoPacket::SequenceStart(hex(FFMPEG_HEVC)));
        let mut remuxer = remuxer();
        let mut lights = Vec::new();
        for tag in [start, key(0, light), key(1000, light), key(2000, "")] {
            remuxer.handle_tag(tag, Moment::default()).unwrap();
            while let Some(item) = remuxer.poll_item() {
                if let Item::Track(track) = item {
                    lights.push(track.configuration.picture().unwrap().light);
                }
            }
        }
        assert_eq!(lights.len(), 1);
        assert_eq!(lights[0].content_light_level.unwrap().most_average, 400);
        assert_eq!(lights[0].mastering_display.unwrap().most_luminance, 10_000_000);
    }

    #[test]
    fn nanoseconds_count_when_pictures_are_shown() {
        let start = video(0, FourCc::HEVC, true, VideoPacket::SequenceStart(hex(FFMPEG_HEVC)));
        let mut remuxer = remuxer();
        let mut shown = Vec::new();
        // 60 000/1001 pictures a second.
        let pictures = (0..120_u64).map(|number| {
            let ns = number * 1_001_000_000 / 60;
            let (ms, offset_ns) = (u32::try_from(ns / 1_000_000).unwrap(), u32::try_from(ns % 1_000_000).unwrap());
            let Tag { body: TagBody::Video(video), timestamp } = picture(ms, FourCc::HEVC, true, "000000032801af")
            else {
                panic!()
            };
            Tag { timestamp, body: TagBody::Video(VideoTag { offset_ns, ..video }) }
        });
        for tag in std::iter::once(start).chain(pictures) {
            remuxer.handle_tag(tag, Moment::default()).unwrap();
            while let Some(item) = remuxer.poll_item() {
                if let Item::Sample(_, sample) = item {
                    shown.push(sample.presentation_time());
                }
            }
        }
        assert_eq!(shown.len(), 120);
        assert!(shown.iter().zip(0..).all(|(time, number)| (time - shown[0]).abs_diff(number * 3003 / 2) <= 1));
    }

    #[test]
    fn the_transfer_that_key_frames_prefer_is_in_the_first_header() {
        let key = picture(0, FourCc::HEVC, true, "000000064e0193011280 000000032801af");
        let start = video(0, FourCc::HEVC, true, VideoPacket::SequenceStart(hex(FFMPEG_HEVC)));
        let found = said(&mut remuxer(), [start, key, picture(1000, FourCc::HEVC, false, "00000003 0201d0")]);
        assert!(found.contains(&"video hvc1.1.6.L60.90 90000 Hlg".to_owned()), "{found:?}");
    }

    #[test]
    fn light_said_beside_the_codec_counts_from_the_next_key_frame_on() {
        let mut remuxer = remuxer();
        let light = |transfer| {
            let colour = Some(Colour { primaries: 9, transfer, matrix: 9, is_full_range: false });
            video(0, FourCc::HEVC, false, VideoPacket::Light(Light { colour, ..Light::default() }))
        };
        let key = |timestamp| picture(timestamp, FourCc::HEVC, true, "00000003 2801af");
        let start = video(0, FourCc::HEVC, true, VideoPacket::SequenceStart(hex(FFMPEG_HEVC)));
        let inter = |timestamp| picture(timestamp, FourCc::HEVC, false, "00000003 0201d0");
        let tracks = |lines: Vec<String>| lines.into_iter().filter(|line| line.contains("hvc1")).collect::<Vec<_>>();
        let first = said(&mut remuxer, [start, light(16), key(0), inter(1000)]);
        assert_eq!(tracks(first), ["video hvc1.1.6.L60.90 90000 Pq"]);
        assert_eq!(tracks(said(&mut remuxer, [light(18), inter(1040), light(16), key(1080)])), Vec::<String>::new());
        assert_eq!(tracks(said(&mut remuxer, [light(18), inter(1120)])), Vec::<String>::new());
        assert_eq!(tracks(said(&mut remuxer, [key(1160)])), ["video hvc1.1.6.L60.90 90000 Hlg"]);
    }
}
