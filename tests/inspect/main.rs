//! `upscope inspect` finds nothing in a correct broadcast, and in a broken one the rule that is broken and no other.

#![expect(clippy::disallowed_methods, reason = "tests plant faults in files")]

mod fixture;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use upscope::inspect::{self, Report};

use fixture::{Broadcast, FOLDER, position};

fn look(path: &Path) -> (Report, String) {
    let mut out = Vec::new();
    let report = inspect::run(path, &mut out).unwrap();
    (report, String::from_utf8(out).unwrap())
}

/// Plants a fault in a live broadcast; the rule with this id must be broken, and no other.
#[track_caller]
fn breaks(rule: &str, plant: impl FnOnce(&Broadcast)) {
    breaks_in(&Broadcast::live(), rule, plant);
}

#[track_caller]
fn breaks_in(broadcast: &Broadcast, rule: &str, plant: impl FnOnce(&Broadcast)) {
    plant(broadcast);
    let (report, text) = look(broadcast.path());
    let broken: BTreeSet<&str> = report.faults().map(|finding| finding.rule.id()).collect();
    assert_eq!(broken, BTreeSet::from([rule]), "{text}");
    assert_eq!(report.exit_code(), 1);
}

#[test]
fn a_correct_live_broadcast_has_no_findings_and_one_line_a_rendition() {
    let broadcast = Broadcast::live();
    let (report, text) = look(broadcast.path());
    assert_eq!(report.findings, [], "{text}");
    assert_eq!(report.exit_code(), 0);
    let expected = "\
live/cam1/index.m3u8: live, target duration 2 s
  rendition                  codec        size     rate        segments  gaps  duration    average    peak       overhead
  ~1763834098123/video.m3u8  avc1.4d400c  320x180  25.000 fps  8 (#3-10)  1     16 s        36 kbit/s  36 kbit/s  11.0 %
  ~1763834098123/audio.m3u8  mp4a.40.2    2 ch     44100 Hz    8 (#3-10)  1     16.021768 s  17 kbit/s  17 kbit/s  37.7 %
no rule broken
";
    assert_eq!(squeezed(&text), squeezed(expected));
}

/// Columns may be wider or narrower.
fn squeezed(text: &str) -> String {
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n").collect()
}

#[test]
fn an_ended_broadcast_a_playlist_and_a_folder_can_be_inspected() {
    let broadcast = Broadcast::ended();
    let stream = broadcast.path().join("live/cam1");
    let alone = [broadcast.file("video.m3u8"), broadcast.file("audio.m3u8"), broadcast.path().join(FOLDER)];
    for path in [broadcast.path().to_owned(), stream.join("index.m3u8"), stream].into_iter().chain(alone) {
        let (report, text) = look(&path);
        assert_eq!(report.findings, [], "{}: {text}", path.display());
    }
}

#[test]
fn findings_name_the_rule_its_source_the_file_and_what_is_wrong() {
    let broadcast = Broadcast::live();
    broadcast.edit_both(|text| text.replace("TARGETDURATION:2", "TARGETDURATION:1"));
    let (_, text) = look(broadcast.path());
    let line = "rule 6 [B 4.4.3.1]: live/cam1/~1763834098123/video-3.mp4: lasts 2 s, TARGETDURATION is 1\n";
    assert!(text.contains(line), "{text}");
}

#[test]
fn what_cannot_be_read_at_all_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    assert!(inspect::run(folder.path(), &mut Vec::new()).is_err());
    assert!(inspect::run(&folder.path().join("none"), &mut Vec::new()).is_err());
    let rubbish = folder.path().join("rubbish.m3u8");
    fs::write(&rubbish, "rubbish").unwrap();
    assert!(inspect::run(&rubbish, &mut Vec::new()).is_err());
}

// -- headers ------------------------------------------------------------------------------------------------------

#[test]
fn rule_1_a_header_without_an_iso6_brand() {
    breaks("1", |b| b.patch_box("video-init-0.mp4", b"ftyp", 0, b"iso4\0\0\0\0iso4iso5"));
}

#[test]
fn rule_1_a_header_that_does_not_start_with_ftyp() {
    breaks("1", |b| b.rename_box("audio-init-0.mp4", b"ftyp", b"free"));
}

#[test]
fn rule_1_a_header_without_mvex() {
    breaks("1", |b| b.rename_box("video-init-0.mp4", b"mvex", b"free"));
}

#[test]
fn rule_1_a_trex_for_another_track() {
    breaks("1", |b| b.patch_box("video-init-0.mp4", b"trex", 4, &[0, 0, 0, 9]));
}

#[test]
fn rule_1_a_duration_in_mvhd_or_tkhd() {
    breaks("1", |b| b.patch_box("video-init-0.mp4", b"mvhd", 16, &[0, 0, 1, 0]));
    breaks("1", |b| b.patch_box("video-init-0.mp4", b"tkhd", 20, &[0, 0, 1, 0]));
}

#[test]
fn rule_1_samples_in_the_header() {
    breaks("1", |b| b.patch_box("video-init-0.mp4", b"stsz", 8, &[0, 0, 0, 7]));
}

#[test]
fn rule_1_a_header_cut_short() {
    breaks("1", |b| b.patch("video-init-0.mp4", |bytes| bytes.truncate(bytes.len() - 40)));
}

#[test]
fn rule_1_a_sample_entry_that_contradicts_its_sps() {
    breaks("1", |b| b.patch_box("video-init-0.mp4", b"avc1", 24, &[2, 128]));
}

#[test]
fn rule_1_a_box_that_says_it_is_empty() {
    // Readers have looped for ever on it.
    breaks("1", |b| {
        b.patch("video-init-0.mp4", |bytes| {
            let at = position(bytes, b"avcC");
            bytes[at..at + 4].copy_from_slice(&[0; 4]);
        });
    });
}

#[test]
fn rule_8_avc3() {
    breaks("8", |b| {
        b.rename_box("video-init-0.mp4", b"avc1", b"avc3");
        let index = b.path().join("live/cam1/index.m3u8");
        fs::write(&index, fs::read_to_string(&index).unwrap().replace("avc1.", "avc3.")).unwrap();
    });
}

// -- fragments ----------------------------------------------------------------------------------------------------

#[test]
fn rule_2_a_fragment_without_tfdt() {
    breaks("2", |b| b.rename_box("video-4.mp4", b"tfdt", b"free"));
}

#[test]
fn rule_2_a_track_that_the_header_does_not_have() {
    breaks("2", |b| b.patch_box("video-4.mp4", b"tfhd", 4, &[0, 0, 0, 7]));
}

#[test]
fn rule_2_addresses_relative_to_the_file() {
    breaks("2", |b| b.patch_box("audio-4.mp4", b"tfhd", 0, &[0, 0, 0, 0]));
}

#[test]
fn rule_2_base_data_offset() {
    breaks("2", |b| {
        b.patch("audio-4.mp4", |bytes| {
            // Eight bytes more in tfhd: the boxes around it grow, the data moves.
            let tfhd = position(bytes, b"tfhd");
            bytes.splice(tfhd + 16..tfhd + 16, [0; 8]);
            bytes[tfhd + 11] = 1;
            for kind in [b"tfhd", b"traf", b"moof"] {
                let at = position(bytes, kind);
                let size = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) + 8;
                bytes[at..at + 4].copy_from_slice(&size.to_be_bytes());
            }
            let offset_at = position(bytes, b"trun") + 16;
            let offset = u32::from_be_bytes(bytes[offset_at..offset_at + 4].try_into().unwrap()) + 8;
            bytes[offset_at..offset_at + 4].copy_from_slice(&offset.to_be_bytes());
        });
    });
}

#[test]
fn rule_2_data_outside_the_mdat() {
    breaks("2", |b| b.patch_box("audio-4.mp4", b"trun", 8, &[0, 0, 0, 0]));
}

#[test]
fn rule_2_external_data() {
    breaks("2", |b| b.patch_box("audio-init-0.mp4", b"url ", 0, &[0, 0, 0, 0]));
}

#[test]
fn rule_4_a_segment_that_starts_at_another_time() {
    breaks("4", |b| {
        // Both fragments, by a second.
        b.patch("video-5.mp4", |bytes| {
            for at in positions(bytes, b"tfdt") {
                let time = u64::from_be_bytes(bytes[at + 12..at + 20].try_into().unwrap()) + 90_000;
                bytes[at + 12..at + 20].copy_from_slice(&time.to_be_bytes());
            }
        });
    });
}

#[test]
fn rule_4_a_fragment_that_starts_at_another_time() {
    breaks("4", |b| {
        b.patch("video-5.mp4", |bytes| {
            let at = positions(bytes, b"tfdt")[1] + 19;
            bytes[at] ^= 1;
        });
    });
}

#[test]
fn rule_13_a_gap_that_the_timeline_does_not_cross() {
    breaks("13", |b| {
        b.replace("video.m3u8", "#EXT-X-GAP\n#EXTINF:2.000000,", "#EXT-X-GAP\n#EXTINF:1.000000,");
        b.replace("video.m3u8", "57:02.163Z", "57:01.163Z");
    });
}

#[test]
fn rule_5_a_segment_that_starts_without_a_key_frame() {
    breaks("5", |b| b.patch_box("video-8.mp4", b"trun", 20, &[1, 1, 0, 0]));
}

#[test]
fn rule_5_a_sync_sample_that_is_no_key_frame() {
    breaks("5", |b| {
        b.patch("video-8.mp4", |bytes| {
            let at = position(bytes, b"mdat") + 12;
            bytes[at] = 0x41;
        });
    });
}

#[test]
fn a_recovery_point_is_a_sync_sample() {
    let broadcast = Broadcast::live();
    broadcast.patch("video-8.mp4", |bytes| {
        let at = position(bytes, b"mdat") + 8;
        let sei_and_slice = [&[0, 0, 0, 5, 6, 6, 1, 0x84, 0x80][..], &[0, 0, 1, 0x87, 0x41]].concat();
        bytes[at..at + sei_and_slice.len()].copy_from_slice(&sei_and_slice);
    });
    let (report, text) = look(broadcast.path());
    assert_eq!(report.findings, [], "{text}");
}

#[test]
fn rule_sample_a_duration_of_0() {
    breaks("sample", |b| {
        // The sample after it takes its time.
        b.patch_box("video-8.mp4", b"trun", 12, &0u32.to_be_bytes());
        b.patch_box("video-8.mp4", b"trun", 28, &7200u32.to_be_bytes());
    });
}

#[test]
fn rule_sample_nal_units_that_do_not_add_up() {
    breaks("sample", |b| b.patch_box("video-8.mp4", b"mdat", 3, &[7]));
}

#[test]
fn rule_19_a_missing_segment() {
    breaks("19", |b| fs::remove_file(b.file("audio-5.mp4")).unwrap());
}

#[test]
fn rule_19_a_missing_header() {
    breaks("19", |b| fs::remove_file(b.file("audio-init-0.mp4")).unwrap());
}

#[test]
fn rule_19_a_missing_playlist() {
    breaks("19", |b| fs::remove_file(b.file("audio.m3u8")).unwrap());
}

#[test]
fn rule_19_a_segment_cut_short_anywhere() {
    let whole = fs::read(Broadcast::live().file("video-10.mp4")).unwrap().len();
    for length in [0, 4, 100, whole / 2, whole - 1] {
        breaks("19", |b| b.patch("video-10.mp4", |bytes| bytes.truncate(length)));
    }
}

#[test]
fn rule_19_an_mdat_with_bytes_that_are_no_sample() {
    breaks("19", |b| {
        b.patch("audio-6.mp4", |bytes| {
            let at = *positions(bytes, b"mdat").last().unwrap();
            bytes.extend([0; 5]);
            let size = u32::try_from(bytes.len() - at).unwrap();
            bytes[at..at + 4].copy_from_slice(&size.to_be_bytes());
        });
    });
}

#[test]
fn rule_17_a_temporary_file_left_behind() {
    breaks_in(&Broadcast::ended(), "17", |b| b.write(".video-11.mp4.tmp", b"half"));
    // While it is live somebody may be writing it.
    let broadcast = Broadcast::live();
    broadcast.write(".video-11.mp4.tmp", b"half");
    assert_eq!(look(broadcast.path()).0.findings, []);
}

// -- playlists ----------------------------------------------------------------------------------------------------

#[test]
fn rule_3_no_map() {
    breaks("3", |b| b.edit("video.m3u8", |text| text.replace("#EXT-X-MAP:URI=\"video-init-0.mp4\"\n", "")));
}

#[test]
fn rule_6_a_segment_longer_than_the_target_duration() {
    breaks("6", |b| b.edit_both(|text| text.replace("TARGETDURATION:2", "TARGETDURATION:1")));
}

#[test]
fn rule_7_an_extinf_that_is_not_true() {
    breaks("7", |b| b.replace("video.m3u8", "#EXTINF:2.000000,\nvideo-4", "#EXTINF:1.900000,\nvideo-4"));
}

#[test]
fn rule_7_extinfs_that_are_all_a_little_off() {
    breaks("7", |b| {
        b.edit("video.m3u8", |text| {
            text.replace("#EXTINF:2.000000,", "#EXTINF:1.970000,")
                .replace("#EXT-X-GAP\n#EXTINF:1.970000,", "#EXT-X-GAP\n#EXTINF:2.000000,")
        });
    });
}

#[test]
fn rule_9_versions() {
    breaks("9", |b| b.replace("video.m3u8", "#EXT-X-VERSION:6\n", "#EXT-X-VERSION:6\n#EXT-X-VERSION:7\n"));
    breaks("9", |b| b.replace("video.m3u8", "#EXT-X-VERSION:6\n", "#EXT-X-VERSION:5\n"));
    breaks("9", |b| b.replace("video.m3u8", "#EXT-X-VERSION:6\n", ""));
}

#[test]
fn rule_10_a_discontinuity_without_a_discontinuity_sequence() {
    breaks("10", |b| b.edit_both(|text| text.replace("#EXT-X-DISCONTINUITY-SEQUENCE:1\n", "")));
}

#[test]
fn rule_10_a_discontinuity_sequence_after_the_first_segment() {
    breaks("10", |b| {
        b.edit_both(|text| {
            let text = text.replace("#EXT-X-DISCONTINUITY-SEQUENCE:1\n", "");
            text.replacen("-3.mp4\n", "-3.mp4\n#EXT-X-DISCONTINUITY-SEQUENCE:1\n", 1)
        });
    });
}

#[test]
fn rule_11_another_header_without_a_discontinuity() {
    breaks("11", |b| {
        let mut other = fs::read(b.file("video-init-0.mp4")).unwrap();
        // Another resolution in pixels per inch is another header.
        let at = position(&other, b"avc1") + 8 + 28;
        other[at + 1] = 0x60;
        b.write("video-init-1.mp4", &other);
        b.replace("video.m3u8", "video-5.mp4\n", "video-5.mp4\n#EXT-X-MAP:URI=\"video-init-1.mp4\"\n");
    });
}

#[test]
fn rule_12_dates() {
    breaks("12", |b| b.edit_both(|text| without_date(&text, 0)));
    breaks("12", |b| b.edit_both(|text| without_date(&text, 4)));
    breaks("12", |b| b.edit_both(|text| (0..8).fold(text, |text, _| without_date(&text, 0))));
    breaks("12", |b| b.replace("video.m3u8", "56:40.163Z", "56:40Z"));
    breaks("12", |b| b.replace("video.m3u8", "56:40.163Z", "56:40.163"));
    breaks("12", |b| b.replace("video.m3u8", "56:40.163Z", "56:41.163Z"));
}

/// Drops one of the dates.
fn without_date(text: &str, position: usize) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    let dates = lines.iter().enumerate().filter(|(_, line)| line.contains("DATE-TIME"));
    let at = dates.map(|(at, _)| at).nth(position).unwrap();
    lines.remove(at);
    lines.join("\n") + "\n"
}

#[test]
fn rule_14_date_ranges() {
    let add = |b: &Broadcast, tag: &str| b.replace("video.m3u8", "#EXT-X-MAP", &format!("{tag}\n#EXT-X-MAP"));
    breaks("14", |b| add(b, "#EXT-X-DATERANGE:START-DATE=\"2025-11-22T18:00:00.000Z\""));
    breaks("14", |b| add(b, "#EXT-X-DATERANGE:ID=\"a\""));
    breaks("14", |b| add(b, "#EXT-X-DATERANGE:ID=\"a\",START-DATE=\"2025-11-22T18:00:00.000Z\",DURATION=-1"));
    breaks("14", |b| add(b, "#EXT-X-DATERANGE:ID=\"a\",START-DATE=\"2025-11-22T18:00:00.000Z\",SCTE35-OUT=\"00\""));
    let range = |more: &str| format!("#EXT-X-DATERANGE:ID=\"a\",START-DATE=\"2025-11-22T18:00:00.000Z\"{more}");
    breaks("14", |b| add(b, &format!("{}\n{}", range(""), range(""))));
    breaks("14", |b| add(b, &format!("{}\n{}", range(",DURATION=1"), range(",DURATION=2"))));
    // The way back may say more than the way out.
    let broadcast = Broadcast::live();
    add(&broadcast, &format!("{}\n{}", range(",SCTE35-OUT=0x00"), range(",SCTE35-IN=0x00,DURATION=2")));
    assert_eq!(look(broadcast.path()).0.findings, []);
}

#[test]
fn timed_metadata_are_for_their_segment() {
    let message = |ticks: u32, time: u64, rest: &[u8]| {
        let body = [&[1, 0, 0, 0], &ticks.to_be_bytes()[..], &time.to_be_bytes(), &[0xff; 8], rest].concat();
        [&u32::try_from(8 + body.len()).unwrap().to_be_bytes()[..], b"emsg", &body].concat()
    };
    let plant = |b: &Broadcast, message: Vec<u8>, is_last: bool| {
        b.patch("video-3.mp4", |bytes| {
            let at = if is_last { bytes.len() } else { 0 };
            bytes.splice(at..at, message);
        });
    };
    let id3 = b"https://aomedia.org/emsg/ID3\0\0ID3";
    let good = Broadcast::live();
    plant(&good, message(90_000, u64::MAX, id3), false);
    assert_eq!(look(good.path()).0.findings, []);
    breaks("emsg", |b| plant(b, message(1_000, u64::MAX, id3), false));
    breaks("emsg", |b| plant(b, message(90_000, 0, id3), false));
    breaks("emsg", |b| plant(b, message(90_000, u64::MAX, b"https://aomedia.org/emsg/ID3\0\0ID2"), false));
    breaks("emsg", |b| plant(b, message(90_000, u64::MAX, b"https://aomedia.org/emsg/ID3"), false));
    breaks("emsg", |b| plant(b, message(90_000, u64::MAX, id3), true));
}

#[test]
fn rule_15_a_query_parameter_in_an_old_version() {
    breaks("15", |b| b.replace("video.m3u8", "#EXT-X-TARGET", "#EXT-X-DEFINE:QUERYPARAM=\"token\"\n#EXT-X-TARGET"));
}

#[test]
fn rule_21_a_name_listed_twice() {
    // A gap's file is not read, so nothing else is wrong.
    breaks("21", |b| b.replace("video.m3u8", "video-9.mp4", "video-8.mp4"));
}

#[test]
fn rule_21_a_name_in_two_renditions() {
    breaks("21", |b| b.replace("audio.m3u8", "audio-9.mp4", "video-9.mp4"));
}

#[test]
fn rule_21_a_media_sequence_after_the_first_segment() {
    breaks("21", |b| b.replace("video.m3u8", "video-3.mp4\n", "video-3.mp4\n#EXT-X-MEDIA-SEQUENCE:3\n"));
}

#[test]
fn rule_23_a_window_of_less_than_three_target_durations() {
    breaks("23", |b| {
        b.edit_both(|text| {
            let end = text.find("#EXT-X-DISCONTINUITY\n").unwrap();
            text[..end].replace("TARGETDURATION:2", "TARGETDURATION:3")
        });
    });
}

#[test]
fn rule_25_how_playlists_end() {
    for kind in ["VOD", "EVENT", "LIVE"] {
        let tag = format!("#EXT-X-PLAYLIST-TYPE:{kind}\n#EXT-X-MAP");
        breaks("25", |b| b.edit_both(|text| text.replacen("#EXT-X-MAP", &tag, 1)));
    }
    breaks("25", |b| {
        b.edit_both(|text| text.replacen("#EXT-X-DISCONTINUITY\n", "#EXT-X-ENDLIST\n#EXT-X-DISCONTINUITY\n", 1))
    });
}

#[test]
fn rule_36_parts() {
    let add = |b: &Broadcast, tags: &str| b.replace("video.m3u8", "#EXT-X-MAP", &format!("{tags}\n#EXT-X-MAP"));
    breaks("36", |b| add(b, "#EXT-X-PART-INF:PART-TARGET=1.0"));
    breaks("36", |b| add(b, "#EXT-X-SERVER-CONTROL:PART-HOLD-BACK=1.5\n#EXT-X-PART-INF:PART-TARGET=1.0"));
    breaks("36", |b| add(b, "#EXT-X-PART:DURATION=1.0,URI=\"video-3.1.mp4\""));
    let control = "#EXT-X-SERVER-CONTROL:PART-HOLD-BACK=3.0\n#EXT-X-PART-INF:PART-TARGET=1.0";
    breaks("36", |b| add(b, &format!("{control}\n#EXT-X-PART:DURATION=1.1,URI=\"video-3.1.mp4\"")));
}

#[test]
fn rule_17_a_playlist_read_half_written() {
    breaks("17", |b| b.edit_both(|text| text.trim_end().to_owned()));
    breaks("17", |b| b.edit_both(|text| text + "#EXTINF:2.000000,\n"));
}

#[test]
fn rule_uri_names_stay_in_the_folder() {
    for uri in ["/video-9.mp4", "../../video-9.mp4", "https://example.com/video-9.mp4"] {
        breaks("uri", |b| b.replace("video.m3u8", "video-9.mp4", uri));
    }
}

#[test]
fn rule_text_what_no_player_can_make_sense_of() {
    breaks("text", |b| {
        b.replace("video.m3u8", "#EXT-X-TARGETDURATION:2\n", "#EXT-X-TARGETDURATION:2\n#EXT-X-TARGETDURATION:3\n")
    });
    breaks("text", |b| b.replace("video.m3u8", "#EXT-X-MAP", "#EXT-X-DATERANGE:ID=\"a\",ID=\"b\"\n#EXT-X-MAP"));
    breaks("text", |b| b.write("other.m3u8", b"hello\n"));
}

// -- between renditions -------------------------------------------------------------------------------------------

#[test]
fn rule_37_another_target_duration() {
    breaks("37", |b| b.replace("audio.m3u8", "TARGETDURATION:2", "TARGETDURATION:3"));
}

#[test]
fn rule_37_other_numbers() {
    breaks("37", |b| b.replace("audio.m3u8", "MEDIA-SEQUENCE:3", "MEDIA-SEQUENCE:4"));
    breaks("37", |b| b.replace("audio.m3u8", "MEDIA-SEQUENCE:3", "MEDIA-SEQUENCE:30"));
    breaks("37", |b| b.replace("audio.m3u8", "DISCONTINUITY-SEQUENCE:1", "DISCONTINUITY-SEQUENCE:2"));
}

#[test]
fn rule_37_other_dates() {
    // All by the same 57 ms: each playlist is right by itself.
    breaks("37", |b| b.edit("video.m3u8", |text| text.replace(".163Z", ".220Z")));
}

#[test]
fn a_rendition_of_a_live_broadcast_may_be_a_segment_ahead() {
    let broadcast = Broadcast::live();
    broadcast.edit("audio.m3u8", |text| {
        let end = text.rfind("#EXT-X-PROGRAM-DATE-TIME").unwrap();
        text[..end].to_owned()
    });
    let (report, text) = look(broadcast.path());
    assert_eq!(report.findings, [], "{text}");
}

#[test]
fn rule_38_captions() {
    let add = |b: &Broadcast, attributes: &str, group: &str| {
        b.edit("../index.m3u8", |text| {
            let media = format!("#EXT-X-MEDIA:GROUP-ID=\"cc\",NAME=\"a\",{attributes}\n#EXT-X-STREAM-INF:");
            text.replace("#EXT-X-STREAM-INF:", &format!("{media}CLOSED-CAPTIONS={group},"))
        });
    };
    let cc1 = "TYPE=CLOSED-CAPTIONS,INSTREAM-ID=\"CC1\"";
    for group in ["\"cc\"", "NONE"] {
        let good = Broadcast::live();
        add(&good, cc1, group);
        assert_eq!(look(good.path()).0.findings, []);
    }
    breaks("38", |b| add(b, cc1, "\"dd\""));
    breaks("38", |b| add(b, "TYPE=CLOSED-CAPTIONS", "\"cc\""));
    breaks("38", |b| add(b, "TYPE=CLOSED-CAPTIONS,INSTREAM-ID=\"CC5\"", "\"cc\""));
    breaks("38", |b| add(b, &format!("{cc1},URI=\"~1763834098123/video.m3u8\""), "\"cc\""));
    breaks("9", |b| add(b, "TYPE=CLOSED-CAPTIONS,INSTREAM-ID=\"SERVICE1\"", "\"cc\""));
}

#[test]
fn rule_38_what_the_multivariant_playlist_says() {
    for (from, to) in [
        ("avc1.4d400c", "avc1.640028"),
        ("avc1.4d400c,mp4a.40.2", "avc1.4d400c"),
        ("avc1.4d400c,mp4a.40.2", "avc1.4d400c,mp4a.40.2,ec-3"),
        (",CODECS=\"avc1.4d400c,mp4a.40.2\"", ""),
        ("RESOLUTION=320x180", "RESOLUTION=640x360"),
        (",RESOLUTION=320x180", ""),
        ("FRAME-RATE=25.000", "FRAME-RATE=30.000"),
        ("FRAME-RATE=25.000", "FRAME-RATE=25.00001"),
        (",FRAME-RATE=25.000", ""),
        ("BANDWIDTH=60000,AVERAGE-BANDWIDTH=55000", "BANDWIDTH=30000,AVERAGE-BANDWIDTH=30000"),
        ("BANDWIDTH=60000,AVERAGE-BANDWIDTH=55000", "BANDWIDTH=60000,AVERAGE-BANDWIDTH=40000"),
        ("BANDWIDTH=60000", "BANDWIDTH=50000"),
        (",AVERAGE-BANDWIDTH=55000", ""),
        ("CHANNELS=\"2\"", "CHANNELS=\"6\""),
        ("AUDIO=\"audio\"", "AUDIO=\"sound\",SUBTITLES=\"audio\""),
    ] {
        breaks("38", |b| b.replace("../index.m3u8", from, to));
    }
}

// -- others' files ------------------------------------------------------------------------------------------------

/// Cuts and flips in every file: whatever comes out, it comes out soon and without a panic.
#[test]
fn broken_files_are_findings_and_never_an_end() {
    let mut random = Random(1);
    for name in ["video-init-0.mp4", "audio-init-0.mp4", "video-4.mp4", "audio-4.mp4", "video.m3u8", "../index.m3u8"] {
        let broadcast = Broadcast::live();
        let whole = fs::read(broadcast.file(name)).unwrap();
        // What matters is in the boxes, not in the samples behind them.
        let interesting = whole.len().min(1500);
        for _ in 0..150 {
            let mut bytes = whole.clone();
            for _ in 0..=random.below(3) {
                let at = random.below(interesting);
                match random.below(4) {
                    0 => bytes[at] = 0,
                    1 => bytes[at] = 0xff,
                    2 => bytes[at] ^= 1 << random.below(8),
                    _ => bytes[at] = u8::try_from(random.below(256)).unwrap(),
                }
            }
            if random.below(8) == 0 {
                bytes.truncate(random.below(whole.len()));
            }
            broadcast.write(name, &bytes);
            let _ = look(broadcast.path());
        }
    }
}

/// Numbers that are the same in every run (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % limit
    }
}

fn positions(bytes: &[u8], kind: &[u8; 4]) -> Vec<usize> {
    bytes.windows(4).enumerate().filter(|(_, window)| window == kind).map(|(at, _)| at - 4).collect()
}
