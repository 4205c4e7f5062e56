//! What one message of coded media is to those who package it.

use bytes::Bytes;

use super::{Captions, Configuration, Error, Light, av1, avc, hevc, nal, opus, vp9};

/// A coded picture, or sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Decoding can start here.
    pub is_sync: bool,
    /// A sync sample of an open GOP: pictures that follow it may be shown before it and need earlier ones.
    pub is_open_gop: bool,
    /// Sound: how many samples it decodes to, per channel; never 0.
    pub samples: Option<u32>,
    /// A picture: the captions in it.
    pub captions: Captions,
    /// The configuration from this picture on, where parameter sets in it make it another one.
    pub configuration: Option<Box<Configuration>>,
    /// The bytes, as CMAF wants them.
    pub data: Bytes,
}

impl Configuration {
    /// Looks into the coded `data` of one message, which the publisher called a key frame or not. `None` when it holds
    /// nothing that could be shown or heard.
    ///
    /// # Errors
    /// When no decoder could use it.
    pub fn inspect(&self, data: Bytes, is_called_key: bool) -> Result<Option<Frame>, Error> {
        let captions = Captions::default();
        let sound = |samples| {
            Some(Frame {
                is_sync: true,
                is_open_gop: false,
                samples: Some(samples),
                captions,
                configuration: None,
                data: data.clone(),
            })
        };
        match self {
            Self::Avc(current) => {
                let lengths = current.nal_length_size();
                let unit = avc::inspect(&data, lengths)?;
                // An I picture of an open GOP may be called nothing.
                let is_sync = unit.has_idr || is_called_key || unit.recovery_frame_count == Some(0);
                // Between sync samples there is no place for another header; decoders find the sets where they are.
                let next =
                    if unit.has_parameter_set && is_sync { current.with_sets_of(&data).unwrap_or(None) } else { None };
                Ok(unit.has_slice.then(|| Frame {
                    is_sync,
                    is_open_gop: is_sync && !unit.has_idr,
                    samples: None,
                    captions: unit.captions,
                    data: if lengths == 4 && !unit.has_empty_unit { data } else { nal::normalise(&data, lengths) },
                    configuration: next.map(|next| Box::new(Self::Avc(next))),
                }))
            }
            Self::Hevc(current) => {
                let lengths = current.nal_length_size();
                let unit = hevc::inspect(&data, lengths)?;
                let is_sync = unit.has_clean_start || unit.has_cra || is_called_key;
                let next =
                    if unit.has_parameter_set && is_sync { current.with_sets_of(&data).unwrap_or(None) } else { None };
                let next = next.map(Self::Hevc);
                Ok(unit.has_slice.then(|| Frame {
                    is_sync,
                    is_open_gop: is_sync && !unit.has_clean_start,
                    samples: None,
                    captions: unit.captions,
                    configuration: if is_sync { self.lit_by(next, unit.light) } else { None },
                    data: if lengths == 4 && !unit.has_empty_unit { data } else { nal::normalise(&data, lengths) },
                }))
            }
            Self::Av1(_) => {
                let unit = av1::inspect(&data)?;
                Ok(unit.has_frame.then(|| Frame {
                    is_sync: unit.is_key,
                    is_open_gop: false,
                    samples: None,
                    captions: unit.captions,
                    configuration: if unit.is_key { self.lit_by(None, unit.light) } else { None },
                    data: av1::normalise(&data),
                }))
            }
            Self::Vp9(_) => {
                let is_key = vp9::is_key(&data)?;
                Ok(Some(Frame {
                    is_sync: is_key,
                    is_open_gop: false,
                    samples: None,
                    captions,
                    configuration: None,
                    data,
                }))
            }
            Self::Aac(configuration) => Ok(sound(configuration.samples_per_frame())),
            Self::Mp3(configuration) => Ok(sound(configuration.samples_per_frame())),
            Self::Opus(_) => Ok(sound(opus::samples(&data)?)),
            Self::Flac(configuration) => Ok(sound(configuration.samples(&data)?)),
            Self::Ac3(configuration) => Ok(sound(configuration.samples_per_frame())),
        }
    }

    /// `next` in place of this configuration, with the light that a key frame says and it does not know yet: hardware encoders
    /// say it there only.
    fn lit_by(&self, next: Option<Self>, light: Light) -> Option<Box<Self>> {
        let known = next.as_ref().unwrap_or(self).picture().map_or(light, |picture| picture.light);
        let next =
            if known.or(light) == known { next } else { Some(next.unwrap_or_else(|| self.clone()).with_light(light)) };
        next.map(Box::new)
    }
}
