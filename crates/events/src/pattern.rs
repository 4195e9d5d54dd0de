//! How a subscription's patterns are read.

/// Whether the topic `pattern` takes the event called `name`, as AMQP's topic exchanges decide it.
///
/// Both are words separated by dots. In a pattern `*` stands for exactly one word and `#` for any number of them,
/// also none.
#[must_use]
pub fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('.').collect();
    let name: Vec<&str> = name.split('.').collect();
    words_match(&pattern, &name)
}

fn words_match(pattern: &[&str], name: &[&str]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (None, Some(_)) => false,
        (Some((&"#", rest)), _) => (0..=name.len()).any(|taken| words_match(rest, &name[taken..])),
        (Some(_), None) => false,
        (Some((&word, pattern)), Some((&actual, name))) => {
            (word == "*" || word == actual) && words_match(pattern, name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_for_themselves() {
        assert!(matches("auth.user.registered.v1", "auth.user.registered.v1"));
        assert!(!matches("auth.user.registered.v1", "auth.user.registered.v2"));
        assert!(!matches("auth.user", "auth.user.registered.v1"));
        assert!(!matches("auth.user.registered.v1", "auth.user"));
    }

    #[test]
    fn a_star_stands_for_one_word() {
        assert!(matches("auth.user.*.v1", "auth.user.registered.v1"));
        assert!(!matches("auth.user.*.v1", "auth.user.v1"));
        assert!(!matches("auth.user.*.v1", "auth.user.name.changed.v1"));
        assert!(!matches("*", "auth.user"));
    }

    #[test]
    fn a_hash_stands_for_any_number_of_words() {
        assert!(matches("#", "auth.user.registered.v1"));
        assert!(matches("auth.#", "auth"));
        assert!(matches("auth.#", "auth.user.registered.v1"));
        assert!(matches("#.v1", "auth.user.registered.v1"));
        assert!(matches("auth.#.v1", "auth.v1"));
        assert!(matches("#.user.#", "auth.user.registered.v1"));
        assert!(!matches("auth.#.v1", "auth.user.registered.v2"));
        assert!(!matches("stream.#", "auth.user.registered.v1"));
    }
}
