//! What a device has of one chat, as far as the server knows.

use std::collections::BTreeMap;

use crate::core::chats::Sent;
use crate::core::model::chats::LogPage;

/// What this device has of one chat.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Everything up to here was delivered, or is its own; unknown before the first pull or push.
    pub(super) cursor: Option<i64>,
    /// Own numbers beyond the cursor, first to last.
    pub(super) own: BTreeMap<i64, i64>,
    /// Something up to here exists, and something from `low` on was heard while a call ran.
    pub(super) target: i64,
    pub(super) low: Option<i64>,
    /// Something may exist that was not heard.
    pub(super) gap: bool,
    /// A call on this chat is running.
    pub(super) busy: bool,
    /// The device has asked for what it missed.
    pub(super) caught_up: bool,
}

impl Line {
    pub(super) fn is_behind(&self) -> bool {
        self.cursor.is_some_and(|cursor| self.gap || self.target > cursor)
    }

    pub(super) fn pushed(&mut self, sent: Sent) {
        let Some((from, to)) = sent.given else { return };
        let first = self.low.map_or(from, |low| low.min(from));
        let cursor = *self.cursor.get_or_insert(first - 1);
        self.target = self.target.max(to);
        if to > cursor {
            self.own.insert(from, to);
        }
        self.advance_to(cursor);
    }

    /// Lets the line begin with what was heard first, if nothing else began it.
    pub(super) fn begin(&mut self) {
        if !self.busy
            && let Some(low) = self.low.take()
        {
            self.cursor.get_or_insert(low - 1);
        }
    }

    /// The device got a page it asked for.
    ///
    /// A push that overtook the first page of a connection moved the shipped client's cursor, too: it will never ask
    /// for what lies between. So the line goes back and the rest is read for it.
    pub(super) fn pulled(&mut self, page: &LogPage) {
        let cursor = self.cursor.unwrap_or(page.seq);
        if !std::mem::replace(&mut self.caught_up, true) && page.has_more && page.seq < cursor {
            self.target = self.target.max(cursor);
            self.cursor = Some(page.seq);
            return;
        }
        self.advance_to(cursor.max(page.seq));
    }

    pub(super) fn is_own(&self, seq: i64) -> bool {
        self.own.range(..=seq).next_back().is_some_and(|(_, to)| seq <= *to)
    }

    /// Moves the cursor, and on through what is this device's own.
    pub(super) fn advance_to(&mut self, seq: i64) {
        let mut cursor = seq;
        while let Some(entry) = self.own.first_entry() {
            if *entry.key() > cursor + 1 {
                break;
            }
            cursor = cursor.max(entry.remove());
        }
        self.cursor = Some(cursor);
    }
}
