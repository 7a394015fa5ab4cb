//! Splitting of `-o` values: commas separate, unless they stand in quotes (`a="x,y"`) or behind a backslash.
//!
//! fstab and mount(8) hand quotes and backslashes on as typed, so that this is the only place that takes them away.

use super::UsageError;

/// One element: its name as typed, and what stood behind the first `=`.
pub(super) type Element = (String, Option<String>);

/// Splits one `-o` value. Empty elements (`a,,b`) are skipped, as mount(8) does.
pub(super) fn split(list: &str) -> Result<Vec<Element>, UsageError> {
    let mut elements = Vec::new();
    let mut name = String::new();
    let mut value: Option<String> = None;
    let mut quoted = false;
    let mut characters = list.chars();
    while let Some(character) = characters.next() {
        if character == '=' && value.is_none() {
            value = Some(String::new());
            continue;
        }
        let target = value.as_mut().unwrap_or(&mut name);
        match character {
            // Only a comma, a quote and a backslash need one; before anything else it is a plain character.
            '\\' => match characters.clone().next() {
                Some(next @ (',' | '"' | '\\')) => {
                    characters.next();
                    target.push(next);
                }
                _ => target.push('\\'),
            },
            '"' => quoted = !quoted,
            ',' if !quoted => finish(&mut elements, &mut name, &mut value),
            other => target.push(other),
        }
    }
    if quoted {
        return Err(UsageError::new("the -o options have a quote that is not closed; add the second '\"'"));
    }
    finish(&mut elements, &mut name, &mut value);
    Ok(elements)
}

fn finish(elements: &mut Vec<Element>, name: &mut String, value: &mut Option<String>) {
    let name = std::mem::take(name).trim().to_owned();
    let value = value.take();
    if !name.is_empty() || value.is_some() {
        elements.push((name, value));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(list: &str) -> Vec<(String, Option<String>)> {
        split(list).unwrap_or_else(|e| panic!("{list}: {e}"))
    }

    fn one(name: &str, value: Option<&str>) -> Element {
        (name.to_owned(), value.map(str::to_owned))
    }

    #[test]
    fn commas_separate_unless_quoted_or_escaped() {
        assert_eq!(pairs("ro,uid=5"), [one("ro", None), one("uid", Some("5"))]);
        assert_eq!(pairs(r#"a="x,y",b"#), [one("a", Some("x,y")), one("b", None)]);
        assert_eq!(pairs(r"log_level=a=info\,b=debug"), [one("log_level", Some("a=info,b=debug"))]);
        assert_eq!(pairs(r#"a=\"x\\"#), [one("a", Some("\"x\\"))]);
        assert_eq!(pairs(r"stage_dir=a\b"), [one("stage_dir", Some(r"a\b"))]);
        assert_eq!(pairs(",,ro,,"), [one("ro", None)]);
        assert_eq!(pairs("foo=bar baz"), [one("foo", Some("bar baz"))]);
        assert_eq!(pairs("a="), [one("a", Some(""))]);
        assert_eq!(pairs(""), []);
    }

    #[test]
    fn an_open_quote_is_an_error() {
        assert!(split(r#"a="x,y"#).is_err());
    }

    proptest! {
        #[test]
        fn a_quoted_value_comes_back_as_it_was(value in "[^\"\\\\\\p{C}]{0,30}") {
            prop_assert_eq!(pairs(&format!("ro,a=\"{value}\"")), [one("ro", None), one("a", Some(&value))]);
        }

        #[test]
        fn no_text_makes_the_splitter_panic(list in "\\PC{0,60}") {
            let _ = split(&list);
        }
    }
}
