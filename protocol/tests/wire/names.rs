//! Names that would leave the root, or could not be files, are refused wherever they stand in a message.

use protocol::codec::{decode, encode};
use protocol::message::Hello;
use protocol::{Change, Op, Request, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::samples::{self, FOLDER, INFO, PATH, UNIQUE};

/// Puts a name of the same length in the place of each occurrence, one at a time.
fn forge(bytes: &[u8], name: &[u8], hostile: &[u8]) -> Vec<Vec<u8>> {
    assert_eq!(
        name.len(),
        hostile.len(),
        "the length on the wire must stay true"
    );
    let starts = 0..=bytes.len().saturating_sub(name.len());
    starts
        .filter(|&start| bytes[start..].starts_with(name))
        .map(|start| {
            let mut forged = bytes.to_vec();
            forged[start..start + name.len()].copy_from_slice(hostile);
            forged
        })
        .collect()
}

/// Checks all values with all forgeries, and tells how many there were.
fn refuse_all<T>(values: &[T], name: &[u8], hostiles: &[&[u8]]) -> usize
where
    T: Serialize + DeserializeOwned + std::fmt::Debug,
{
    let mut count = 0;
    for value in values {
        for hostile in hostiles {
            for forged in forge(&encode(value), name, hostile) {
                count += 1;
                let decoded = decode::<T>(&forged);
                assert!(decoded.is_err(), "took {decoded:?}");
            }
        }
    }
    count
}

/// Checks every message that there is.
fn refuse_everywhere(name: &[u8], hostiles: &[&[u8]]) -> usize {
    let applies: Vec<_> = samples::ops()
        .into_iter()
        .map(|op| Request::Apply(vec![op]))
        .collect();
    refuse_all::<Op>(&samples::ops(), name, hostiles)
        + refuse_all::<Request>(&applies, name, hostiles)
        + refuse_all::<Request>(&samples::requests(), name, hostiles)
        + refuse_all::<Response>(&samples::responses(), name, hostiles)
        + refuse_all::<Change>(&[samples::change()], name, hostiles)
        + refuse_all::<Hello>(&[samples::hello()], name, hostiles)
}

#[test]
fn folders_that_climb_or_start_at_the_root_are_refused() {
    let hostiles: [&[u8]; 8] = [
        b"/etc/cron.d/",
        b"../../.ssh/x",
        b"Lists/../../",
        b"Lists/./debi",
        b"Lists//debia",
        b"Lists/debia/",
        b"Lists\0debian",
        b"Lists/debi/.",
    ];
    assert!(refuse_everywhere(FOLDER, &hostiles) >= 15 * hostiles.len());
}

#[test]
fn unique_names_that_are_no_file_are_refused() {
    let hostiles: [&[u8]; 5] = [
        b"/tmp/1P2.host,S=",
        b"../M1P2.host,S=5",
        b"17.M1P2/host,S=5",
        b"17.M1P2\0host,S=5",
        b"17.M1P2.host:2,S",
    ];
    assert!(refuse_everywhere(UNIQUE, &hostiles) >= 12 * hostiles.len());
}

#[test]
fn infos_that_are_no_end_of_a_name_are_refused() {
    let hostiles: [&[u8]; 4] = [b":2,/S", b":2,\0S", b"/2,FS", b"../FS"];
    assert!(refuse_everywhere(INFO, &hostiles) >= 4 * hostiles.len());
}

#[test]
fn paths_that_hold_nul_are_refused() {
    let hostiles: [&[u8]; 1] = [b"/home/me\0Maildir"];
    assert!(refuse_everywhere(PATH, &hostiles) >= 2);
}
