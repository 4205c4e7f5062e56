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

/// Makes one test of each case of the corpus, named after it, and one that holds the list against the folder.
#[macro_export]
macro_rules! tests_of_the_corpus {
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
