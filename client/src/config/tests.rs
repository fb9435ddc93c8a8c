//! What files and options together mean.

use std::path::Path;

use super::*;
use crate::cli::{Cli, Command, SyncArgs};
use crate::merge::filter::Scope;

/// A home with a configuration file, where one is given.
struct Home {
    dirs: Dirs,
    _root: tempfile::TempDir,
}

fn home(config: Option<&str>) -> Home {
    let root = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| root.path().join(name);
    if let Some(text) = config {
        std::fs::create_dir(path("config")).expect("a new directory");
        std::fs::write(path("config/config.toml"), text).expect("a new file");
    }
    let dirs = Dirs {
        home: "/home/me".into(),
        current: "/work".into(),
        config: path("config"),
        state: "/state".into(),
    };
    Home { dirs, _root: root }
}

fn resolved(home: &Home, line: &str) -> Result<Vec<Account>, ConfigError> {
    let words = ["maildir-sync"]
        .into_iter()
        .chain(line.split_whitespace())
        .map(Into::into);
    let args = match Cli::from_words(words)
        .expect("a valid command line")
        .command
    {
        Command::Pull(args) | Command::Push(args) | Command::Sync(args) => args,
        Command::Status(args) => args.to_sync(),
        Command::Watch(_)
        | Command::Pause(_)
        | Command::Resume(_)
        | Command::Completions { .. }
        | Command::Man => {
            unreachable!("not asked for here")
        }
    };
    let resolved = resolve(&args, "sync", &home.dirs, |_| None)?;
    resolved.into_iter().map(|(_, account)| account).collect()
}

const TWO: &str = r#"
[account.work]
remote = "work:"
local = "Work"

[account.home]
remote = "me@mail.example.org:Maildir"
local = "~/Maildir"
exclude = ["Junk"]
max_delete = "10%"
identity = "~/.ssh/mail"
ssh_config = "ssh.conf"
server_command = "a"
"#;

#[test]
fn without_arguments_every_account_of_the_file_is_meant_in_its_order() {
    let home = home(Some(TWO));
    let accounts = resolved(&home, "sync").expect("valid");
    let names: Vec<&str> = accounts
        .iter()
        .map(|account| account.name.as_str())
        .collect();
    assert_eq!(names, ["work", "home"]);
    assert_eq!(accounts[0].local, Path::new("/home/me/Work"));
    assert_eq!(accounts[0].trash_days, 30);
    assert_eq!(accounts[0].guard, MaxDelete::Default);
    assert_eq!(accounts[1].local, Path::new("/home/me/Maildir"));
    assert_eq!(accounts[1].guard, MaxDelete::Percent(10));
    assert_eq!(
        accounts[1].identity.as_deref(),
        Some(Path::new("/home/me/.ssh/mail"))
    );
    assert_eq!(
        accounts[1].ssh_config.as_deref(),
        Some(Path::new("/home/me/ssh.conf"))
    );
    assert_eq!(accounts[1].state_dir, Path::new("/state"));
    assert_eq!(
        resolved(&home, "status home").expect("valid"),
        accounts[1..]
    );
}

#[test]
fn options_stand_above_the_file() {
    let home = home(Some(TWO));
    let line = "--state-dir s -n pull --max-delete 7 home -i ./key -F ~/cfg --server-command b --folder Junk --adopt";
    let [account] = resolved(&home, line)
        .expect("valid")
        .try_into()
        .expect("one account");
    assert_eq!(account.guard, MaxDelete::Count(7));
    assert_eq!(account.identity.as_deref(), Some(Path::new("/work/key")));
    assert_eq!(
        account.ssh_config.as_deref(),
        Some(Path::new("/home/me/cfg"))
    );
    assert_eq!(account.server_command.as_deref(), Some("b"));
    assert_eq!(account.state_dir, Path::new("/work/s"));
    assert!(account.dry_run && account.adopt && !account.checksum);
    assert_eq!(account.filter.scope(b"Junk", &|_| false), Scope::Included);
    assert_eq!(
        account.filter.scope(b"INBOX", &|_| false),
        Scope::NotSelected
    );
}

#[test]
fn a_typed_pair_needs_no_file() {
    let home = home(None);
    let [account] = resolved(&home, "pull host:~/Maildir Mail/./x")
        .expect("valid")
        .try_into()
        .expect("one account");
    assert_eq!(
        (account.name.as_str(), account.local.as_path()),
        ("host:Maildir", Path::new("/work/Mail/x"))
    );
    let [account] = resolved(&home, "pull me@host: x")
        .expect("valid")
        .try_into()
        .expect("one account");
    assert_eq!(account.name, "me@host", "messages put a colon behind it");
    let [account] = resolved(&home, "pull ./a ~/b")
        .expect("valid")
        .try_into()
        .expect("one account");
    assert_eq!(account.remote, Address::Local("/work/a".into()));
    assert_eq!(account.local, Path::new("/home/me/b"));
}

#[test]
fn what_cannot_be_meant_is_said_in_one_sentence() {
    let home = home(Some(TWO));
    let table = [
        (
            "sync hom",
            "Unknown account \"hom\", did you mean \"home\"?",
        ),
        (
            "sync other",
            "Unknown account \"other\"; the config file has: work, home",
        ),
        (
            "sync host:x",
            "Name the Maildir on this machine too, as in: host:x ~/Maildir",
        ),
        (
            "sync home work",
            "\"home\" is no remote: write host:path or ./path, or name one account alone",
        ),
        (
            "sync host:x host:y",
            "The local side comes second and is a path; write \"./host:y\" if \"host:y\" is one",
        ),
        (
            "sync ~/x /home/me/./x",
            "Both sides of \"~/x\" are the same directory",
        ),
        (
            "sync -i key ./x y",
            "-i and -F are for ssh, and /work/x is on this machine",
        ),
        (
            "sync --config c host:x y",
            "--config names accounts: leave out either it or REMOTE LOCAL",
        ),
        (
            "sync --config /no/such/file",
            "Cannot read \"/no/such/file\": No such file or directory (os error 2)",
        ),
        (
            "sync --folder a[ home",
            "Invalid folder pattern \"a[\": unclosed character class; missing ']'",
        ),
    ];
    for (line, message) in table {
        assert_eq!(resolved(&home, line).expect_err(line).to_string(), message);
    }
}

#[test]
fn files_that_make_no_pair_are_errors_with_their_line() {
    let table = [
        (
            "\n[account.x]\nlocal = 'a'\n",
            2,
            "Account \"x\" has no remote",
        ),
        (
            "\n[account.x]\nremote = 'a:'\n",
            2,
            "Account \"x\" has no local",
        ),
        (
            "\n[account.'a/b']\n",
            2,
            "\"a/b\" is no name for an account: it could not be typed as one",
        ),
        (
            "[account.x]\nlocal='a'\nremote = '-x:y'\n",
            3,
            "remote: Invalid address \"-x:y\": a host cannot start with \"-\"",
        ),
        (
            "[account.x]\nremote = 'a:'\nlocal = 'host:b'\n",
            3,
            "local: the Maildir on this machine is a path; write \"./host:b\" if \"host:b\" is one",
        ),
        (
            "\n[account.x]\nremote = 'a:'\nlocal = 'b'\nexclude = ['a[']\n",
            5,
            "exclude: Invalid folder pattern \"a[\": unclosed character class; missing ']'",
        ),
        (
            "[account.x]\nremote = 'a:'\nlocal = ''\n",
            3,
            "local: Cannot use the path \"\": it is empty; write ~ if your home is meant",
        ),
        (
            "[account.x]\nremote = ''\nlocal = 'b'\n",
            2,
            "remote: Invalid address \"\": it is empty",
        ),
        (
            "[account.x]\nremote = 'a:'\nlocal = 'b'\nidentity = '~me/k'\n",
            4,
            "identity: Cannot use the path \"~me/k\": the home of another user must be written in full",
        ),
        (
            "[account.x]\nremote = './$X/y'\nlocal = 'b'\n",
            2,
            "remote: Cannot use the path \"./$X/y\": no shell reads it here, so variables but a leading $HOME must be \
             written out",
        ),
    ];
    for (text, line, why) in table {
        let home = home(Some(text));
        let path = home.dirs.config.join("config.toml");
        let message = format!("{}, line {line}: {why}", path.display());
        assert_eq!(
            resolved(&home, "sync").expect_err(text).to_string(),
            message
        );
    }
}

#[test]
fn what_a_shell_would_expand_is_understood_or_refused() {
    let home = home(None);
    for path in ["$HOME/Mail", "${HOME}/Mail", "~/Mail"] {
        let text = format!("[account.x]\nremote = 'a:'\nlocal = '{path}'\n");
        let configured = self::home(Some(&text));
        for (home, line) in [
            (&configured, "sync x"),
            (&home, &*format!("sync a: {path}")),
        ] {
            let accounts = resolved(home, line).expect("understood");
            assert_eq!(accounts[0].local, Path::new("/home/me/Mail"), "{line}");
        }
        let accounts = resolved(&home, &format!("sync {path} x")).expect("understood");
        assert_eq!(accounts[0].remote, Address::Local("/home/me/Mail".into()));
    }
    let refused = [
        "sync a: ~me/Mail",
        "sync a: $MAIL/x",
        "sync a: /home/$USER/x",
        "sync a: ${MAIL}",
        "sync ~me/Mail x",
        "sync $MAIL/x y",
        "sync a:$HOME/Mail x",
        "sync a:${HOME} x",
        "sync a:~me x",
        "sync --state-dir $STATE/x a: b",
        "sync -i ~me/key a: b",
        "sync a:b/$USER x",
        "sync ssh://a/$HOME/Mail x",
    ];
    for line in refused {
        let error = resolved(&home, line).expect_err(line).to_string();
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    for (line, path) in [
        ("sync a: ./~me", "/work/~me"),
        ("sync a: x$y/$1", "/work/x$y/$1"),
    ] {
        let accounts = resolved(&home, line).expect("a name like any other");
        assert_eq!(accounts[0].local, Path::new(path));
    }
}

#[test]
fn one_wrong_account_does_not_keep_the_others_from_running() {
    for wrong in [
        "local = '~me/x'",
        "local = 'b'\nmax_delete = 'lots'",
        "remot = 'b'",
    ] {
        let text = format!("[account.bad]\nremote = 'a:'\n{wrong}\n{TWO}");
        let home = home(Some(&text));
        let args = SyncArgs::default();
        let accounts = resolve(&args, "sync", &home.dirs, |_| None).expect("the file is one");
        let fine = accounts
            .iter()
            .map(|(name, account)| (name.as_str(), account.is_ok()));
        let fine: Vec<_> = fine.collect();
        assert_eq!(fine, [("bad", false), ("work", true), ("home", true)]);
    }
}

#[test]
fn without_any_account_the_file_to_write_is_named() {
    for home in [home(None), home(Some(""))] {
        let message = resolved(&home, "sync")
            .expect_err("nothing to do")
            .to_string();
        assert!(
            message.starts_with("No account is configured. Name both sides, as in\n"),
            "{message}"
        );
        assert!(
            message.contains(&*home.dirs.config.join("config.toml").to_string_lossy()),
            "{message}"
        );
        assert!(
            message.contains("remote = \"me@mail.example.org:Maildir\""),
            "{message}"
        );
    }
}

#[test]
fn a_limit_on_deletions_is_a_number_or_a_share() {
    for (text, limit) in [
        ("0", MaxDelete::Count(0)),
        ("2000", MaxDelete::Count(2000)),
        ("0%", MaxDelete::Percent(0)),
    ] {
        assert_eq!(text.parse(), Ok(limit));
        assert_eq!(limit.to_string(), text);
    }
    assert_eq!("100%".parse(), Ok(MaxDelete::Percent(100)));
    for text in [
        "",
        "%",
        "101%",
        "-1",
        "+1",
        "5.5%",
        "x",
        "1e3",
        "99999999999999999999",
    ] {
        assert!(text.parse::<MaxDelete>().is_err(), "{text}");
    }
}

#[test]
fn the_example_in_contrib_is_valid() {
    let home = home(Some(include_str!("../../../contrib/config.toml")));
    let accounts = resolved(&home, "sync").expect("valid");
    assert_eq!(
        accounts
            .iter()
            .map(|account| account.name.as_str())
            .collect::<Vec<_>>(),
        ["home", "phone"]
    );
    assert_eq!(accounts[0].persist, Some(Duration::from_secs(600)));
    assert_eq!(
        accounts[0].filter.scope(b"Archive/2019", &|_| false),
        Scope::Excluded
    );
    assert_eq!(
        accounts[1].filter.scope(b"Sent", &|_| false),
        Scope::NotSelected
    );
}

#[test]
fn watch_takes_accounts_or_a_pair() {
    let targets = |line: &str| match Cli::from_words(
        ["maildir-sync"]
            .into_iter()
            .chain(line.split(' '))
            .map(Into::into),
    )
    .expect(line)
    .command
    {
        Command::Watch(args) => {
            let each = watched(&args).into_iter();
            let each = each.map(|args| (args.target.account_or_remote, args.target.local));
            each.collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(targets("watch"), [(None, None)]);
    let names = ["a", "b"].map(|name| (Some(name.into()), None));
    assert_eq!(targets("watch a b"), names);
    let pair = (Some("host:Maildir".into()), Some("here".into()));
    assert_eq!(targets("watch host:Maildir here"), [pair]);
}
