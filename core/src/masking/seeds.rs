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
    /// For each character where it stands.
    characters: Zeroizing<Vec<Vec<Seed>>>,
    /// The characters that no two others of a form need stand before.
    early: Zeroizing<Vec<(Class, Seed)>>,
}

impl Seeds {
    /// Of all these forms.
    pub fn of(forms: &[Form]) -> Self {
        let run = forms.iter().map(Form::shortest_run).min().unwrap_or(GRAM);
        let escapes = Class::of(ESCAPES);
        // Of escapes and line breaks: all that stands between characters.
        let between = Class::of(*b"0123456789abcdefABCDEFu/\\\"'nr\r\n");
        let mut seeds = Self {
            first: forms
                .iter()
                .flat_map(|form| form.begins().filter_map(|place| form.inner.get(place)))
                .fold(escapes, |set, class| set.or(*class)),
            alphabet: forms
                .iter()
                .flat_map(|form| form.inner.iter())
                .fold(escapes.or(between), |set, class| set.or(*class)),
            stride: (run + 1).saturating_sub(GRAM).max(1),
            filter: Zeroizing::new(vec![0; 1 << (FILTER_BITS - 6)]),
            grams: Zeroizing::default(),
            early: Zeroizing::default(),
            characters: Zeroizing::new(vec![Vec::new(); 128]),
        };
        for (number, form) in (0..).zip(forms) {
            let early = form.begins().flat_map(|place| [place, place + 1]);
            let early = early.filter_map(|place| Some((*form.inner.get(place)?, (number, place))));
            seeds.early.extend(early);
            for (place, class) in (0..).zip(form.inner.iter()) {
                for byte in class.bytes() {
                    seeds
                        .characters
                        .get_mut(usize::from(byte))
                        .into_iter()
                        .for_each(|seeds| seeds.push((number, place)));
                }
            }
            for (place, classes) in (0..).zip(form.inner.windows(GRAM)) {
                let spell = |grams: Vec<u32>, class: &Class| -> Vec<u32> {
                    grams.iter().flat_map(|gram| class.bytes().map(move |byte| gram << 8 | u32::from(byte))).collect()
                };
                for gram in classes.iter().fold(vec![0], spell) {
                    seeds.grams.push([gram, number as u32, place as u32]);
                    let (word, bit) = filtered(gram);
                    seeds.filter.get_mut(word).into_iter().for_each(|word| *word |= bit);
                }
            }
        }
        seeds.grams.sort_unstable();
        seeds
    }

    /// Whether three characters may stand in a spelling: mostly not.
    #[inline(always)]
    pub fn may_hold(&self, gram: u32) -> bool {
        let (word, bit) = filtered(gram);
        self.filter.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Where these three characters stand in forms.
    pub fn of_gram(&self, gram: u32) -> impl Iterator<Item = Seed> {
        let from = self.grams.partition_point(|[own, ..]| *own < gram);
        let rest = self.grams.get(from..).unwrap_or_default().iter();
        rest.take_while(move |[own, ..]| *own == gram).map(|[_, form, place]| (*form as usize, *place as usize))
    }

    /// Where this character begins a form, or nearly.
    pub fn early(&self, byte: u8) -> impl Iterator<Item = Seed> {
        self.early.iter().filter(move |(class, _)| class.has(byte)).map(|(_, seed)| *seed)
    }

    /// Where this character stands in forms.
    pub fn of_character(&self, byte: u8) -> &[Seed] {
        self.characters.get(usize::from(byte)).map_or(&[], Vec::as_slice)
    }
}

#[inline(always)]
fn filtered(gram: u32) -> (usize, u64) {
    let hash = gram.wrapping_mul(SPREAD) >> (32 - FILTER_BITS);
    ((hash >> 6) as usize, 1 << (hash & 63))
}
