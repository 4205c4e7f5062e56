//! What the tests over the corpus share.
//!
//! ```text
//! case ──> session ──replay──> upscope serve ──> output ──mp4──> samples ─┐
//!             └──chunk──> messages ──source──> access units ──────────────┴─> compared
//! ```
//!
//! Nothing here uses the program's own code: the sessions are read by a second chunk parser ([`chunk`], [`source`]), the
//! output by other people's parsers ([`output`], [`mp4`]), the program itself is a child process ([`server`]).

#![allow(dead_code, reason = "each test program uses a part of it")]
#![expect(clippy::disallowed_methods, reason = "only the program's core has no files and no clock")]

pub(crate) mod amf;
pub(crate) mod case;
pub(crate) mod chunk;
pub(crate) mod mp4;
pub(crate) mod output;
pub(crate) mod peer;
pub(crate) mod playlist;
pub(crate) mod replay;
pub(crate) mod run;
pub(crate) mod server;
pub(crate) mod session;
pub(crate) mod source;

use std::sync::atomic::{AtomicBool, Ordering};

/// Tells other threads that it is over when it is dropped, by a failed assertion too.
pub(crate) struct Over<'a>(pub(crate) &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Makes one test of each case of the corpus, named after it, and one that holds the list against the folder.
#[macro_export]
macro_rules! tests_of_the_corpus {
    ($check:path) => {
        $crate::tests_of_the_corpus! {
            $check:
            c_aac_hdr_late "c-aac-hdr-late",
            c_aggregate "c-aggregate",
            c_amf3_cmd "c-amf3-cmd",
            c_app_instance "c-app-instance",
            c_audio_lag3 "c-audio-lag3",
            c_audio_stops5 "c-audio-stops5",
            c_bigcsid "c-bigcsid",
            c_chunk1 "c-chunk1",
            c_close_abrupt "c-close-abrupt",
            c_data_messages "c-data-messages",
            c_empty_nal "c-empty-nal",
            c_extdelta "c-extdelta",
            c_interleave "c-interleave",
            c_jump_forward10 "c-jump-forward10",
            c_nal_len2 "c-nal-len2",
            c_nofcpublish "c-nofcpublish",
            c_nometa "c-nometa",
            c_onebyte "c-onebyte",
            c_query "c-query",
            c_res_change "c-res-change",
            c_sei_only "c-sei-only",
            c_seqhdr_repeat "c-seqhdr-repeat",
            c_short "c-short",
            c_ts24_abs "c-ts24-abs",
            c_two_publishes "c-two-publishes",
            c_unicode "c-unicode",
            c_unicode_odd_key_spaces "c-unicode-odd-key-spaces",
            c_video_starts3 "c-video-starts3",
            c_wrap32 "c-wrap32",
            c_wrongmeta "c-wrongmeta",
            c_zero_audio "c-zero-audio",
            r_ff51_5994 "r-ff51-5994",
            r_ff51_aac22 "r-ff51-aac22",
            r_ff51_aonly "r-ff51-aonly",
            r_ff51_baseline441mono "r-ff51-baseline441mono",
            r_ff51_copy "r-ff51-copy",
            r_ff51_heaac "r-ff51-heaac",
            r_ff51_kill9 "r-ff51-kill9",
            r_ff51_live "r-ff51-live",
            r_ff51_main441 "r-ff51-main441",
            r_ff51_opengop "r-ff51-opengop",
            r_ff51_query "r-ff51-query",
            r_ff51_ts24 "r-ff51-ts24",
            r_ff51_tsrelay "r-ff51-tsrelay",
            r_ff51_vfr "r-ff51-vfr",
            r_ff9_av1 "r-ff9-av1",
            r_ff9_hevc "r-ff9-hevc",
            r_ff9_multiaudio "r-ff9-multiaudio",
            r_ff9_opus "r-ff9-opus",
            r_gst_aonly "r-gst-aonly",
            r_gst_bbb "r-gst-bbb",
            r_gst_rtmp2sink "r-gst-rtmp2sink",
            r_librtmp "r-librtmp",
            r_nginx_push "r-nginx-push",
            r_obs_2s "r-obs-2s",
            r_obs_drop "r-obs-drop",
            r_xiu_push "r-xiu-push",
        }
    };
    ($check:path: $($test:ident $id:literal,)*) => {
        $(
            #[test]
            fn $test() {
                $check($id);
            }
        )*

        #[test]
        fn every_case_of_the_corpus_has_a_test() {
            assert_eq!($crate::common::case::ids(), vec![$($id),*]);
        }
    };
}
