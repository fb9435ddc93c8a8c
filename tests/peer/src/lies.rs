//! The lies that the command line can ask for. A text stands for itself, with `%XX` for bytes that a command line cannot
//! hold (`a%0Ab` is two lines).
//!
//! | word | lie |
//! |---|---|
//! | `other-bodies`, `long-bodies`, `short-bodies` | bodies from the agent have another byte, one more, one less |
//! | `endless-bodies` | bodies from the agent go on without an end |
//! | `other-uploads`, `long-uploads`, `short-uploads` | bodies from the client likewise |
//! | `no-body=WHY` | no body is to be had |
//! | `failed=WHY` | every operation failed, whatever became of it |
//! | `problem=WHY` | the list has one problem more, with that text as its path, too |
//! | `refused=WHY` | after the welcome the agent refuses |
//! | `huge` | every message has the largest size and the largest number |
//! | `twice` | every list of changes is told twice |
//! | `ghost` | a folder is told that comes and goes in the same list, and a message in one that was never told |
//! | `namesakes` | each folder is told once more, under another number |
//!
//! With `mark=FILE` those of a list that were told stand in the file, one a line.

use std::fs::File;
use std::io::Write;

use protocol::entry::{Change, FolderChange};
use protocol::message::Problem;
use protocol::message::{Refusal, RefusalKind};
use protocol::{FolderDir, Outcome, Response};

/// How a body is changed.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Bodies {
    Same,
    Other,
    Long,
    Short,
}

/// What is lied about.
#[derive(Clone, Debug)]
pub(crate) struct Lies {
    downloads: Bodies,
    uploads: Bodies,
    no_body: Option<String>,
    failed: Option<String>,
    problem: Option<String>,
    refused: Option<String>,
    plain: Vec<String>,
    /// Where it is noted what was told.
    mark: Option<String>,
    /// What is told now.
    now: Vec<&'static str>,
    /// Whether the next piece goes on with a body.
    is_inside: bool,
}

impl Lies {
    pub(crate) fn parse(words: &[String]) -> Lies {
        let mut lies = Lies {
            downloads: Bodies::Same,
            uploads: Bodies::Same,
            no_body: None,
            failed: None,
            problem: None,
            refused: None,
            plain: Vec::new(),
            mark: None,
            now: Vec::new(),
            is_inside: false,
        };
        for word in words {
            let (name, text) = word.split_once('=').unwrap_or((word, ""));
            let text = unescape(text);
            match name {
                "other-bodies" => lies.downloads = Bodies::Other,
                "long-bodies" => lies.downloads = Bodies::Long,
                "short-bodies" => lies.downloads = Bodies::Short,
                "other-uploads" => lies.uploads = Bodies::Other,
                "long-uploads" => lies.uploads = Bodies::Long,
                "short-uploads" => lies.uploads = Bodies::Short,
                "no-body" => lies.no_body = Some(text),
                "failed" => lies.failed = Some(text),
                "problem" => lies.problem = Some(text),
                "refused" => lies.refused = Some(text),
                "mark" => lies.mark = Some(text),
                "endless-bodies" | "huge" | "twice" | "ghost" | "namesakes" => {
                    lies.plain.push(name.to_owned())
                }
                other => panic!("unknown lie {other:?}"),
            }
        }
        lies
    }

    fn is(&self, name: &str) -> bool {
        self.plain.iter().any(|plain| plain == name)
    }

    /// A piece of a body from the client.
    pub(crate) fn uploaded(&mut self, bytes: Vec<u8>, last: bool) -> (Vec<u8>, bool) {
        change(self.uploads, &mut self.is_inside, bytes, last)
    }

    /// A piece of a body from the agent.
    pub(crate) fn downloaded(&mut self, bytes: Vec<u8>, last: bool) -> (Vec<u8>, bool) {
        change(self.downloads, &mut self.is_inside, bytes, last)
    }

    /// What is said where a piece of a body was due.
    pub(crate) fn instead_of_body(&self, last: bool) -> Option<Vec<Response>> {
        let why = self.no_body.clone()?;
        Some(if last {
            vec![Response::NoBody { why }]
        } else {
            Vec::new()
        })
    }

    /// Whether a body is to go on for ever.
    pub(crate) fn is_endless(&self) -> bool {
        self.is("endless-bodies")
    }

    /// Whether a lie is to be told, which then is.
    fn tells(&mut self, name: &'static str) -> bool {
        let tells = self.is(name);
        self.now.extend(tells.then_some(name));
        tells
    }

    /// Notes the lies that have gone out.
    pub(crate) fn note(&mut self) {
        let now: String = self.now.drain(..).map(|lie| format!("{lie}\n")).collect();
        if let Some(file) = self.mark.as_ref().filter(|_| !now.is_empty()) {
            let mut file = File::options()
                .create(true)
                .append(true)
                .open(file)
                .expect("it opens");
            file.write_all(now.as_bytes()).expect("it is written");
        }
    }

    /// What the client hears where the agent says this.
    pub(crate) fn told(&mut self, response: Response) -> Vec<Response> {
        match response {
            Response::Welcome(welcome) => {
                let mut told = vec![Response::Welcome(welcome)];
                told.extend(self.refused.clone().map(|why| {
                    let kind = RefusalKind::Error;
                    Response::Refused(Refusal { kind, why })
                }));
                told
            }
            Response::Folders(folders) => self.folders(folders),
            Response::Changes(changes) => self.changes(changes),
            Response::Listed(listed) => {
                let problem = self.problem.clone();
                let problem = problem.map(|why| {
                    let path = why.clone();
                    Response::Problems(vec![Problem {
                        path,
                        why,
                        holds: false,
                    }])
                });
                problem
                    .into_iter()
                    .chain([Response::Listed(listed)])
                    .collect()
            }
            Response::Outcomes(outcomes) => {
                let fail = |outcome| match &self.failed {
                    Some(why) => Outcome::Failed { why: why.clone() },
                    None => outcome,
                };
                vec![Response::Outcomes(outcomes.into_iter().map(fail).collect())]
            }
            other => vec![other],
        }
    }

    fn folders(&mut self, folders: Vec<FolderChange>) -> Vec<Response> {
        let mut told = vec![Response::Folders(folders.clone())];
        if !folders.is_empty() && self.tells("namesakes") {
            let other = |folder: &FolderChange| FolderChange {
                id: folder.id + 10_000,
                ..folder.clone()
            };
            told.push(Response::Folders(folders.iter().map(other).collect()));
        }
        if self.tells("ghost") {
            let ghost = |id, gone| FolderChange {
                seq: 1,
                id,
                dir: FolderDir::new(format!("Ghost{id}").as_bytes()).expect("a name"),
                gone,
                keywords: None,
            };
            told.push(Response::Folders(vec![ghost(20_000, false)]));
            told.push(Response::Folders(vec![ghost(20_000, true)]));
            told.push(Response::Folders(vec![ghost(20_001, true)]));
        }
        told
    }

    fn changes(&mut self, mut changes: Vec<Change>) -> Vec<Response> {
        if !changes.is_empty() && self.tells("huge") {
            for change in &mut changes {
                (change.seq, change.born) = (u64::MAX, u64::MAX);
                change.entry.size = u64::MAX;
                change.entry.mtime_ns = i64::MIN;
            }
        }
        if self.tells("ghost") {
            let lost = changes.first().cloned().map(|change| Change {
                folder: 30_000,
                ..change
            });
            changes.extend(lost);
        }
        let count = if !changes.is_empty() && self.tells("twice") {
            2
        } else {
            1
        };
        (0..count)
            .map(|_| Response::Changes(changes.clone()))
            .collect()
    }
}

/// Changes the first piece of a body.
fn change(how: Bodies, is_inside: &mut bool, mut bytes: Vec<u8>, last: bool) -> (Vec<u8>, bool) {
    let is_first = !std::mem::replace(is_inside, !last);
    match how {
        Bodies::Other if is_first => {
            if let Some(byte) = bytes.last_mut() {
                *byte ^= 1;
            }
        }
        Bodies::Long if is_first => bytes.push(b'!'),
        Bodies::Short if is_first => {
            bytes.pop();
        }
        Bodies::Same | Bodies::Other | Bodies::Long | Bodies::Short => {}
    }
    (bytes, last)
}

/// Puts in the bytes that `%XX` stands for.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let (byte, left) = match (first, after) {
            (b'%', [high, low, left @ ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16).expect("hex digits");
                let byte = u8::try_from(digit(high) * 16 + digit(low)).expect("two digits");
                (byte, left)
            }
            (byte, left) => (*byte, left),
        };
        bytes.push(byte);
        rest = left;
    }
    String::from_utf8(bytes).expect("text")
}
