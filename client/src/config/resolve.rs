//! Puts the file and the typed options together: what was typed stands above what was written.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use protocol::bytes::{escape, is_variable};
use toml::Spanned;

use super::file::{Accounts, Keys, Text, nearest};
use super::{Account, ConfigError, Dirs, TIMEOUT, TRASH_DAYS};
use crate::cli::{StateArgs, SyncArgs, TargetArgs, WatchArgs};
use crate::config::address::{Address, quote};
use crate::merge::filter::{Filter, Verdict};

/// An account's name, and what it comes to.
pub type Resolved = (String, Result<Account, ConfigError>);

/// The pair that was synced last, as it could be typed again.
#[derive(Debug)]
pub struct TypedPair {
    /// Both places.
    pub pair: String,
    /// The options that belong to them, each with a space behind it.
    pub options: String,
}

/// Finds the pair that was synced last below a state directory.
pub type LastPair = fn(&Path) -> Option<TypedPair>;

/// Puts together the accounts that a command deals with, in the order of the file. One that is wrong does not keep the
/// others from being dealt with.
///
/// # Errors
/// When the file or the command line is wrong as a whole, or names nothing to do.
pub fn resolve(
    args: &SyncArgs,
    command: &str,
    dirs: &Dirs,
    last_pair: LastPair,
) -> Result<Vec<Resolved>, ConfigError> {
    match (&args.target.account_or_remote, &args.target.local) {
        (Some(remote), Some(local)) => {
            let account = typed(args, dirs, remote, local)?;
            Ok(vec![(account.name.clone(), Ok(account))])
        }
        (Some(remote), None) if Address::looks_like_one(remote) => {
            let remote = Address::parse(remote)?;
            Err(ConfigError::Target(format!(
                "Name the Maildir on this machine too, as in: {remote} ~/Maildir"
            )))
        }
        (name, None) => configured(args, command, dirs, name.as_deref(), last_pair),
        (None, Some(_)) => Err(ConfigError::Target(
            "Name the remote before the local Maildir".to_owned(),
        )),
    }
}

/// What `watch` was given as the arguments of runs: one for each account, or one for the pair, or one for all accounts.
#[must_use]
pub fn watched(args: &WatchArgs) -> Vec<SyncArgs> {
    let of = |account_or_remote, local: Option<&OsString>| SyncArgs {
        target: TargetArgs {
            account_or_remote,
            local: local.map(PathBuf::from),
        },
        folders: args.folders.clone(),
        connection: args.connection.clone(),
        places: args.places.clone(),
        output: args.output.clone(),
        ..SyncArgs::default()
    };
    match &args.words[..] {
        [] => vec![of(None, None)],
        [remote, local] if Address::looks_like_one(remote) => {
            vec![of(Some(remote.clone()), Some(local))]
        }
        names => names
            .iter()
            .map(|name| of(Some(name.clone()), None))
            .collect(),
    }
}

/// The pair that was typed; the configuration file has no say in it.
fn typed(
    args: &SyncArgs,
    dirs: &Dirs,
    remote: &OsStr,
    local: &Path,
) -> Result<Account, ConfigError> {
    if args.places.config.is_some() {
        return Err(ConfigError::Target(
            "--config names accounts: leave out either it or REMOTE LOCAL".to_owned(),
        ));
    }
    if !Address::looks_like_one(remote) {
        let name = escape(remote.as_encoded_bytes());
        return Err(ConfigError::Target(format!(
            "\"{name}\" is no remote: write host:path or ./path, or name one account alone"
        )));
    }
    if let Ok(Address::Ssh { .. }) = Address::parse(local.as_os_str()) {
        return Err(ConfigError::Target(format!(
            "The local side comes second and is a path; write \"./{0}\" if \"{0}\" is one",
            escape(local.as_os_str().as_encoded_bytes())
        )));
    }
    let remote = Address::parse(remote)?;
    let name = remote.to_string();
    build(
        name.strip_suffix(':').unwrap_or(&name).to_owned(),
        remote,
        local,
        Keys::default(),
        args,
        (&dirs.current, dirs),
    )
}

/// The accounts of the file, or the one of them that is named.
fn configured(
    args: &SyncArgs,
    command: &str,
    dirs: &Dirs,
    name: Option<&OsStr>,
    last_pair: LastPair,
) -> Result<Vec<Resolved>, ConfigError> {
    let path = match &args.places.config {
        Some(path) => absolute(path, &dirs.current, dirs)?,
        None => dirs.config.join("config.toml"),
    };
    let last = match name {
        None => last_command(args, command, dirs, last_pair)?,
        Some(_) => None,
    };
    let none = |path| {
        let name = name.map(|name| escape(name.as_encoded_bytes()));
        ConfigError::NoAccount { path, name, last }
    };
    let accounts = match Accounts::read(&path) {
        Ok(accounts) if accounts.names().next().is_some() => accounts,
        Ok(_) => return Err(none(path)),
        Err(error) if error.is_missing_file() && args.places.config.is_none() => {
            return Err(none(path));
        }
        Err(error) => return Err(error),
    };
    if let Some(name) = name.filter(|&name| !accounts.names().any(|known| known == name)) {
        return Err(unknown_account(name, &accounts));
    }
    if name.is_none()
        && accounts.names().nth(1).is_some()
        && let Some(option) = for_one_account(args)
    {
        let names: Vec<&str> = accounts.names().collect();
        return Err(ConfigError::Target(format!(
            "{option} is for one account; name it: {}",
            names.join(", ")
        )));
    }
    let Accounts {
        accounts,
        text: file,
    } = accounts;
    let chosen = accounts
        .into_iter()
        .filter(|(account, _)| name.is_none_or(|name| name == account.get_ref().as_str()));
    let resolved = chosen.map(|(name, keys)| {
        let account = keys.and_then(|keys| from_file(&file, &name, keys, args, dirs));
        (name.into_inner(), account)
    });
    Ok(resolved.collect())
}

/// An option that answers what was said of one account, if there is any.
fn for_one_account(args: &SyncArgs) -> Option<&'static str> {
    match (&args.run.confirm, args.run.adopt) {
        (Some(_), _) => Some("--confirm"),
        (None, true) => Some("--adopt"),
        (None, false) => None,
    }
}

/// The command line that names the pair that was synced last.
fn last_command(
    args: &SyncArgs,
    command: &str,
    dirs: &Dirs,
    last_pair: LastPair,
) -> Result<Option<String>, ConfigError> {
    let state_dir = state_dir(&args.places.state, dirs)?;
    let Some(last) = last_pair(&state_dir) else {
        return Ok(None);
    };
    let place = match &args.places.state.state_dir {
        Some(_) => format!("--state-dir {} ", quote(state_dir.as_os_str())),
        None => String::new(),
    };
    let options = if command == "status" {
        ""
    } else {
        &last.options
    };
    let pair = &last.pair;
    Ok(Some(format!(
        "maildir-sync {command} {place}{options}{pair}"
    )))
}

/// The state directory that was typed, or else the one of the environment.
///
/// # Errors
/// When what was typed is no path.
pub fn state_dir(args: &StateArgs, dirs: &Dirs) -> Result<PathBuf, ConfigError> {
    match &args.state_dir {
        Some(dir) => absolute(dir, &dirs.current, dirs),
        None => Ok(dirs.state.clone()),
    }
}

fn unknown_account(name: &OsStr, accounts: &Accounts) -> ConfigError {
    let name = escape(name.as_encoded_bytes());
    let hint = match nearest(&name, accounts.names()) {
        Some(meant) => format!(", did you mean \"{}\"?", escape(meant.as_bytes())),
        None => {
            let known: Vec<String> = accounts
                .names()
                .map(|known| escape(known.as_bytes()))
                .collect();
            format!("; the config file has: {}", known.join(", "))
        }
    };
    ConfigError::UnknownAccount { name, hint }
}

/// One account of the file, under the options that were typed.
fn from_file(
    file: &Text,
    name: &Spanned<String>,
    keys: Keys,
    args: &SyncArgs,
    dirs: &Dirs,
) -> Result<Account, ConfigError> {
    let shown = escape(name.get_ref().as_bytes());
    let missing = |what: &str| file.wrong(name, format!("Account \"{shown}\" has no {what}"));
    if name.get_ref().is_empty()
        || name.get_ref().starts_with('-')
        || Address::looks_like_one(OsStr::new(name.get_ref()))
    {
        let why = format!("\"{shown}\" is no name for an account: it could not be typed as one");
        return Err(file.wrong(name, why));
    }
    let remote = keys.remote.as_ref().ok_or_else(|| missing("remote"))?;
    let local = keys.local.as_ref().ok_or_else(|| missing("local"))?;
    let address = Address::parse(OsStr::new(remote.get_ref()));
    let address = address.map_err(|error| file.wrong(remote, format!("remote: {error}")))?;
    if let Ok(Address::Ssh { .. }) = Address::parse(OsStr::new(local.get_ref())) {
        let why = format!(
            "local: the Maildir on this machine is a path; write \"./{0}\" if \"{0}\" is one",
            escape(local.get_ref().as_bytes())
        );
        return Err(file.wrong(local, why));
    }
    check_values(file, &keys, &address, dirs)?;
    let local = PathBuf::from(local.get_ref());
    let name = name.get_ref().clone();
    build(name, address, &local, keys, args, (&dirs.home, dirs))
}

/// Says of a path or a pattern that is none under which key it stands; [`build`] knows nothing of files.
fn check_values(
    file: &Text,
    keys: &Keys,
    remote: &Address,
    dirs: &Dirs,
) -> Result<(), ConfigError> {
    let is_local = matches!(remote, Address::Local(_));
    let paths = [
        ("remote", keys.remote.as_ref().filter(|_| is_local)),
        ("local", keys.local.as_ref()),
        ("identity", keys.identity.as_ref()),
        ("ssh_config", keys.ssh_config.as_ref()),
    ];
    for (key, path) in paths {
        let Some(path) = path else { continue };
        absolute(Path::new(path.get_ref()), &dirs.home, dirs)
            .map_err(|error| file.wrong(path, format!("{key}: {error}")))?;
    }
    for (key, patterns) in [("folder", &keys.folder), ("exclude", &keys.exclude)] {
        for pattern in patterns {
            Filter::new(&[(Verdict::Select, pattern.get_ref().clone())], &[])
                .map_err(|error| file.wrong(pattern, format!("{key}: {error}")))?;
        }
    }
    Ok(())
}

/// Settles everything; `base` is what paths of `keys` and of both sides are relative to, while those of options are
/// relative to the working directory.
fn build(
    name: String,
    remote: Address,
    local: &Path,
    keys: Keys,
    args: &SyncArgs,
    (base, dirs): (&Path, &Dirs),
) -> Result<Account, ConfigError> {
    let SyncArgs {
        run,
        connection,
        folders,
        ..
    } = args.clone();
    let local = absolute(local, base, dirs)?;
    let remote = match remote {
        Address::Local(path) => Address::Local(absolute(&path, base, dirs)?),
        ssh @ Address::Ssh { .. } => ssh,
    };
    check_pair(&name, &remote, &local, args)?;
    let chosen = |typed: Option<PathBuf>, key: Option<Spanned<String>>| match (typed, key) {
        (Some(path), _) => absolute(&path, &dirs.current, dirs).map(Some),
        (None, Some(path)) => absolute(Path::new(path.get_ref()), base, dirs).map(Some),
        (None, None) => Ok(None),
    };
    Ok(Account {
        filter: Filter::new(&configured_patterns(&keys), &folders.0)?,
        guard: run.max_delete.or(keys.max_delete).unwrap_or_default(),
        no_delete: run.no_delete || keys.no_delete,
        trash_days: keys.trash_days.unwrap_or(TRASH_DAYS),
        persist: keys.persist,
        timeout: keys.timeout.unwrap_or(TIMEOUT),
        hooks: keys.hooks,
        server_command: connection.server_command.or(keys.server_command),
        identity: chosen(connection.identity, keys.identity)?,
        ssh_config: chosen(connection.ssh_config, keys.ssh_config)?,
        layout: keys.layout,
        folder_names: keys.folder_names,
        follow_links: keys.follow_links.unwrap_or(false),
        checksum: run.checksum || keys.checksum,
        metered: keys.metered,
        dry_run: run.dry_run,
        adopt: run.adopt,
        confirm: run.confirm,
        state_dir: state_dir(&args.places.state, dirs)?,
        name,
        remote,
        local,
    })
}

fn check_pair(
    name: &str,
    remote: &Address,
    local: &Path,
    args: &SyncArgs,
) -> Result<(), ConfigError> {
    let Address::Local(path) = remote else {
        return Ok(());
    };
    if path == local {
        return Err(ConfigError::Target(format!(
            "Both sides of \"{}\" are the same directory",
            escape(name.as_bytes())
        )));
    }
    let is_named = args.target.account_or_remote.is_some();
    if is_named && (args.connection.identity.is_some() || args.connection.ssh_config.is_some()) {
        return Err(ConfigError::Target(format!(
            "-i and -F are for ssh, and {remote} is on this machine"
        )));
    }
    Ok(())
}

/// `folder` before `exclude`: a table has no order between its keys, and this one lets `exclude` cut from `folder`.
fn configured_patterns(keys: &Keys) -> Vec<(Verdict, String)> {
    let select = keys
        .folder
        .iter()
        .map(|pattern| (Verdict::Select, pattern.get_ref().clone()));
    select
        .chain(
            keys.exclude
                .iter()
                .map(|pattern| (Verdict::Exclude, pattern.get_ref().clone())),
        )
        .collect()
}

/// A path with its `~` or `$HOME` spelled out and its `.` left out, relative to `base`; `..` stays, for links have a say
/// in it. What only a shell would make something of is refused: no directory of that name is meant.
fn absolute(path: &Path, base: &Path, dirs: &Dirs) -> Result<PathBuf, ConfigError> {
    let mut parts = path.components();
    let first = parts.next().map(|part| part.as_os_str().as_bytes());
    let path = match first {
        Some(b"~" | b"$HOME" | b"${HOME}") => dirs.home.join(parts.as_path()),
        None => return Err(unusable(path, "it is empty; write ~ if your home is meant")),
        Some([b'~', ..]) => {
            return Err(unusable(
                path,
                "the home of another user must be written in full",
            ));
        }
        _ if path
            .components()
            .any(|part| is_variable(part.as_os_str().as_bytes())) =>
        {
            let why =
                "no shell reads it here, so variables but a leading $HOME must be written out";
            return Err(unusable(path, why));
        }
        _ => base.join(path),
    };
    Ok(path.components().collect())
}

fn unusable(path: &Path, why: &str) -> ConfigError {
    let path = escape(path.as_os_str().as_bytes());
    ConfigError::Target(format!("Cannot use the path \"{path}\": {why}"))
}
