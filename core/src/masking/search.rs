//! Every occurrence of every form in a text, and where one may have begun at its end.

use super::Masker;
use super::escapes::{BREAKS, ESCAPES, Escape, LAST_OF_BREAKS, escape};
use super::forms::{Class, Form};
use super::seeds::GRAM;
use std::ops::Range;

/// What becomes of a form from some place on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Followed {
    /// Where it ends, if it is there whole.
    end: Option<usize>,
    /// Whether the text ends before it is known.
    open: bool,
}

/// A step of the way through a form: where in the text, where in the form, whether a line has just
/// ended.
type Step = (usize, usize, bool);

impl Masker {
    /// All occurrences, in order; those that overlap are one.
    pub(super) fn find(&self, text: &[u8]) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        self.find_unescaped(text, &mut found);
        self.find_escaped(text, &mut found);
        merged(found)
    }

    /// Spellings without an escape are longer than a stride, but for line breaks: three characters
    /// in a row are read in each.
    fn find_unescaped(&self, text: &[u8], found: &mut Vec<Range<usize>>) {
        let mut at = 0;
        while let Some(&[a, b, c]) = text.get(at..at + GRAM).and_then(<[u8]>::first_chunk) {
            if self.seeds.may_hold(spelt(a, b, c)) {
                self.find_gram(text, at, [a, b, c], found);
            }
            at += self.seeds.stride;
        }
    }

    /// Spellings with an escape are found by their first one: what stands before it is plain, but for
    /// line breaks.
    fn find_escaped(&self, text: &[u8], found: &mut Vec<Range<usize>>) {
        for at in memchr::memchr2_iter(ESCAPES[0], ESCAPES[1], text) {
            let Escape::Of(byte, _) = escape(text.get(at..).unwrap_or_default()) else { continue };
            self.seeds.early(byte).for_each(|(form, place)| self.grow(text, form, at, place, found));
            let Some(&[a, b]) = at.checked_sub(2).and_then(|from| text.get(from..at)) else { continue };
            self.find_gram(text, at - 2, [a, b, byte], found);
            // After a line break, or one character of a line.
            if (LAST_OF_BREAKS.contains(&a) && ends_line(text, at - 1))
                || (LAST_OF_BREAKS.contains(&b) && ends_line(text, at))
            {
                self.seeds
                    .of_character(byte)
                    .iter()
                    .for_each(|(form, place)| self.grow(text, *form, at, *place, found));
            }
        }
    }

    fn find_gram(&self, text: &[u8], at: usize, [a, b, c]: [u8; GRAM], found: &mut Vec<Range<usize>>) {
        let gram = spelt(a, b, c);
        if self.seeds.may_hold(gram) {
            self.seeds.of_gram(gram).for_each(|(form, place)| self.grow(text, form, at, place, found));
        }
    }

    /// A form's character stands here: whether the whole form stands around it.
    fn grow(&self, text: &[u8], form: usize, at: usize, place: usize, found: &mut Vec<Range<usize>>) {
        let Some(form) = self.forms.get(form) else { return };
        begins(form, text, (at, place, false), &mut |start, place| {
            if let Some(end) = follow(form, text, start, place).end {
                found.push(with_lead(form, text, start, place)..end);
            }
        });
    }

    /// Where the earliest spelling begins that this text may be cut off in; its length if none does.
    pub(super) fn open_from(&self, text: &[u8]) -> usize {
        let oldest = text.len().saturating_sub(self.most_held());
        let tail = text.get(oldest..).unwrap_or_default();
        // Nothing that holds another byte is part of a spelling.
        let run = tail.iter().rev().take_while(|byte| self.seeds.alphabet.has(**byte)).count();
        let open = |at: &usize| {
            let rest = text.get(*at..).unwrap_or_default();
            let Some(byte) = rest.first().filter(|byte| self.seeds.first.has(**byte)) else { return false };
            let escape = escape(rest);
            let begins = |class: &Class| {
                class.has(*byte)
                    || matches!(escape, Escape::Torn)
                    || matches!(escape, Escape::Of(byte, _) if class.has(byte))
            };
            let open =
                |form: &Form, place| form.inner.get(place).is_some_and(begins) && follow(form, text, *at, place).open;
            self.forms.iter().any(|form| form.begins().any(|place| open(form, place)))
        };
        (text.len() - run..text.len()).find(open).unwrap_or(text.len())
    }
}

fn spelt(a: u8, b: u8, c: u8) -> u32 {
    u32::from(a) << 16 | u32::from(b) << 8 | u32::from(c)
}

/// Goes back from a character of a form, without escapes, to where the form begins: there, and at
/// which of its characters.
fn begins(form: &Form, text: &[u8], (mut at, mut place, mut broken): Step, found: &mut impl FnMut(usize, usize)) {
    loop {
        if form.begins().any(|begin| begin == place) {
            found(at, place);
        }
        let before = text.get(..at).unwrap_or_default();
        let Some(byte) = before.last() else { return };
        if form.breaks_at(place) && !broken && LAST_OF_BREAKS.contains(byte) {
            for line_break in BREAKS.iter().filter(|line_break| before.ends_with(line_break)) {
                begins(form, text, (at - line_break.len(), place, true), found);
            }
        }
        match place.checked_sub(1).and_then(|place| form.inner.get(place)) {
            Some(class) if class.has(*byte) => (at, place, broken) = (at - 1, place - 1, false),
            _ => return,
        }
    }
}

/// Goes through a form from this character of it on, with escapes.
fn follow(form: &Form, text: &[u8], start: usize, place: usize) -> Followed {
    let mut followed = Followed::default();
    // Where a text can be read in two ways the other ones wait here; none is gone twice.
    let mut steps: Vec<Step> = vec![];
    let mut forks: Vec<Step> = vec![];
    let mut next = Some((start, place, false));
    while let Some((at, place, broken)) = next.take().or_else(|| steps.pop()) {
        let rest = text.get(at..).unwrap_or_default();
        let Some(class) = form.inner.get(place) else {
            let (end, open) = after(form, rest);
            followed.end = followed.end.max(Some(at + end));
            followed.open |= open;
            continue;
        };
        let Some(byte) = rest.first() else {
            followed.open = true;
            continue;
        };
        let special = ESCAPES.contains(byte) || matches!(byte, b'\r' | b'\n');
        if class.has(*byte) {
            next = Some((at + 1, place + 1, false));
        }
        if !special || forks.contains(&(at, place, broken)) {
            continue;
        }
        forks.push((at, place, broken));
        match escape(rest) {
            Escape::Of(byte, size) if class.has(byte) => steps.push((at + size, place + 1, false)),
            Escape::Torn => followed.open = true,
            _ => {}
        }
        if form.breaks_at(place) && !broken {
            for line_break in BREAKS {
                if rest.starts_with(line_break) {
                    steps.push((at + line_break.len(), place, true));
                } else if line_break.starts_with(rest) {
                    followed.open = true;
                }
            }
        }
    }
    followed
}

/// What of the character after a form's last whole one belongs to it, and whether that is unknown yet.
fn after(form: &Form, rest: &[u8]) -> (usize, bool) {
    let Some(edge) = form.edge else { return (0, false) };
    let Some(byte) = rest.first() else { return (0, true) };
    match escape(rest) {
        Escape::Of(byte, size) if edge.has(byte) => (size, false),
        Escape::Torn => (0, true),
        _ => (usize::from(edge.has(*byte)), false),
    }
}

/// Where the characters begin that stand before this one of a form and hold some of its bits, as far
/// as they are there.
fn with_lead(form: &Form, text: &[u8], start: usize, place: usize) -> usize {
    let mut begin = start;
    for _ in 0..form.lead + place {
        let before = text.get(..begin).unwrap_or_default();
        let line_break = BREAKS.iter().find(|line_break| before.ends_with(line_break)).map_or(0, |found| found.len());
        let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte);
        match before.get(..begin - line_break).and_then(<[u8]>::last) {
            Some(byte) if is_base64(byte) => begin -= line_break + 1,
            _ => break,
        }
    }
    begin
}

/// Whether a line ends before this place.
fn ends_line(text: &[u8], at: usize) -> bool {
    let before = text.get(..at).unwrap_or_default();
    BREAKS.iter().any(|line_break| before.ends_with(line_break))
}

fn merged(mut found: Vec<Range<usize>>) -> Vec<Range<usize>> {
    found.sort_unstable_by_key(|range| (range.start, range.end));
    let mut merged: Vec<Range<usize>> = Vec::new();
    for range in found {
        match merged.last_mut() {
            Some(last) if range.start < last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}
