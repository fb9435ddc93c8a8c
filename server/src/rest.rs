//! Between rounds: the agent sleeps, holding no lock, until its client asks for the next one or what that waits for has happened.
//!
//! Events only say when to look: whether there is news is for the scan to find out, the same that a round begins with.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use maildir::Scan;
use maildir::watch::{Changed, Debounce, Mode, Options, Watcher};
use protocol::codec::decode;
use protocol::frame::Frame;
use protocol::message::Hello;
use protocol::{Request, Response};

use crate::agent::{Agent, Line, Refused, refusal};
use crate::arguments::Service;
use crate::arrivals::{Arrival, Arrivals};

/// What is kept from round to round.
pub(crate) struct Rest {
    watcher: Watcher,
    debounce: Debounce,
    /// Whether the round began because of something that was found here.
    has_found: bool,
    /// How many deletions were held back when the tree was looked at last.
    held: u64,
    /// For how long a client that rests may be silent. It asks whether we are there after as long as it waits for us otherwise, and
    /// then waits for a quarter of that.
    silence_max: Duration,
    timeout: Duration,
}

/// An agent that is open, for this hello, and what it has found already.
pub(crate) type Opened = (Agent, Hello, Option<Scan>);

impl Rest {
    /// Watches the tree from now on.
    pub(crate) fn begin(
        root: &Path,
        service: &Service,
        hello: &Hello,
        arrivals: &Arrivals,
    ) -> Rest {
        let call = Box::new(arrivals.caller());
        let timeout = Duration::from_secs(hello.timeout.max(1).into());
        let options = Options {
            follow_links: service.follow_links,
            ..Options::default()
        };
        Rest {
            watcher: Watcher::new(root.to_owned(), options, call),
            debounce: Debounce::new(),
            has_found: false,
            held: 0,
            silence_max: timeout * 5 / 2,
            timeout,
        }
    }

    /// Sleeps until there is another round.
    ///
    /// # Errors
    /// When the client does not keep to the protocol, or is silent for too long; [`Refused`] when the tree cannot be looked at.
    pub(crate) fn next_round(&mut self, service: &Service, line: Line) -> anyhow::Result<Opened> {
        let (agent, hello, scan) = self.sleep(service, line)?;
        Ok((agent.in_later_round(self.timeout), hello, scan))
    }

    /// Looks whether there is anything that a round has not reported.
    fn look(
        &mut self,
        service: &Service,
        hello: &Hello,
        written: &BTreeSet<Vec<u8>>,
        line: Line,
    ) -> anyhow::Result<Looked> {
        let agent = Agent::open(service, hello, line)?;
        let scan = scan(&agent, false, written)?;
        let has_news = match &hello.cursor {
            Some(cursor) => agent.replica.lock().has_news(cursor).map_err(refused)?,
            None => true,
        };
        // How much is held back is worth saying, too, though the index has nothing new.
        let has_news = has_news || scan.held != self.held;
        self.held = scan.held;
        Ok(match has_news {
            true => Looked::News(Box::new((agent, hello.clone(), Some(scan)))),
            false => Looked::Nothing(agent.into_line()),
        })
    }

    /// When to look at the tree.
    fn due(&self) -> Option<Instant> {
        let due = self.debounce.due().into_iter();
        due.chain(self.watcher.written_due()).min()
    }

    fn sleep(&mut self, service: &Service, mut line: Line) -> anyhow::Result<Opened> {
        let has_found = std::mem::take(&mut self.has_found);
        self.debounce.end(Instant::now(), has_found);
        let mut heard = Instant::now();
        let mut standing: Option<Hello> = None;
        let mut said = None;
        loop {
            if self.watcher.take() != Changed::Nothing {
                self.debounce.event(Instant::now());
            }
            if let Some(hello) = &standing {
                let mode = polling(self.watcher.mode());
                if said.as_ref() != Some(&mode) {
                    line.output.say(&Response::Waits {
                        polling: mode.clone(),
                    })?;
                    said = Some(mode);
                }
                if self.due().is_some_and(|due| due <= Instant::now()) {
                    self.debounce.begin();
                    let written = self.watcher.take_written(Instant::now());
                    match self.look(service, hello, &written, line)? {
                        Looked::News(opened) => {
                            self.has_found = true;
                            return Ok(*opened);
                        }
                        Looked::Nothing(back) => line = back,
                    }
                    self.debounce.end(Instant::now(), false);
                }
            }
            let silence = heard + self.silence_max;
            let due = self.due().filter(|_| standing.is_some());
            let arrival = line
                .arrivals
                .next(due.map_or(silence, |due| due.min(silence)))?;
            match arrival {
                Some(Arrival::Frame(Frame::Message(bytes))) => {
                    heard = Instant::now();
                    match decode(&bytes)? {
                        Request::Round(hello) => (standing, said) = (Some(*hello), None),
                        Request::Begin { whole } => {
                            if let Some(hello) = standing.take() {
                                self.debounce.begin();
                                if whole && *self.watcher.mode() != Mode::Events {
                                    self.watcher.renew(); // Limits may be others by now.
                                }
                                let written = self.watcher.take_written(Instant::now());
                                return begin(service, hello, (whole, &written), line);
                            }
                        }
                        Request::Ping => line.output.say(&Response::Alive)?,
                        _ => anyhow::bail!("Something is asked for between two rounds"),
                    }
                }
                Some(Arrival::Frame(Frame::Body { .. })) => {
                    anyhow::bail!("A body came that nobody asked for")
                }
                Some(Arrival::Call) => {}
                None => anyhow::ensure!(
                    heard.elapsed() < self.silence_max,
                    "The client has been silent for too long"
                ),
            }
        }
    }
}

/// Why changes are not reported by the system; empty where they are.
fn polling(mode: &Mode) -> String {
    match mode {
        Mode::Events => String::new(),
        Mode::Polling { why } => why.clone(),
    }
}

/// Begins a round.
fn begin(
    service: &Service,
    hello: Hello,
    (whole, written): (bool, &BTreeSet<Vec<u8>>),
    line: Line,
) -> anyhow::Result<Opened> {
    let agent = Agent::open(service, &hello, line)?;
    let scan = scan(&agent, whole, written)?;
    Ok((agent, hello, Some(scan)))
}

enum Looked {
    News(Box<Opened>),
    Nothing(Line),
}

fn scan(agent: &Agent, has_slice: bool, written: &BTreeSet<Vec<u8>>) -> Result<Scan, Refused> {
    let looked = agent.replica.lock().look(has_slice, written);
    looked.map_err(refused)
}

fn refused(error: maildir::Error) -> Refused {
    refusal(error).into()
}
