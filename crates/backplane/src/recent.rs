//! A map of bounded size that forgets what was not used for long.

use std::collections::HashMap;
use std::mem;

/// At most `most` entries, in two halves: when the young half is full it becomes the old one, and what was old is
/// forgotten. So nothing that was used among the last `most / 2` entries is lost, and no call looks at all of them.
pub(crate) struct Recent<V> {
    young: HashMap<String, V>,
    old: HashMap<String, V>,
    most: usize,
}

impl<V> Recent<V> {
    pub(crate) fn new(most: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), most }
    }

    /// The entry of `key`, which is young from now on.
    pub(crate) fn get(&mut self, key: &str) -> Option<&mut V> {
        if let Some((key, value)) = self.old.remove_entry(key) {
            self.put(key, value);
        }
        self.young.get_mut(key)
    }

    pub(crate) fn put(&mut self, key: String, value: V) {
        if self.young.len() >= self.most / 2 && !self.young.contains_key(&key) {
            self.old = mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }

    pub(crate) fn remove(&mut self, key: &str) {
        self.young.remove(key);
        self.old.remove(key);
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_holds_more_than_its_bound_and_keeps_what_is_used() {
        let mut recent = Recent::new(100);
        recent.put("used".to_owned(), 0);
        for n in 0..1000 {
            recent.put(format!("key {n}"), n);
            assert!(recent.len() <= 100);
            assert_eq!(recent.get("used"), Some(&mut 0));
        }
        for n in 951..1000 {
            assert_eq!(recent.get(&format!("key {n}")), Some(&mut n.clone()));
        }
        assert_eq!(recent.get("key 1"), None);
        recent.remove("used");
        assert_eq!(recent.get("used"), None);
    }

    #[test]
    fn an_entry_is_there_once() {
        let mut recent = Recent::new(4);
        for n in 0..100 {
            recent.put(format!("{}", n % 3), n);
            assert!(recent.len() <= 3, "{}", recent.len());
        }
        assert_eq!(recent.get("0"), Some(&mut 99));
    }
}
