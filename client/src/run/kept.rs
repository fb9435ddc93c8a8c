//! What of a run outlasts it while `watch` goes on: the connection to the agent, on which the next round waits.
//!
//! A round is an ordinary run: it opens the replica here and the archive anew, so that nothing is held between two of them.

use std::collections::BTreeSet;

use protocol::Request;
use protocol::message::{Hello, Welcome};

use crate::endpoint::link::{Between, Link, LinkError};
use crate::endpoint::{Bell, Endpoint};

/// What is kept from run to run.
#[derive(Default)]
pub struct Kept {
    /// Rings when the agent says something, and whenever somebody else wants to be heard between two rounds.
    pub bell: Bell,
    /// The connection, if there is one.
    pub resting: Option<Resting>,
    /// Files here that were written to in place since the last round, for the next one to look at: paths below the root.
    pub written: BTreeSet<Vec<u8>>,
    /// How many deletions this side held back when it was looked at last.
    pub(crate) held: u64,
    /// Whether the next round begins in any case, and looks at a slice of all files, too.
    pub whole: bool,
    /// How large a body may be that goes over the wire, where that is limited.
    pub body_max: Option<u64>,
}

/// A connection on which a round waits.
pub struct Resting {
    link: Link,
    /// What the round was asked with.
    hello: Hello,
    begun: Option<Welcome>,
    /// How the agent hears of changes, once it has said so: empty where the system reports them, else why not.
    pub polling: Option<String>,
}

impl Resting {
    /// Asks for the next round, and lets it wait.
    pub(crate) fn new(mut link: Link, hello: Hello) -> Resting {
        link.ask_next(hello.clone());
        Resting {
            link,
            hello,
            begun: None,
            polling: None,
        }
    }

    /// Whether the agent has begun the round.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.begun.is_some()
    }

    /// Whether the round was asked with this hello. Another run may have taken in what it asks for since.
    pub(crate) fn is_asked_with(&self, hello: &Hello) -> bool {
        self.hello.cursor == hello.cursor && self.hello.expect == hello.expect
    }

    /// Takes in what the agent has said.
    ///
    /// # Errors
    /// When the connection is lost, or makes no sense.
    pub fn hear(&mut self) -> Result<(), LinkError> {
        while self.begun.is_none()
            && let Some(said) = self.link.said_between()?
        {
            match said {
                Between::Began(welcome) => self.begun = Some(welcome),
                Between::Waits(polling) => self.polling = Some(polling),
                Between::Alive => {}
            }
        }
        Ok(())
    }

    /// Asks whether the agent is there.
    pub fn ping(&mut self) {
        self.link.request(Request::Ping);
    }

    /// How many bytes have come from the agent in all.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.link.received()
    }

    /// Gives up an agent that was silent for so long.
    #[must_use]
    pub fn give_up(self, seconds: u64) -> LinkError {
        self.link.give_up(seconds)
    }

    /// Begins the round if the agent has not.
    pub(crate) fn begin(mut self, whole: bool) -> Result<(Link, Welcome), LinkError> {
        let welcome = match self.begun {
            Some(welcome) => welcome,
            None => {
                self.link.request(Request::Begin { whole });
                self.link.welcome()?
            }
        };
        Ok((self.link, welcome))
    }
}
