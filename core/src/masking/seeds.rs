//! Where a spelling may be recognised: what three characters in a row, or one escaped character, are
//! the beginning, the midst or the end of.

use super::escapes::ESCAPES;
use super::forms::{Class, Form};
use zeroize::Zeroizing;

/// Bits of the filter: 2 KiB, small enough to stay in a processor's first cache.
const FILTER_BITS: u32 = 14;
/// Knuth's multiplicative hash: 2³² by the golden ratio.
const SPREAD: u32 = 0x9E37_79B1;

/// Three characters that stand together.
pub(super) const GRAM: usize = 3;

/// A character of a form: which form, and which of its characters.
pub(super) type Seed = (usize, usize);

/// What is looked up while a text is read.
pub(super) struct Seeds {
    /// How far apart the text is looked at: any spelling without escapes is seen once at least.
    pub stride: usize,
    /// What spellings begin with.
    pub first: Class,
    /// What spellings are made of.
    pub alphabet: Class,
    filter: Zeroizing<Vec<u64>>,
    /// Three characters, the form, the first one's place in it; sorted.
    grams: Zeroizing<Vec<[u32; 3]>>,
    /// A character, the form, its place in it; sorted.
    characters: Zeroizing<Vec<[u32; 3]>>,
}

impl Seeds {
    /// Of all these forms.
    pub fn of(forms: &[Form]) -> Self {
        let run = forms.iter().map(Form::shortest_run).min().unwrap_or(GRAM);
        let escapes = Class::of(ESCAPES);
        // Of escapes and line breaks: all that stands between characters.
        let between = Class::of(*b"0123456789abcdefABCDEFu/\\\"'nr\r\n");
        let mut seeds = Self {
            first: forms.iter().filter_map(|form| form.inner.first()).fold(escapes, |set, class| set.or(*class)),
            alphabet: forms
                .iter()
                .flat_map(|form| form.inner.iter())
                .fold(escapes.or(between), |set, class| set.or(*class)),
            stride: (run + 1).saturating_sub(GRAM).max(1),
            filter: Zeroizing::new(vec![0; 1 << (FILTER_BITS - 6)]),
            grams: Zeroizing::default(),
            characters: Zeroizing::default(),
        };
        for (number, form) in (0..).zip(forms) {
            for (place, class) in (0..).zip(form.inner.iter()) {
                seeds.characters.extend(class.bytes().map(|byte| [byte.into(), number, place]));
            }
            for (place, classes) in (0..).zip(form.inner.windows(GRAM)) {
                let spell = |grams: Vec<u32>, class: &Class| -> Vec<u32> {
                    grams.iter().flat_map(|gram| class.bytes().map(move |byte| gram << 8 | u32::from(byte))).collect()
                };
                for gram in classes.iter().fold(vec![0], spell) {
                    seeds.grams.push([gram, number, place]);
                    let (word, bit) = filtered(gram);
                    seeds.filter.get_mut(word).into_iter().for_each(|word| *word |= bit);
                }
            }
        }
        seeds.grams.sort_unstable();
        seeds.characters.sort_unstable();
        seeds
    }

    /// Whether three characters may stand in a spelling: mostly not.
    pub fn may_hold(&self, gram: u32) -> bool {
        let (word, bit) = filtered(gram);
        self.filter.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Where these three characters stand in forms.
    pub fn of_gram(&self, gram: u32) -> impl Iterator<Item = Seed> {
        equal(&self.grams, gram)
    }

    /// Where this character stands in forms.
    pub fn of_character(&self, byte: u8) -> impl Iterator<Item = Seed> {
        equal(&self.characters, byte.into())
    }
}

fn filtered(gram: u32) -> (usize, u64) {
    let hash = gram.wrapping_mul(SPREAD) >> (32 - FILTER_BITS);
    ((hash >> 6) as usize, 1 << (hash & 63))
}

fn equal(sorted: &[[u32; 3]], key: u32) -> impl Iterator<Item = Seed> {
    let from = sorted.partition_point(|[own, ..]| *own < key);
    let rest = sorted.get(from..).unwrap_or_default().iter();
    rest.take_while(move |[own, ..]| *own == key).map(|[_, form, place]| (*form as usize, *place as usize))
}
