//! Tables: a folder is written `base/local/remote`, `-` where a side has none.

use super::*;
use crate::merge::filter::Verdict;
use crate::merge::folder::FolderBase;
use protocol::FolderDir;
use protocol::entry::FolderChange;

fn dir(text: &str) -> FolderDir {
    FolderDir::new(text.as_bytes()).expect("a directory")
}

fn base(text: &str) -> FolderBase {
    FolderBase {
        dirs: [dir(text), dir(text)],
        name: FolderName::default(),
    }
}

fn held(number: u32, text: &str) -> SideFolder {
    SideFolder {
        number,
        dir: dir(text),
        name: FolderName::default(),
    }
}

/// Folders with the numbers 1, 2, … on each side.
fn folders(lines: &[&str]) -> Folders {
    let mut folders = Folders::default();
    for (line, number) in lines.iter().zip(1..) {
        let mut names = line.split('/').map(|text| (text != "-").then_some(text));
        let mut next = || names.next().flatten();
        let base = next().map(base);
        let [local, remote] = [next(), next()].map(|dir| dir.map(|dir| held(number, dir)));
        let id = folders.add();
        if let Some(folder) = folders.get_mut(id) {
            (folder.base, folder.local, folder.remote) = (base, local, remote);
        }
    }
    folders.give_names();
    folders
}

fn lines(folders: &Folders) -> Vec<String> {
    let text = |name: Option<&FolderName>| name.map_or("-".to_owned(), ToString::to_string);
    let line = |folder: &Folder| {
        let [local, remote] = Side::BOTH.map(|side| text(folder.on(side).map(|held| &held.name)));
        let base = folder.base.as_ref().map(|base| &base.name);
        format!("{}/{local}/{remote}", text(base))
    };
    folders.iter().map(|(_, folder)| line(folder)).collect()
}

fn exclude(pattern: &str) -> Filter {
    Filter::new(&[], &[(Verdict::Exclude, pattern.to_owned())]).expect("a valid pattern")
}

/// The renames on both sides, here first, as `from>to`.
fn renames(folders: &Folders, filter: &Filter) -> Vec<String> {
    let ops = Side::BOTH.map(|side| folders.renames(side, filter));
    ops.concat()
        .into_iter()
        .map(|(_, op)| match op {
            Op::RenameFolder { from, to, .. } => format!("{from}>{to}"),
            other => panic!("{other:?} is no rename"),
        })
        .collect()
}

/// Which folder's messages go where, as `from>to`, for each side.
fn reassigned(folders: &mut Folders, filter: &Filter) -> [Vec<String>; 2] {
    folders.part_names(filter).map(|homes| {
        let line = |(from, to): (Fid, Fid)| format!("{}>{}", from.0, to.0);
        homes.into_iter().map(line).collect()
    })
}

#[test]
fn a_rename_to_a_free_name_is_followed() {
    for (line, wanted) in [
        ("A/N/A", vec!["A>N"]),
        ("A/A/N", vec!["A>N"]),
        ("A/M/N", vec!["M>N"]),
        ("A/N/N", vec![]),
        ("-/A/A", vec![]),
        ("-/A/N", vec!["A>N"]),
    ] {
        let mut folders = folders(&[line]);
        assert_eq!(renames(&folders, &Filter::default()), wanted, "{line}");
        let reassigned = reassigned(&mut folders, &Filter::default());
        assert!(
            reassigned.iter().all(Vec::is_empty),
            "{line}: {reassigned:?}"
        );
    }
}

#[test]
fn a_name_that_another_rename_frees_is_free() {
    let chain = folders(&["A/B/A", "B/C/B"]);
    assert_eq!(renames(&chain, &Filter::default()), ["B>C", "A>B"]);
    let again = folders(&["A/B/A", "-/A/-"]);
    assert_eq!(renames(&again, &Filter::default()), ["A>B"]);
}

#[test]
fn parents_are_renamed_before_their_children() {
    let mut deep = folders(&["L.one/N.one/L.one", "L/N/L"]);
    for (id, folder) in [(Fid(1), "L/one"), (Fid(2), "L")] {
        let renamed = folder.replace('L', "N");
        let entry = deep.get_mut(id).expect("it was made");
        (entry.base, entry.remote) = (Some(base(folder)), Some(held(id.0, folder)));
        entry.local = Some(held(id.0, &renamed));
    }
    deep.give_names();
    assert_eq!(renames(&deep, &Filter::default()), ["L>N", "L/one>N/one"]);
}

#[test]
fn folders_whose_names_meet_are_known_by_their_names() {
    for (before, here, there, after) in [
        // Two folders renamed to one name, one on each side.
        (
            &["A/N/A", "B/B/N"][..],
            vec!["1>3"],
            vec!["2>3"],
            &["A/-/A", "B/B/-", "N/N/N"][..],
        ),
        // Renamed to a name that is taken there, or that was made there since.
        (
            &["A/N/A", "N/-/N"],
            vec!["1>2"],
            vec![],
            &["A/-/A", "N/N/N"],
        ),
        (
            &["A/N/A", "-/-/N"],
            vec!["1>2"],
            vec![],
            &["A/-/A", "N/N/N"],
        ),
        (
            &["A/A/N", "-/N/-"],
            vec![],
            vec!["1>2"],
            &["A/A/-", "N/N/N"],
        ),
        // Renamed on one side, and removed on the other.
        (&["A/N/-"], vec!["1>2"], vec![], &["-/N/-"]),
        (&["A/-/N"], vec![], vec!["1>2"], &["-/-/N"]),
        // Exchanged names.
        (
            &["A/B/A", "B/A/B"],
            vec!["1>2", "2>1"],
            vec![],
            &["A/A/A", "B/B/B"],
        ),
        // Renamed on both sides, and the server's name is taken here: ours goes when it is empty.
        (
            &["A/M/N", "-/N/-"],
            vec!["1>3"],
            vec!["1>2"],
            &["N/N/N", "M/M/-"],
        ),
        // Made alike.
        (&["-/N/-", "-/-/N"], vec![], vec!["2>1"], &["N/N/N"]),
    ] {
        let mut folders = folders(before);
        let reassigned = reassigned(&mut folders, &Filter::default());
        assert_eq!(reassigned, [here, there], "{before:?}");
        assert_eq!(lines(&folders), after, "{before:?}");
        assert!(
            renames(&folders, &Filter::default()).is_empty(),
            "{before:?}"
        );
    }
}

#[test]
fn a_rename_into_or_out_of_an_excluded_name_is_not_followed() {
    for (before, after) in [
        ("A/Junk/A", ["A/-/A", "-/Junk/-"]),
        ("A/A/Junk", ["A/A/-", "-/-/Junk"]),
        ("Junk/A/Junk", ["Junk/-/Junk", "-/A/-"]),
    ] {
        let mut folders = folders(&[before]);
        assert!(renames(&folders, &exclude("Junk")).is_empty(), "{before}");
        folders.part_names(&exclude("Junk"));
        assert_eq!(lines(&folders), after, "{before}");
    }
}

#[test]
fn what_is_not_selected_waits() {
    let selected = (Verdict::Select, "Other".to_owned());
    let filter = Filter::new(&[], &[selected]).expect("a valid pattern");
    let mut folders = folders(&["A/N/A"]);
    assert!(renames(&folders, &filter).is_empty());
    folders.part_names(&filter);
    assert_eq!(lines(&folders), ["A/N/A"]);
}

#[test]
fn a_folder_that_was_excluded_is_listed_anew_under_its_new_name() {
    let mut folders = folders(&["Junk/A/Junk"]);
    folders.get_mut(Fid(1)).expect("it was made").forgotten = true;
    folders.part_names(&exclude("Junk"));
    let is_forgotten = |id| folders.get(Fid(id)).is_some_and(|folder| folder.forgotten);
    assert!(is_forgotten(1) && is_forgotten(2));
}

#[test]
fn a_name_that_was_told_of_another_number_is_not_the_old_ones_any_more() {
    let mut folders = folders(&["A/A/A", "B/B/B"]);
    // A was removed, and B got its name; the journal reports B alone.
    let change = FolderChange {
        seq: 9,
        id: 2,
        dir: dir("A"),
        gone: false,
        keywords: None,
    };
    folders.fold(Side::Remote, &[change]);
    let reassigned = reassigned(&mut folders, &Filter::default());
    assert_eq!(reassigned, [Vec::<String>::new(), vec!["2>1".to_owned()]]);
    assert_eq!(lines(&folders), ["A/A/A", "B/B/-"]);
}

#[test]
fn a_folder_cannot_be_reached_while_another_has_its_name() {
    let folders = folders(&["A/B/A", "-/A/-"]);
    let reached = |renaming: &[u32]| {
        let renaming = renaming.iter().map(|id| Fid(*id)).collect();
        folders.reachable(Side::Remote, &renaming).contains(&Fid(2))
    };
    assert!(!reached(&[]));
    assert!(reached(&[1]));
}
