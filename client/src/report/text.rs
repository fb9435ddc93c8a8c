//! How things are put into words and figures. Pure, so that every sentence can be tested as it stands.

use protocol::bytes::escape;
use serde_json::Value;

use super::{Actions, LINES_MAX, PlannedAction, Summary, Tally, Weight};
use crate::report::figures::{bytes_text, duration_text};
use crate::report::heading::named;
use crate::report::skipped::Skipped;
use crate::report::waiting::Waiting;

const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[1;33m";
const PLAIN: &str = "\x1b[0m";

/// The one line that says what became of an account.
pub(super) fn summary_line(summary: &Summary, colored: bool) -> String {
    let account = paint(&escape(summary.account.as_bytes()), BOLD, colored);
    let mut parts: Vec<String> = [(&summary.here, "here"), (&summary.there, "there")]
        .into_iter()
        .filter_map(|(tally, side)| tally_text(tally).map(|text| format!("{text} {side}")))
        .collect();
    if parts.is_empty() {
        parts.push(
            if summary.waiting().is_empty() {
                "nothing to do"
            } else {
                "nothing done"
            }
            .to_owned(),
        );
    }
    parts.extend(match summary.conflicts.len() {
        0 => None,
        1 => Some("1 conflict".to_owned()),
        count => Some(format!("{count} conflicts")),
    });
    parts.extend(summary.waiting().iter().map(Waiting::text));
    if !summary.skipped.is_empty() {
        parts.push(format!("{} skipped", summary.skipped.len()));
    }
    parts.push(format!(
        "sent {}, received {}, {}",
        bytes_text(summary.bytes_sent),
        bytes_text(summary.bytes_received),
        duration_text(summary.seconds)
    ));
    let dry = if summary.dry_run { " (dry run)" } else { "" };
    let broken = if summary.error.is_some() {
        "not finished, "
    } else {
        ""
    };
    format!(
        "{account}: {}{dry}: {broken}{}",
        summary.direction,
        parts.join("; ")
    )
}

/// The figures of one side that are not 0, or nothing.
fn tally_text(tally: &Tally) -> Option<String> {
    let figures = figures(tally);
    let said: Vec<String> = figures
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    (!said.is_empty()).then(|| said.join(", "))
}

fn figures(tally: &Tally) -> [(u64, &'static str); 8] {
    let Tally {
        new,
        flags,
        moved,
        copied,
        deleted,
        replaced,
        folders,
        keywords_dropped,
    } = *tally;
    [
        (new, "new"),
        (flags, "flags"),
        (moved, "moved"),
        (copied, "copied"),
        (deleted, "deleted"),
        (replaced, "replaced"),
        (folders, if folders == 1 { "folder" } else { "folders" }),
        (
            keywords_dropped,
            if keywords_dropped == 1 {
                "keyword dropped"
            } else {
                "keywords dropped"
            },
        ),
    ]
}

/// Whether a run that stopped has done anything worth a summary.
pub(super) fn has_figures(summary: &Summary) -> bool {
    [&summary.here, &summary.there]
        .into_iter()
        .any(|tally| figures(tally).iter().any(|(count, _)| *count > 0))
}

/// The same for scripts, with the keys of the contract.
pub(super) fn summary_json(summary: &Summary) -> serde_json::Value {
    let skipped: Vec<_> = summary.skipped.iter().map(Skipped::json).collect();
    let conflicts: Vec<_> = summary
        .conflicts
        .iter()
        .map(|conflict| &conflict.text)
        .collect();
    let mut object = serde_json::json!({
        "account": summary.account,
        "direction": summary.direction,
        "here": summary.here,
        "there": summary.there,
        "conflicts": conflicts,
        "pending": Waiting::total(summary.waiting()),
        "waiting": summary.waiting(),
        "skipped": skipped,
        "bytes_sent": summary.bytes_sent,
        "bytes_received": summary.bytes_received,
        "seconds": (summary.seconds * 1000.0).round() / 1000.0,
        "exit": summary.exit.number(),
    });
    if let Some(refusal) = &summary.refusal {
        object["plan"] = refusal.json();
    }
    if summary.dry_run {
        object["actions"] = serde_json::json!(summary.actions.each);
    }
    if let Some(error) = &summary.error {
        object["error"] = error.as_str().into();
    }
    object
}

/// A value for scripts on one line. JSON escapes C0 alone, and what reads it may print it as it is.
pub(super) fn json_line(value: &Value) -> String {
    fn clean(value: &Value) -> Value {
        match value {
            Value::String(text) => {
                let lines: Vec<String> = text
                    .split('\n')
                    .map(|line| escape(line.as_bytes()))
                    .collect();
                Value::String(lines.join("\n"))
            }
            Value::Array(list) => list.iter().map(clean).collect(),
            Value::Object(map) => map
                .iter()
                .map(|(key, value)| (key.clone(), clean(value)))
                .collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }
    clean(value).to_string()
}

/// A line for people on stderr.
pub(super) fn message_line(
    account: Option<&str>,
    weight: Weight,
    message: &str,
    colored: bool,
) -> String {
    let about = account
        .map(|account| format!("{}: ", escape(account.as_bytes())))
        .unwrap_or_default();
    let kind = match weight {
        Weight::Error => paint("error", RED, colored) + ": ",
        Weight::Warning => paint("warning", YELLOW, colored) + ": ",
        Weight::Note => String::new(),
    };
    // Our own sentences may have several lines (an example to copy); everything else in them was escaped before.
    let message: Vec<String> = message
        .lines()
        .map(|line| escape(line.as_bytes()))
        .collect();
    format!("maildir-sync: {about}{kind}{}", message.join("\n"))
}

/// What a dry run would do: a line each, or counts by folder where those are too many.
pub(super) fn action_lines(actions: &Actions, verbose: bool) -> Vec<String> {
    if verbose || actions.each.len() <= LINES_MAX {
        return actions.each.iter().map(action_line).collect();
    }
    let lines = actions
        .counts
        .iter()
        .map(|((side, action, folder), count)| {
            let space = if folder.is_empty() { "" } else { " " };
            escape(format!("{side} {action}{space}{folder}: {count}").as_bytes())
        });
    lines.collect()
}

/// One line of a dry run.
fn action_line(action: &PlannedAction) -> String {
    let PlannedAction {
        side,
        action,
        folder,
        name,
        to,
        heading,
    } = action;
    let named = match name.is_empty() {
        true => folder.clone(),
        false => named(folder, name, heading.as_ref()),
    };
    let to = to
        .as_ref()
        .map(|to| format!(" -> {to}"))
        .unwrap_or_default();
    escape(format!("{side} {action} {named}{to}").as_bytes())
}

fn paint(text: &str, style: &str, colored: bool) -> String {
    if colored {
        format!("{style}{text}{PLAIN}")
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::record::Side;
    use crate::report::exit_code::ExitCode;
    use crate::report::heading::Heading;
    use crate::report::refusal::Refusal;
    use crate::report::{ConflictText, Detail};

    fn busy() -> Summary {
        Summary {
            account: "home".to_owned(),
            direction: "sync",
            here: Tally {
                new: 12,
                flags: 3,
                ..Tally::default()
            },
            there: Tally {
                moved: 1,
                copied: 1,
                deleted: 2,
                replaced: 1,
                ..Tally::default()
            },
            conflicts: vec![ConflictText {
                folder: "INBOX".to_owned(),
                text: "Both sides edited it".to_owned(),
            }],
            waiting: Some(waiting(4)),
            skipped: vec![Skipped {
                side: Side::Remote,
                path: "INBOX/a\\x0a".to_owned(),
                why: "permission denied".to_owned(),
                heading: None,
                holds: true,
            }],
            bytes_sent: 1_234,
            bytes_received: 3_400_000,
            seconds: 2.1234,
            exit: ExitCode::Skipped,
            ..Summary::default()
        }
    }

    fn waiting(count: u64) -> Vec<Waiting> {
        vec![Waiting {
            count,
            deletions: false,
            why: "the key is read-only".to_owned(),
            unseen: false,
        }]
    }

    fn idle() -> Summary {
        let account = "home".to_owned();
        Summary {
            account,
            direction: "pull",
            bytes_sent: 412,
            bytes_received: 380,
            seconds: 0.25,
            ..Summary::default()
        }
    }

    #[test]
    fn one_line_tells_what_became_of_an_account() {
        assert_eq!(
            summary_line(&busy(), false),
            "home: sync: 12 new, 3 flags here; 1 moved, 1 copied, 2 deleted, 1 replaced there; 1 conflict; 4 wait: the key is \
             read-only; 1 skipped; sent 1.2 kB, received 3.4 MB, 2.1 s"
        );
        assert_eq!(
            summary_line(&idle(), false),
            "home: pull: nothing to do; sent 412 B, received 380 B, 0.2 s"
        );
        assert_eq!(
            summary_line(
                &Summary {
                    waiting: Some(waiting(1)),
                    dry_run: true,
                    ..idle()
                },
                true
            ),
            "\x1b[1mhome\x1b[0m: pull (dry run): nothing done; 1 waits: the key is read-only; sent 412 B, received 380 B, 0.2 s"
        );
        let broken = Summary {
            error: Some("x".to_owned()),
            ..busy()
        };
        assert!(summary_line(&broken, false).starts_with("home: sync: not finished, 12 new"));
    }

    #[test]
    fn json_has_the_keys_of_the_contract() {
        let idle = r#"{"account":"home","bytes_received":380,"bytes_sent":412,"conflicts":[],"direction":"pull","exit":0,"here":{"copied":0,"deleted":0,"flags":0,"folders":0,"keywords_dropped":0,"moved":0,"new":0,"replaced":0},"pending":0,"seconds":0.25,"skipped":[],"there":{"copied":0,"deleted":0,"flags":0,"folders":0,"keywords_dropped":0,"moved":0,"new":0,"replaced":0},"waiting":[]}"#;
        assert_eq!(summary_json(&self::idle()).to_string(), idle);
        let action = PlannedAction {
            side: "here",
            action: "delete",
            folder: "INBOX".into(),
            name: "1.a".into(),
            to: None,
            heading: Some(Heading {
                subject: Some("Letter".to_owned()),
                ..Heading::default()
            }),
        };
        let refusal = Refusal {
            plan: "abc".to_owned(),
            is_known: false,
            over: Vec::new(),
            holds: Vec::new(),
        };
        let summary = Summary {
            dry_run: true,
            actions: Actions {
                each: vec![action],
                ..Actions::default()
            },
            refusal: Some(refusal),
            error: Some("The guard refused".to_owned()),
            exit: ExitCode::Unsafe,
            ..busy()
        };
        let object = summary_json(&summary);
        assert_eq!(
            object["actions"].to_string(),
            r#"[{"action":"delete","date":null,"folder":"INBOX","from":null,"name":"1.a","side":"here","subject":"Letter"}]"#
        );
        assert_eq!(
            object["skipped"].to_string(),
            r#"[{"holds":true,"path":"INBOX/a\\x0a","side":"there","why":"permission denied"}]"#
        );
        assert_eq!(
            (object["plan"]["name"].as_str(), object["error"].as_str()),
            (Some("abc"), Some("The guard refused"))
        );
        assert_eq!(
            (object["exit"].as_u64(), object["seconds"].as_f64()),
            (Some(4), Some(2.123))
        );
    }

    #[test]
    fn what_a_peer_said_cannot_move_the_cursor() {
        assert_eq!(
            message_line(Some("ho\x1bme"), Weight::Error, "No \"\x1b[2Jx\"", false),
            "maildir-sync: ho\\x1bme: error: No \"\\x1b[2Jx\""
        );
        assert_eq!(
            message_line(None, Weight::Warning, "Two\nlines", true),
            "maildir-sync: \x1b[1;33mwarning\x1b[0m: Two\nlines"
        );
        assert_eq!(
            message_line(None, Weight::Note, "Hm", true),
            "maildir-sync: Hm"
        );
    }

    #[test]
    fn what_a_script_prints_cannot_move_the_cursor_either() {
        let value =
            serde_json::json!({ "list": [{ "why": "a\u{9b}2J\u{202e}\u{2028}\nb" }], "count": 1 });
        let line =
            r#"{"count":1,"list":[{"why":"a\\xc2\\x9b2J\\xe2\\x80\\xae\\xe2\\x80\\xa8\nb"}]}"#;
        assert_eq!(json_line(&value), line);
    }

    #[test]
    fn a_planned_action_is_one_line() {
        let action = |name: &str, to: Option<&str>| PlannedAction {
            side: "there",
            action: "move",
            folder: "Lists/a\n".to_owned(),
            name: name.to_owned(),
            to: to.map(str::to_owned),
            heading: None,
        };
        assert_eq!(
            action_line(&action("1.x", Some("INBOX/1.x"))),
            "there move Lists/a\\x0a/1.x -> INBOX/1.x"
        );
        assert_eq!(action_line(&action("", None)), "there move Lists/a\\x0a");
        for has_actions in [false, true] {
            let detail = Detail {
                is_verbose: has_actions,
                has_actions,
            };
            let mut many = Actions::default();
            for _ in 0..2 * LINES_MAX {
                many.add(action("1.x", None), detail);
            }
            assert_eq!(action_lines(&many, false), ["there move Lists/a\\x0a: 40"]);
            let kept = if has_actions {
                2 * LINES_MAX
            } else {
                LINES_MAX + 1
            };
            assert_eq!(many.each.len(), kept);
            assert_eq!(action_lines(&many, true).len(), kept);
        }
    }
}
