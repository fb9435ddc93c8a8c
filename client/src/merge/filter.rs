//! Which folders a run deals with: `--folder` and `--exclude`, `folder` and `exclude`.
//!
//! Patterns are globs on folder names in UTF-8 written with `/`, `INBOX` for the root. `*` and `?` stay within one
//! part of a name, `**` does not. A pattern that matches a folder covers what lies under it too: `Lists` means
//! `Lists` and `Lists/debian`. Of several patterns that match, the last one wins. Pure: knows nothing of disks.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use globset::{GlobBuilder, GlobMatcher};

/// What a pattern says of the folders that it matches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// `--folder`: the folder is wanted.
    Select,
    /// `--exclude`: the folder is not to be known.
    Exclude,
}

/// What a run does with a folder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// It is synced.
    Included,
    /// It is forgotten: what was agreed on it is dropped, and nothing in it is deleted on either side.
    Excluded,
    /// It waits: this run does not deal with it, and what was agreed on it stays.
    NotSelected,
    /// It has no place on the other side: it is left alone, and nothing is deleted because of it.
    Placeless,
}

/// A pattern that is no glob.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("Invalid folder pattern \"{pattern}\": {why}")]
pub struct FilterError {
    pattern: String,
    why: String,
}

/// Ordered patterns: those of the configuration, and above them those that were typed.
///
/// A folder that no typed pattern matches is judged by the configuration; but once a `--folder` was typed, only what
/// is selected by what was typed is dealt with.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    configured: Vec<Rule>,
    typed: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    verdict: Verdict,
    pattern: String,
    glob: GlobMatcher,
}

impl Filter {
    /// Compiles the patterns, each list in its own order.
    ///
    /// # Errors
    /// When a pattern is empty or no valid glob.
    pub fn new(
        configured: &[(Verdict, String)],
        typed: &[(Verdict, String)],
    ) -> Result<Filter, FilterError> {
        Ok(Filter {
            configured: compile(configured)?,
            typed: compile(typed)?,
        })
    }

    /// What to do with a folder, by its name in UTF-8 with `/` between the parts; `is_folder` knows the names of all.
    #[must_use]
    pub fn scope(&self, folder: &[u8], is_folder: &dyn Fn(&[u8]) -> bool) -> Scope {
        let configured = judge(&self.configured, folder, is_folder);
        match judge(&self.typed, folder, is_folder) {
            Some(Verdict::Select) => Scope::Included,
            Some(Verdict::Exclude) => Scope::Excluded,
            None if configured == Some(Verdict::Exclude) => Scope::Excluded,
            None if selects(&self.typed) => Scope::NotSelected,
            None if configured == Some(Verdict::Select) || !selects(&self.configured) => {
                Scope::Included
            }
            None => Scope::NotSelected,
        }
    }

    /// The patterns that match none of the folders, mostly slips: those of the configuration, and those that were typed.
    #[must_use]
    pub fn unmatched(&self, folders: &[&[u8]]) -> [Vec<String>; 2] {
        let is_folder = |name: &[u8]| folders.contains(&name);
        let is_unmatched = |rule: &&Rule| {
            !folders
                .iter()
                .any(|folder| rule.matches(folder, &is_folder))
        };
        [(&self.configured, true), (&self.typed, false)].map(|(rules, is_configured)| {
            let unmatched = rules.iter().filter(is_unmatched);
            unmatched
                .map(|rule| rule.as_written(is_configured))
                .collect()
        })
    }

    /// Whether only what is named is included.
    #[must_use]
    pub fn selects(&self) -> bool {
        selects(&self.configured) || selects(&self.typed)
    }

    /// Whether every folder is included.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.configured.is_empty() && self.typed.is_empty()
    }
}

/// Equal when the same patterns stand in the same order; a compiled glob cannot be compared.
impl PartialEq for Rule {
    fn eq(&self, other: &Rule) -> bool {
        (self.verdict, &self.pattern) == (other.verdict, &other.pattern)
    }
}

impl PartialEq for Filter {
    fn eq(&self, other: &Filter) -> bool {
        (&self.configured, &self.typed) == (&other.configured, &other.typed)
    }
}

fn compile(patterns: &[(Verdict, String)]) -> Result<Vec<Rule>, FilterError> {
    patterns
        .iter()
        .map(|(verdict, pattern)| Rule::new(*verdict, pattern))
        .collect()
}

impl Rule {
    fn new(verdict: Verdict, pattern: &str) -> Result<Rule, FilterError> {
        let refuse = |why: String| FilterError {
            pattern: protocol::bytes::escape(pattern.as_bytes()),
            why,
        };
        let bare = bare(pattern);
        if bare.is_empty() {
            return Err(refuse("it is empty".to_owned()));
        }
        let glob = GlobBuilder::new(bare)
            .literal_separator(true)
            .backslash_escape(true)
            .build();
        let glob = glob.map_err(|error| refuse(error.kind().to_string()))?;
        Ok(Rule {
            verdict,
            pattern: pattern.to_owned(),
            glob: glob.compile_matcher(),
        })
    }

    fn as_written(&self, is_configured: bool) -> String {
        let pattern = protocol::bytes::escape(self.pattern.as_bytes());
        match (self.verdict, is_configured) {
            (Verdict::Select, false) => format!("--folder {pattern}"),
            (Verdict::Exclude, false) => format!("--exclude {pattern}"),
            (Verdict::Select, true) => format!("folder = {pattern:?}"),
            (Verdict::Exclude, true) => format!("exclude = {pattern:?}"),
        }
    }

    /// Whether the pattern matches the folder or one that it lies in. The very name of a folder means that folder, whatever
    /// its characters mean in a pattern.
    fn matches(&self, folder: &[u8], is_folder: &dyn Fn(&[u8]) -> bool) -> bool {
        let name = bare(&self.pattern).as_bytes();
        let is_name = is_folder(name);
        let ends = folder
            .iter()
            .enumerate()
            .filter(|&(_, &byte)| byte == b'/')
            .map(|(at, _)| at);
        ends.chain([folder.len()]).any(|end| {
            let start = &folder[..end];
            start == name || (!is_name && self.glob.is_match(Path::new(OsStr::from_bytes(start))))
        })
    }
}

/// Patterns start at the root anyway and cover what lies below, so both slashes say nothing more.
fn bare(pattern: &str) -> &str {
    let bare = pattern.strip_prefix('/').unwrap_or(pattern);
    bare.strip_suffix('/').unwrap_or(bare)
}

fn judge(rules: &[Rule], folder: &[u8], is_folder: &dyn Fn(&[u8]) -> bool) -> Option<Verdict> {
    rules
        .iter()
        .rev()
        .find(|rule| rule.matches(folder, is_folder))
        .map(|rule| rule.verdict)
}

fn selects(rules: &[Rule]) -> bool {
    rules.iter().any(|rule| rule.verdict == Verdict::Select)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `+x` selects, `-x` excludes.
    fn patterns(text: &str) -> Vec<(Verdict, String)> {
        let verdict = |word: &str| {
            if word.starts_with('+') {
                Verdict::Select
            } else {
                Verdict::Exclude
            }
        };
        text.split_whitespace()
            .map(|word| (verdict(word), word[1..].to_owned()))
            .collect()
    }

    fn scope(configured: &str, typed: &str, folder: &str) -> Scope {
        let filter = Filter::new(&patterns(configured), &patterns(typed)).expect("valid patterns");
        filter.scope(folder.as_bytes(), &|_| false)
    }

    #[test]
    fn the_last_pattern_that_matches_wins() {
        use Scope::{Excluded, Included, NotSelected};
        let table = [
            ("", "INBOX", Included),
            ("-Junk", "Junk", Excluded),
            ("-Junk", "Junk/old", Excluded),
            ("-Junk", "Junkyard", Included),
            ("-Junk", "Lists/Junk", Included),
            ("-**/Junk", "Lists/a/Junk/b", Excluded),
            ("-/Junk/", "Junk/old", Excluded),
            ("-Archive/20*", "Archive/2019", Excluded),
            ("-Archive/20*", "Archive/2019/q1", Excluded),
            ("-Archive/20*", "Archive", Included),
            ("-*", "Lists/debian", Excluded),
            ("-Archive/*", "Archive", Included),
            ("-Lists +Lists/debian", "Lists/debian", Included),
            ("-Lists +Lists/debian", "Lists/debian/devel", Included),
            ("-Lists +Lists/debian", "Lists/rust", Excluded),
            ("-Lists +Lists/debian", "INBOX", NotSelected),
            ("+Lists/debian -Lists", "Lists/debian", Excluded),
            ("+INBOX", "INBOX", Included),
            ("+INBOX", "Sent", NotSelected),
            ("+{INBOX,Sent}", "Sent", Included),
            ("-[JS]*", "Sent", Excluded),
            ("-a\\*", "ab", Included),
            ("-Entw\u{fc}rfe", "Entw\u{fc}rfe", Excluded),
        ];
        for (rules, folder, expected) in table {
            assert_eq!(
                scope("", rules, folder),
                expected,
                "typed {rules:?} {folder}"
            );
            assert_eq!(
                scope(rules, "", folder),
                expected,
                "configured {rules:?} {folder}"
            );
        }
    }

    #[test]
    fn what_was_typed_stands_above_the_configuration() {
        use Scope::{Excluded, Included, NotSelected};
        let table = [
            ("+INBOX +Sent", "+INBOX", "Sent", NotSelected),
            ("+INBOX", "-Junk", "Sent", NotSelected),
            ("+INBOX", "+Sent", "Sent", Included),
            ("-Junk", "+Junk", "Junk", Included),
            ("-Junk", "+INBOX", "Junk", Excluded),
            ("+INBOX", "-INBOX", "INBOX", Excluded),
            ("-Junk", "-Sent", "Drafts", Included),
        ];
        for (configured, typed, folder, expected) in table {
            assert_eq!(
                scope(configured, typed, folder),
                expected,
                "{configured:?} {typed:?} {folder}"
            );
        }
    }

    #[test]
    fn typed_patterns_that_match_nothing_are_found() {
        let filter = Filter::new(&patterns("-Gone"), &patterns("+Lists -Lst +INBOX -[x]"));
        let folders: [&[u8]; 2] = [b"INBOX", b"Lists/debian"];
        let unmatched = filter.expect("valid patterns").unmatched(&folders);
        assert_eq!(
            unmatched,
            [
                vec![r#"exclude = "Gone""#],
                vec!["--exclude Lst", "--exclude [x]"]
            ]
        );
    }

    #[test]
    fn the_very_name_of_a_folder_means_that_folder() {
        for (name, other) in [
            ("[Gmail]/All Mail", "G/All Mail"),
            ("what?", "whats"),
            ("back\\slash", "backslash"),
            ("[x]", "x"),
            ("{a,b}", "a"),
        ] {
            let filter = Filter::new(&[(Verdict::Exclude, name.to_owned())], &[]);
            let filter = filter.expect("a name is a pattern");
            let scope =
                |folder: &str| filter.scope(folder.as_bytes(), &|known| known == name.as_bytes());
            assert_eq!(scope(name), Scope::Excluded, "{name}");
            assert_eq!(scope(&format!("{name}/below")), Scope::Excluded, "{name}");
            assert_eq!(scope(other), Scope::Included, "{name}");
            let scope = filter.scope(other.as_bytes(), &|_| false);
            assert_eq!(
                scope,
                Scope::Excluded,
                "{other}: a pattern where no folder is called so"
            );
        }
    }

    #[test]
    fn names_that_are_not_utf8_can_be_matched() {
        let filter = Filter::new(&patterns("-Caf*"), &[]).expect("valid patterns");
        assert_eq!(filter.scope(b"Caf\xe9/x", &|_| false), Scope::Excluded);
    }

    #[test]
    fn patterns_that_are_no_globs_are_refused() {
        for pattern in ["", "/", "a[", "{a"] {
            let error =
                Filter::new(&[], &[(Verdict::Select, pattern.to_owned())]).expect_err("invalid");
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("Invalid folder pattern \"{pattern}\": ")),
                "{error}"
            );
        }
    }
}
