//! Tables of messages and their copies.

use super::header::HEADER_BYTES_MAX;
use super::*;

fn of(message: &str) -> Fingerprint {
    // Pieces of all sizes must come out alike.
    let small = io::BufReader::with_capacity(3, message.as_bytes());
    let fingerprint = Fingerprint::of(small).expect("memory does not fail");
    assert_eq!(
        fingerprint,
        Fingerprint::of(message.as_bytes()).expect("memory does not fail")
    );
    fingerprint.expect("it can be read")
}

/// Whether two messages agree by their Message-ID and body, under either end of the header.
fn agree(one: &str, other: &str) -> bool {
    let (one, other) = (of(one), of(other));
    let is_named = one.message.is_some() && one.message == other.message;
    let broken = |one: &Fingerprint| one.broken.or(one.message);
    is_named || broken(&one).is_some() && broken(&one) == broken(&other)
}

const PLAIN: &str = "From: Ada\nMessage-ID: <1@x>\nSubject: a\n b\n\nHello\n\nBen\n";

#[test]
fn what_the_tools_change_does_not_count() {
    let crs = PLAIN.replace('\n', "\r\n");
    let copies = [
        crs.clone(),
        crs.replace('\r', "\r\r"),
        format!("X-TUID: first\n{PLAIN}"),
        PLAIN.replace("Subject", "x-tuid: in the middle\nSubject"),
        PLAIN.replace("\n\nHello", "\nX-TUID: last\n\nHello"),
        PLAIN.replace("\n\nHello", "\nX-TUID:\n folded\n\nHello"),
    ];
    for copy in copies {
        assert_eq!(of(&copy).plain, of(PLAIN).plain, "{copy:?}");
        assert_eq!(of(&copy).is_marked, copy.to_lowercase().contains("tuid"));
    }
    let spaced = PLAIN
        .replace(": ", ":  \t")
        .replace("<1@x>", "\n <1@x> ")
        .replace("a\n b", "a b");
    assert_ne!(of(&spaced).plain, of(PLAIN).plain);
    assert_eq!(of(&spaced).squeezed, of(PLAIN).squeezed);
    assert_eq!(of(&spaced).message, of(PLAIN).message);
}

#[test]
fn another_header_is_the_same_message_and_another_body_or_id_is_not() {
    let labelled = format!("X-Label: later\n{PLAIN}");
    assert!(agree(&labelled, PLAIN));
    assert_ne!(of(&labelled).squeezed, of(PLAIN).squeezed);
    for other in [
        PLAIN.replace("Ben", "ben"),
        PLAIN.replace("Hello", "Hello "),
        PLAIN.replace("<1@x>", "<2@x>"),
        PLAIN.replace("Message-ID", "X-Message-ID"),
        PLAIN.replace("Ben", "X-TUID: of the body\nBen"),
        PLAIN.replace("Hello\n", "Hel\rlo\n"),
    ] {
        assert!(!agree(&other, PLAIN), "{other:?}");
    }
}

#[test]
fn the_first_of_several_ids_counts_however_it_is_folded() {
    let twice = "message-id:\n\t<1@x>\nMessage-ID: <2@x>\n\nHello\n\nBen\n";
    assert!(agree(twice, PLAIN));
    assert!(of(twice).message.is_some_and(|named| named.has_id));
}

#[test]
fn without_an_id_the_body_says_who_it_is_unless_it_is_empty() {
    let without = |subject: &str, body: &str| format!("Subject: {subject}\n\n{body}");
    assert!(agree(&without("a", "text"), &without("b", "text")));
    let named = of(&without("a", "text")).message;
    assert!(named.is_some_and(|named| !named.has_id));
    assert_eq!(of(&without("a", " \n\n")).message, None);
    assert!(!agree(&without("a", ""), &without("b", "")));
    assert!(!agree(&without("a", "Hello\n\nBen\n"), PLAIN));
    // The header tells, whose white space does not count.
    assert_eq!(
        of(&without("a", "")).squeezed,
        of(&without(" a", "")).squeezed
    );
}

#[test]
fn a_header_that_does_not_end_is_ended_as_offlineimap_does() {
    for (original, copy) in [
        ("no header at all", "\nno header at all"),
        (
            "A: b\nno header\nMessage-ID: <1@x>\n\nc",
            "A: b\n\nno header\nMessage-ID: <1@x>\n\nc",
        ),
        (
            "Message-ID: <1@x>\nSubject: a\n",
            "Message-ID: <1@x>\nSubject: a\n\n",
        ),
    ] {
        assert!(agree(original, copy), "{original:?}");
        assert_ne!(of(original).plain, of(copy).plain);
    }
    assert_eq!(of("Subject: a\n").squeezed, of("Subject: a\n\n").squeezed);
    assert_eq!(of("Subject: a").message, None);
    assert_eq!(of("").message, None);
    assert!(!agree("", ""));
}

#[test]
fn the_original_is_made_of_a_copy() {
    let crs = PLAIN.replace('\n', "\r\n");
    let header_only = PLAIN.replacen('\n', "\r\n", 3);
    let marked = PLAIN.replace("Subject", "X-TUID: 1\r\n 2\nSubject");
    let marked_last = crs.replace("\r\n\r\nHello", "\r\nX-TUID: 1\r\n\r\nHello");
    let mixed = "A: b\r\r\nC: d\n\r\ne\r\n\n\nf\rg\r\n\r";
    let all = [
        PLAIN,
        &crs,
        &header_only,
        &marked,
        &marked_last,
        mixed,
        "",
        "\r\n",
        "a",
        "a\r\nX-tuid: b",
    ];
    for original in all {
        let fingerprint = of(original);
        let form = fingerprint.form.expect("it can be told");
        let unix = original.replace("\r\r\n", "\n").replace("\r\n", "\n");
        let copies = [
            unix.replace('\n', "\r\n"),
            format!("X-TUID: 99\n{unix}"),
            unix,
        ];
        for copy in copies {
            if of(&copy).plain != fingerprint.plain {
                continue; // The mark would be the header's last line, which does not end.
            }
            let mut made = Vec::new();
            let small = io::BufReader::with_capacity(2, copy.as_bytes());
            assert!(
                form.restore(small, &mut made)
                    .expect("memory does not fail")
            );
            assert_eq!(String::from_utf8_lossy(&made), original, "of {copy:?}");
        }
    }
}

#[test]
fn what_is_too_odd_is_not_told() {
    let turns = "a\nb\r\n".repeat(RUNS_MAX);
    assert_eq!(of(&format!("A: b\n\n{turns}")).form, None);
    let crs = "\r".repeat(300);
    assert_eq!(of(&format!("A: b{crs}\n\n")).form, None);
    assert_eq!(of("X-TUID: 1\nA: b\nX-TUID: 2\n\n").form, None);
    let long = format!("X-TUID: {}\n\n", "1".repeat(MARK_BYTES_MAX));
    assert_eq!(of(&long).form, None);
    let header = "A: b\n".repeat(HEADER_BYTES_MAX / 3);
    assert_eq!(Fingerprint::of(header.as_bytes()).expect("memory"), None);
    let mut made = Vec::new();
    let is_made = Form::default().restore(header.as_bytes(), &mut made);
    assert!(!is_made.expect("memory"));
}

#[test]
fn what_stands_between_parts_does_not_count_where_there_are_any() {
    let header = "Message-ID: <1@x>\nContent-type:  Multipart/mixed; boundary=b\n\n";
    let original = format!("{header}--b\n\n-\none\n--b\n\ntwo");
    let written = format!("{header}\n--b\n\n-\none\n\n--b\n\ntwo\n\n--b--\n");
    assert!(!agree(&original, &written));
    assert_eq!(of(&original).parts, of(&written).parts);
    for other in [
        written.replace("one", "on"),
        written.replace("-\none", "one"),
        written.replace("<1@x>", "<2@x>"),
    ] {
        assert_ne!(of(&original).parts, of(&other).parts, "{other:?}");
    }
    assert_eq!(of(PLAIN).parts, None);
    let without = |text: &str| text.replace("Message-ID: <1@x>", "Subject: a");
    assert_eq!(of(&without(&original)).parts, of(&without(&written)).parts);
    assert_ne!(of(&without(&original)).parts, of(&original).parts);
}

#[test]
fn a_nul_counts_as_what_dovecot_has_for_it_and_cannot_be_told() {
    let read = |bytes: &[u8]| {
        Fingerprint::of(bytes)
            .expect("memory")
            .expect("it can be read")
    };
    let (original, copy) = (
        read(b"A: b\0\n\nc\0\0d\n"),
        read(b"A: b\x80\n\nc\x80\x80d\n"),
    );
    assert_eq!(
        (original.plain, original.message),
        (copy.plain, copy.message)
    );
    assert!(original.form.is_none() && copy.form.is_some());
}
