//! Bodies of messages: small ones told apart by a label, bulky ones that do not compress, and a whole sample account.

use crate::rng::Rng;
use crate::tree::Tree;

/// A short message that only this label has.
#[must_use]
pub fn body(label: &str) -> Vec<u8> {
    let id = &digest_hex(label.as_bytes())[..20];
    format!(
        "From: Ada <ada@example.org>\nTo: Ben <ben@example.net>\nMessage-ID: <{id}@example.org>\nSubject: {label}\n\n\
         This is {label}.\n"
    )
    .into_bytes()
}

/// A message of about `size` bytes that no compressor makes much smaller than three quarters.
#[must_use]
pub fn bulky(label: &str, size: usize) -> Vec<u8> {
    let hash = blake3::hash(label.as_bytes());
    let seed = u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("eight bytes"));
    let mut bytes = body(label);
    for (at, byte) in Rng::new(seed)
        .bytes(size.saturating_sub(bytes.len()))
        .into_iter()
        .enumerate()
    {
        let letter = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
            [usize::from(byte % 64)];
        bytes.push(if at % 77 == 76 { b'\n' } else { letter });
    }
    bytes
}

/// The BLAKE3 digest in hexadecimal.
#[must_use]
pub fn digest_hex(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// The name that a message gets when other bytes have its own (SPEC §4): 16 hex digits of the digest go before the
/// first comma. For names short enough not to be cut.
#[must_use]
pub fn fresh_name(unique: &str, bytes: &[u8]) -> String {
    let at = unique.find(',').unwrap_or(unique.len());
    format!(
        "{}{}{}",
        &unique[..at],
        &digest_hex(bytes)[..16],
        &unique[at..]
    )
}

const WORDS: &[&str] = &[
    "the", "server", "patch", "message", "please", "find", "attached", "meeting", "on", "Tuesday",
    "regards", "thread", "review", "folder", "release", "and", "of", "in", "to", "we", "build",
    "fails", "again", "thanks", "quota", "list",
];

/// A message as an account holds it: headers that neighbours share, prose, sometimes an attachment.
#[must_use]
pub fn realistic(rng: &mut Rng, number: usize) -> Vec<u8> {
    let lines = match rng.below(100) {
        0..=59 => 5 + rng.below(40),
        60..=94 => 40 + rng.below(160),
        _ => 200 + rng.below(600),
    };
    let mut text = header(rng, number);
    for _ in 0..lines {
        let line: Vec<&str> = (0..8).map(|_| WORDS[rng.below(WORDS.len())]).collect();
        text.push_str(&line.join(" "));
        text.push('\n');
    }
    let mut bytes = text.into_bytes();
    if rng.chance(5) {
        bytes.extend_from_slice(&bulky(
            &format!("attachment {number}"),
            4000 + rng.below(30_000),
        ));
    }
    bytes
}

fn header(rng: &mut Rng, number: usize) -> String {
    let list = rng.below(12);
    format!(
        "Return-Path: <list-{list}-bounces@lists.example.org>\nReceived: from mx{}.example.org by mail.example.net with \
         ESMTPS id {:016x}\nDKIM-Signature: v=1; a=rsa-sha256; d=example.org; b={:016x}{:016x}\nFrom: Person {} \
         <person{}@example.org>\nTo: list-{list}@lists.example.org\nMessage-ID: <{number}.{:016x}@example.org>\n\
         Subject: Topic {}\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\n",
        rng.below(4),
        rng.next_u64(),
        rng.next_u64(),
        rng.next_u64(),
        rng.below(300),
        rng.below(300),
        rng.next_u64(),
        rng.below(5000),
    )
}

/// Fills a tree with `count` messages in `folders` folders; equal arguments give equal trees.
pub fn fill(tree: &Tree, count: usize, folders: usize, seed: u64) {
    let mut rng = Rng::new(seed);
    let names: Vec<String> = (0..folders)
        .map(|number| {
            if number == 0 {
                "INBOX".to_owned()
            } else {
                format!("Lists/list{number}")
            }
        })
        .collect();
    for name in &names {
        tree.make_folder(name);
    }
    for number in 0..count {
        let bytes = realistic(&mut rng, number);
        // Small folders and one large one, as accounts are.
        let folder = &names[rng.below(folders).min(rng.below(folders))];
        let unique = format!(
            "{}.M{number}P7.mx,S={}",
            1_500_000_000 + number * 60,
            bytes.len()
        );
        if rng.chance(4) {
            tree.deliver(folder, &unique, &bytes);
        } else {
            let flags = ["", "S", "S", "S", "RS", "FS", "Sa"][rng.below(7)];
            tree.store(folder, &unique, flags, &bytes);
        }
    }
}
