//! The maskers of one worker: all grants on one version of a secret share one.

use super::{Masker, NotMaskable};
use crate::secret::Secret;
use std::collections::HashMap;
use std::rc::{Rc, Weak};

/// What is in use, by the secret's fingerprint.
#[derive(Default)]
pub struct Maskers(HashMap<String, Weak<Masker>>);

impl Maskers {
    /// One for these secrets, made now if there is none; `None` where nothing is to be masked.
    pub fn of(&mut self, fingerprint: &str, secrets: &[Secret]) -> Result<Option<Rc<Masker>>, NotMaskable> {
        if secrets.is_empty() {
            return Ok(None);
        }
        if let Some(known) = self.0.get(fingerprint).and_then(Weak::upgrade)
            && known.looks_for(secrets)
        {
            return Ok(Some(known));
        }
        let masker = Rc::new(Masker::new(secrets)?);
        self.0.retain(|_, kept| kept.strong_count() > 0);
        self.0.insert(fingerprint.to_owned(), Rc::downgrade(&masker));
        Ok(Some(masker))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::test;

    #[test]
    fn one_secret_has_one_masker_as_long_as_it_is_used() {
        let mut maskers = Maskers::default();
        let secret = |text: &str| vec![Secret::new(text)];
        let first = maskers.of("a", &secret("first-secret")).unwrap().unwrap();
        assert!(Rc::ptr_eq(&first, &maskers.of("a", &secret("first-secret")).unwrap().unwrap()));
        // Whatever the broker calls it: what is looked for is what is said.
        let other = maskers.of("a", &secret("other-secret")).unwrap().unwrap();
        assert!(!Rc::ptr_eq(&first, &other));
        let mut text = b"first-secret other-secret".to_vec();
        other.mask(&mut text);
        assert_eq!(text, b"first-secret ************");
        drop(first);
        drop(other);
        maskers.of("b", &secret("third-secret")).unwrap();
        assert_eq!(maskers.0.len(), 1, "nothing is kept for nobody");
        assert!(maskers.of("c", &[]).unwrap().is_none());
        assert!(maskers.of("c", &secret("short")).is_err());
    }

    #[test]
    fn a_masker_in_use_is_kept_whatever_others_come_and_go() {
        let mut maskers = Maskers::default();
        let mut of = |name: &str| maskers.of(name, &[Secret::new(format!("{name}-secret-of-some-length"))]).unwrap();
        let first = of("a").unwrap();
        drop(of("b"));
        let third = of("c").unwrap();
        assert!(Rc::ptr_eq(&first, &of("a").unwrap()) && Rc::ptr_eq(&third, &of("c").unwrap()));
    }
}
