//! Every occurrence of every form in a text, and where one may have begun at its end.

use super::Masker;
use super::escapes::{BREAKS, ESCAPES, Escape, escape};
use super::forms::Form;
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
        while let Some(&[a, b, c]) = text.get(at..at + GRAM) {
            let gram = u32::from(a) << 16 | u32::from(b) << 8 | u32::from(c);
            if self.seeds.may_hold(gram) {
                self.seeds.of_gram(gram).for_each(|(form, place)| self.grow(text, form, at, place, found));
            }
            at += self.seeds.stride;
        }
    }

    /// Spellings with an escape are found by their first one: what stands before it is plain.
    fn find_escaped(&self, text: &[u8], found: &mut Vec<Range<usize>>) {
        for at in memchr::memchr2_iter(ESCAPES[0], ESCAPES[1], text) {
            if let Escape::Of(byte, _) = escape(text.get(at..).unwrap_or_default()) {
                self.seeds.of_character(byte).for_each(|(form, place)| self.grow(text, form, at, place, found));
            }
        }
    }

    /// A form's character stands here: whether the whole form stands around it.
    fn grow(&self, text: &[u8], form: usize, at: usize, place: usize, found: &mut Vec<Range<usize>>) {
        let Some(form) = self.forms.get(form) else { return };
        for start in begins(form, text, at, place) {
            if let Some(end) = follow(form, text, start).end {
                found.push(with_lead(form, text, start)..end);
            }
        }
    }

    /// Where the earliest spelling begins that this text may be cut off in; its length if none does.
    pub(super) fn open_from(&self, text: &[u8]) -> usize {
        let oldest = text.len().saturating_sub(self.most_held());
        let tail = text.get(oldest..).unwrap_or_default();
        // Nothing that holds another byte is part of a spelling.
        let run = tail.iter().rev().take_while(|byte| self.seeds.alphabet.has(**byte)).count();
        let open = |at: &usize| {
            let byte = text.get(*at).copied().unwrap_or_default();
            self.seeds.first.has(byte) && self.forms.iter().any(|form| follow(form, text, *at).open)
        };
        (text.len() - run..text.len()).find(open).unwrap_or(text.len())
    }
}

/// Goes back from a character of a form, without escapes, to where the form begins.
fn begins(form: &Form, text: &[u8], at: usize, place: usize) -> Vec<usize> {
    let mut begins = Vec::new();
    let mut steps: Vec<Step> = vec![(at, place, false)];
    while let Some((mut at, mut place, mut broken)) = steps.pop() {
        while place > 0 {
            let before = text.get(..at).unwrap_or_default();
            if form.breaks_at(place) && !broken {
                let breaks = BREAKS.iter().filter(|line_break| before.ends_with(line_break));
                steps.extend(breaks.map(|line_break| (at - line_break.len(), place, true)));
            }
            let fits = |byte: &u8| form.inner.get(place - 1).is_some_and(|class| class.has(*byte));
            if !before.last().is_some_and(fits) {
                break;
            }
            (at, place, broken) = (at - 1, place - 1, false);
        }
        if place == 0 {
            begins.push(at);
        }
    }
    begins
}

/// Goes through a form from its beginning, with escapes.
fn follow(form: &Form, text: &[u8], start: usize) -> Followed {
    let mut followed = Followed::default();
    // Where a text can be read in two ways the other ones wait here; none is gone twice.
    let mut steps: Vec<Step> = vec![];
    let mut forks: Vec<Step> = vec![];
    let mut next = Some((start, 0, false));
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

/// The characters before a form that hold some of its bits, where they are there.
fn with_lead(form: &Form, text: &[u8], start: usize) -> usize {
    let mut begin = start;
    for _ in 0..form.lead {
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
