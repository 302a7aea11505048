//! What an account or a group may be called.

use crate::{Code, Fault, Limits};

/// Whether an account may have this name. Names are kept and compared as given.
pub(super) fn check_account(name: &str, limits: &Limits) -> Result<(), Fault> {
    let bad = |why: String| Err(Fault::new(Code::BadName, why));
    match () {
        () if name.is_empty() => bad("a name cannot be empty".into()),
        () if name.len() as u64 > limits.name_bytes => bad(format!("a name has at most {} bytes", limits.name_bytes)),
        () if name.trim() != name => bad("a name cannot begin or end with white space".into()),
        () if name.chars().any(char::is_control) => bad("a name cannot have control characters".into()),
        () if name.contains('/') => bad("a name cannot have a slash".into()),
        () => Ok(()),
    }
}

/// Whether a group may have this title.
pub(super) fn check_title(title: &str, limits: &Limits) -> Result<(), Fault> {
    match () {
        () if title.trim().is_empty() => Err(Fault::new(Code::BadName, "a group needs a name")),
        () if title.len() as u64 > limits.title_bytes => {
            Err(Fault::new(Code::TooLong, format!("a group's name has at most {} bytes", limits.title_bytes)))
        }
        () if title.chars().any(char::is_control) => {
            Err(Fault::new(Code::BadName, "a group's name cannot have control characters"))
        }
        () => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_and_names_of_any_script_are_names() {
        let limits = Limits::default();
        for name in ["ann", "018f3a5e-8c1d-7e52-a6c3-0d2b4f6a8c9e", "王小明", "Ann Lee", "a", &"x".repeat(64)] {
            assert_eq!(check_account(name, &limits), Ok(()), "{name}");
        }
    }

    #[test]
    fn names_that_would_confuse_are_refused() {
        let limits = Limits::default();
        for name in ["", " ann", "ann ", "a\nb", "a\0b", "a/b", "\u{3000}王", "\u{85}x", &"x".repeat(65)] {
            assert_eq!(check_account(name, &limits).unwrap_err().code, Code::BadName, "{name:?}");
        }
    }

    #[test]
    fn a_title_is_as_long_as_the_table_says() {
        let limits = Limits { title_bytes: 4, ..Limits::default() };
        assert_eq!(check_title("four", &limits), Ok(()));
        assert_eq!(check_title("fives", &limits).unwrap_err().code, Code::TooLong);
        assert_eq!(check_title("  ", &limits).unwrap_err().code, Code::BadName);
    }
}
