//! What is an address, what is none, and why.

use super::*;

fn parsed(text: &str) -> Result<Address, AddressError> {
    Address::parse(OsStr::new(text))
}

fn ssh(user: Option<&str>, host: &str, port: Option<u16>, path: &str) -> Address {
    Address::Ssh {
        user: user.map(str::to_owned),
        host: host.to_owned(),
        port,
        path: path.into(),
    }
}

#[test]
fn servers_are_read_and_written_in_canonical_form() {
    let table = [
        (
            "mail.example.org:Maildir",
            ssh(None, "mail.example.org", None, "Maildir"),
            "",
        ),
        (
            "me@mail.example.org:Maildir",
            ssh(Some("me"), "mail.example.org", None, "Maildir"),
            "",
        ),
        (
            "me@host:/var/mail/me",
            ssh(Some("me"), "host", None, "/var/mail/me"),
            "",
        ),
        ("host:", ssh(None, "host", None, ""), ""),
        (
            "host:~/Mail dir",
            ssh(None, "host", None, "Mail dir"),
            "host:Mail dir",
        ),
        ("host:~//a", ssh(None, "host", None, "a"), "host:a"),
        ("host:~", ssh(None, "host", None, "."), "host:."),
        ("host:a:b@c", ssh(None, "host", None, "a:b@c"), ""),
        ("host:dir/a@b", ssh(None, "host", None, "dir/a@b"), ""),
        (
            "DOM\\me@host:x",
            ssh(Some("DOM\\me"), "host", None, "x"),
            "",
        ),
        ("[::1]:Maildir", ssh(None, "::1", None, "Maildir"), ""),
        (
            "me@[fe80::1%eth0]:Maildir",
            ssh(Some("me"), "fe80::1%eth0", None, "Maildir"),
            "",
        ),
        (
            "ssh://host/var/mail",
            ssh(None, "host", None, "/var/mail"),
            "host:/var/mail",
        ),
        (
            "ssh://host/~/Maildir",
            ssh(None, "host", None, "Maildir"),
            "host:Maildir",
        ),
        ("ssh://host/~", ssh(None, "host", None, "."), "host:."),
        ("ssh://host", ssh(None, "host", None, ""), "host:"),
        ("ssh://host:22", ssh(None, "host", Some(22), ""), ""),
        (
            "ssh://me@host:2222/~/Maildir",
            ssh(Some("me"), "host", Some(2222), "Maildir"),
            "",
        ),
        (
            "ssh://me@host:2222/Maildir",
            ssh(Some("me"), "host", Some(2222), "/Maildir"),
            "",
        ),
        (
            "ssh://[::1]:2222/Maildir",
            ssh(None, "::1", Some(2222), "/Maildir"),
            "",
        ),
    ];
    for (text, address, canonical) in table {
        assert_eq!(parsed(text).as_ref(), Ok(&address), "{text}");
        let canonical = if canonical.is_empty() {
            text
        } else {
            canonical
        };
        assert_eq!(address.to_string(), canonical, "{text}");
        assert_eq!(parsed(canonical).as_ref(), Ok(&address), "{canonical}");
    }
}

#[test]
fn local_paths_are_told_by_their_start() {
    for text in [
        "/",
        "/mnt/disk/Maildir",
        "./Maildir",
        "../a:b",
        "~/Maildir",
        ".",
        "..",
        "~",
        "./-x",
    ] {
        assert_eq!(parsed(text), Ok(Address::Local(text.into())), "{text}");
        assert!(Address::looks_like_one(OsStr::new(text)));
    }
    let bytes = OsStr::from_bytes(b"./\xff");
    assert_eq!(Address::parse(bytes), Ok(Address::Local(bytes.into())));
}

#[test]
fn what_could_reach_a_shell_or_an_option_is_refused() {
    let table = [
        ("", "it is empty"),
        ("-oProxyCommand=x:path", "a host cannot start with \"-\""),
        ("me@-oProxyCommand=x:path", "a host cannot start with \"-\""),
        ("-l@host:path", "a user cannot start with \"-\""),
        (
            "ssh://-oProxyCommand=x/path",
            "a host cannot start with \"-\"",
        ),
        (":path", "the host is empty"),
        ("me@:path", "the host is empty"),
        ("@host:path", "the user is empty"),
        ("ssh:///path", "the host is empty"),
        (
            "ho`st`:path",
            "the host holds a character that no host name has",
        ),
        (
            "$(x):path",
            "the host holds a character that no host name has",
        ),
        (
            "a b:path",
            "the host holds a character that no host name has",
        ),
        (
            "a@b@c:path",
            "the host holds a character that no host name has",
        ),
        (
            "m;e@host:path",
            "the user holds a character that no user name has",
        ),
        ("host\n:path", "it holds a control character"),
        ("host:pa\0th", "it holds a control character"),
        (
            "ssh://me:secret@host/x",
            "a password does not belong there; use a key",
        ),
        ("ssh://host:0/x", "a port is a number from 1 to 65535"),
        ("ssh://host:+22/x", "a port is a number from 1 to 65535"),
        ("ssh://host:/x", "a port is a number from 1 to 65535"),
        ("ssh://host:70000/x", "a port is a number from 1 to 65535"),
        ("[::1:path", "\"[\" without \"]\""),
        ("[host]:path", "in brackets there must be an IPv6 address"),
        ("[::1]path:x", "after the host there must be \":path\""),
        (
            "host:~bob/Maildir",
            "the home of another user must be written as an absolute path",
        ),
        (
            "host::module",
            "\"host::module\" is rsync's; write host:path",
        ),
        ("imaps://host/x", "only ssh:// is known"),
        (
            "Mail/dir",
            "write host:path for a Maildir on a server, or ./path for one on this machine",
        ),
        (
            "Mail/dir:x",
            "write host:path for a Maildir on a server, or ./path for one on this machine",
        ),
    ];
    for (text, why) in table {
        assert_eq!(
            parsed(text).map_err(|error| error.why),
            Err(why),
            "{text:?}"
        );
    }
    let error = Address::parse(OsStr::from_bytes(b"h\x1b\xff:x")).expect_err("a control character");
    assert_eq!(
        error.to_string(),
        "Invalid address \"h\\x1b\\xff:x\": it holds a control character"
    );
    assert!(Address::parse(OsStr::from_bytes(b"h\xff:x")).is_err());
}

#[test]
fn names_of_accounts_do_not_look_like_addresses() {
    for (text, address) in [
        ("home", false),
        ("work-2", false),
        ("host:", true),
        ("a/b", true),
        ("ssh://h", true),
    ] {
        assert_eq!(Address::looks_like_one(OsStr::new(text)), address, "{text}");
    }
}

#[test]
fn a_shell_reads_back_what_was_quoted() {
    let words: [&[u8]; 6] = [
        b"",
        b"me@host:Mail",
        b"it's $HOME",
        b"a\nb",
        b"\xff'",
        "é~".as_bytes(),
    ];
    for word in words {
        let script = format!("printf %s {}", quote(OsStr::from_bytes(word)));
        let bash = std::process::Command::new("bash")
            .args(["-c", &script])
            .output();
        assert_eq!(bash.expect("bash runs").stdout, word, "{script}");
    }
}
