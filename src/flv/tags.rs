//! The tags of one message: one as a rule, several from Enhanced RTMP multitrack.

use super::Tag;

/// An iterator that does not allocate for the usual one.
#[derive(Debug, Default)]
pub struct Tags {
    one: Option<Tag>,
    more: std::vec::IntoIter<Tag>,
}

impl Iterator for Tags {
    type Item = Tag;

    fn next(&mut self) -> Option<Tag> {
        self.one.take().or_else(|| self.more.next())
    }
}

impl From<Option<Tag>> for Tags {
    fn from(one: Option<Tag>) -> Self {
        Self { one, ..Self::default() }
    }
}

impl From<Vec<Tag>> for Tags {
    fn from(tags: Vec<Tag>) -> Self {
        Self { one: None, more: tags.into_iter() }
    }
}
