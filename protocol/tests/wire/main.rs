//! The wire from outside: bytes that must stay, values that must survive, and what a broken or hostile peer may send.

mod damage;
mod golden;
mod names;
mod roundtrip;
mod samples;
mod session;
mod stream;
