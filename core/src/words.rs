//! Bytes by eight: whether a text holds any of some bytes, without a look at each of them.

const ONES: u64 = u64::MAX / 255;
const HIGHS: u64 = ONES << 7;
/// What a text shorter than eight bytes is filled up with: nobody looks for it.
const FILLER: u64 = ONES * b'a' as u64;

/// Whether some byte is marked: `mark` sets its highest bit. Of several that are marked, those after the first may be
/// marked wrongly.
#[inline(always)]
pub fn any(text: &[u8], mark: impl Fn(u64) -> u64) -> bool {
    any_pair(text, text, |word, _| mark(word))
}

/// Whether some place of two texts of one length is marked.
#[inline(always)]
pub fn any_pair(one: &[u8], other: &[u8], mark: impl Fn(u64, u64) -> u64) -> bool {
    let marked = match (one.last_chunk(), other.last_chunk()) {
        (Some(end), Some(other_end)) => {
            let (words, others) = (one.as_chunks::<8>().0, other.as_chunks::<8>().0);
            // What the last whole word leaves is read together with bytes that were read before.
            let last = mark(u64::from_le_bytes(*end), u64::from_le_bytes(*other_end));
            let marks = words.iter().zip(others).map(|(a, b)| mark(u64::from_le_bytes(*a), u64::from_le_bytes(*b)));
            marks.fold(last, |all, marked| all | marked)
        }
        _ => mark(short(one), short(other)),
    };
    marked & HIGHS != 0
}

/// The bytes at the first place where two texts of one length differ.
#[inline(always)]
pub fn first_difference(one: &[u8], other: &[u8]) -> Option<(u8, u8)> {
    let (Some(end), Some(other_end)) = (one.last_chunk(), other.last_chunk()) else {
        return one.iter().zip(other).find(|(a, b)| a != b).map(|(a, b)| (*a, *b));
    };
    let (words, others) = (one.as_chunks::<8>().0, other.as_chunks::<8>().0);
    let differ = |(a, b): &(&[u8; 8], &[u8; 8])| u64::from_le_bytes(**a) != u64::from_le_bytes(**b);
    // What the last whole word leaves is read together with bytes before it, which are equal.
    let (a, b) = words.iter().zip(others).find(differ).unwrap_or((end, other_end));
    let (a, b) = (u64::from_le_bytes(*a), u64::from_le_bytes(*b));
    let at = (a ^ b).trailing_zeros() & !7;
    // Where they are equal there is nothing to shift to.
    Some((a.checked_shr(at)? as u8, b.checked_shr(at)? as u8))
}

fn short(text: &[u8]) -> u64 {
    text.iter().fold(FILLER, |word, byte| word << 8 | u64::from(*byte))
}

/// Marks this byte, and no other.
#[inline(always)]
pub fn is(word: u64, byte: u8) -> u64 {
    let other = word ^ (ONES * u64::from(byte));
    !(((other & !HIGHS) + !HIGHS) | other | !HIGHS)
}

/// Marks bytes below this one, which is at most 128.
#[inline(always)]
pub fn below(word: u64, least: u8) -> u64 {
    word.wrapping_sub(ONES * u64::from(least)) & !word
}

/// Marks DEL and all that is no ASCII.
#[inline(always)]
pub fn from_del(word: u64) -> u64 {
    word | word.wrapping_add(ONES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::test;

    /// Wherever a byte stands, and whatever stands beside it.
    fn assert_marks(mark: impl Fn(u64) -> u64, expected: impl Fn(u8) -> bool) {
        for byte in (0..=u8::MAX).filter(|byte| *byte != b'a') {
            for (length, at) in (1..20).flat_map(|length| (0..length).map(move |at| (length, at))) {
                let mut text = vec![b'a'; length];
                text[at] = byte;
                assert_eq!(any(&text, &mark), expected(byte), "{byte} at {at} of {length}");
            }
        }
        assert!(!any(b"", mark));
    }

    #[test]
    fn a_byte_is_seen_wherever_it_stands() {
        assert_marks(|word| is(word, b'/'), |byte| byte == b'/');
        assert_marks(|word| is(word, 0xff) | is(word, 0), |byte| byte == 0xff || byte == 0);
        assert_marks(|word| below(word, 0x21), |byte| byte < 0x21);
        assert_marks(from_del, |byte| byte >= 0x7f);
    }

    #[test]
    fn a_difference_is_found_wherever_it_stands_and_the_first_of_several() {
        for length in 0..40 {
            let one = vec![b'm'; length];
            assert_eq!(first_difference(&one, &one.clone()), None, "{length}");
            for (first, second) in (0..length).flat_map(|first| (first..length).map(move |second| (first, second))) {
                let mut other = one.clone();
                (other[second], other[first]) = (b'z', b'a');
                assert_eq!(first_difference(&one, &other), Some((b'm', b'a')), "{first}, {second} of {length}");
                assert_eq!(first_difference(&other, &one), Some((b'a', b'm')), "{first}, {second} of {length}");
            }
        }
    }

    #[test]
    fn only_the_place_itself_is_marked() {
        for at in 0..8 {
            let mut text = *b"01234567";
            text[at] = b'/';
            assert_eq!(is(u64::from_le_bytes(text), b'/'), 0x80 << (8 * at), "its highest bit and no other");
        }
        // Whatever stands beside it.
        for [one, other] in (0..=u16::MAX).map(u16::to_le_bytes) {
            let mark = |byte: u8| if byte == b'/' { 0x80 } else { 0 };
            let marks = u64::from_le_bytes([mark(one), mark(other), mark(one), 0, 0, 0, 0, 0]);
            assert_eq!(is(u64::from_le_bytes([one, other, one, 1, 1, 1, 1, 1]), b'/'), marks, "{one} {other}");
        }
        let slashes = |a, b| is(a, b'/') & is(b, b'/');
        assert!(any_pair(b"aaaaaaaaa/", b"aaaaaaaaa/", slashes) && !any_pair(b"aaaaaaaa/a", b"aaaaaaaaa/", slashes));
    }
}
