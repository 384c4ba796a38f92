//! How a list is cut: the forgiving parameters of the history routes.

/// A slice of a list, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows, in the order of the list.
    pub items: Vec<T>,
    /// Whether at least one row lies behind the last of `items`.
    pub has_more: bool,
}

impl<T> Page<T> {
    /// Cuts a list that was read with one row more than `limit`.
    pub fn cut(mut items: Vec<T>, limit: u32) -> Self {
        let has_more = items.len() > limit as usize;
        items.truncate(limit as usize);
        Self { items, has_more }
    }
}

/// What the ledger routes accept as `limit` and `offset` (contract `ledger.md` §1, Paging). It never fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Rows wanted, 1 to 100.
    pub limit: u32,
    /// Rows skipped, 0 to 2 147 483 647.
    pub offset: u32,
}

impl Window {
    const DEFAULT_LIMIT: u32 = 20;
    const MAX_LIMIT: u32 = 100;
    const MAX_OFFSET: u32 = i32::MAX as u32;

    /// Reads both parameters as the clients send them; anything unusable becomes the default.
    pub fn parse(limit: Option<&str>, offset: Option<&str>) -> Self {
        let limit = leading_integer(limit.unwrap_or_default())
            .map_or(Self::DEFAULT_LIMIT, |n| n.clamp(1, i128::from(Self::MAX_LIMIT)) as u32);
        let offset =
            leading_integer(offset.unwrap_or_default()).map_or(0, |n| n.clamp(0, i128::from(Self::MAX_OFFSET)) as u32);
        Self { limit, offset }
    }
}

/// The decimal integer a text starts with, as ECMAScript's `parseInt(text, 10)` reads it; saturates.
fn leading_integer(text: &str) -> Option<i128> {
    let text = text.trim();
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    if end == 0 {
        return None;
    }
    let value = digits[..end].parse().unwrap_or(i128::from(i64::MAX));
    Some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_paging_table() {
        let window = |text: &str| Window::parse(Some(text), Some(text));
        assert_eq!(Window::parse(None, None), Window { limit: 20, offset: 0 });
        for text in ["", "abc", "NaN", "-", "+"] {
            assert_eq!(window(text), Window { limit: 20, offset: 0 }, "{text:?}");
        }
        assert_eq!(window("0"), Window { limit: 1, offset: 0 });
        assert_eq!(window("-12"), Window { limit: 1, offset: 0 });
        assert_eq!(window("999"), Window { limit: 100, offset: 999 });
        assert_eq!(window(" 5x"), Window { limit: 5, offset: 5 });
        assert_eq!(window("1.9"), Window { limit: 1, offset: 1 });
        assert_eq!(window("1e3"), Window { limit: 1, offset: 1 });
        assert_eq!(window("99999999999999999999"), Window { limit: 100, offset: 2_147_483_647 });
    }

    #[test]
    fn one_row_too_many_means_more() {
        assert_eq!(Page::cut(vec![1, 2, 3], 2), Page { items: vec![1, 2], has_more: true });
        assert_eq!(Page::cut(vec![1, 2], 2), Page { items: vec![1, 2], has_more: false });
    }
}
