//! x

pub mod address;
pub mod cli;
pub mod config;
pub mod exit_code;
pub mod filter;
pub mod hooks;
pub mod progress;
pub mod report;
pub mod ssh;
pub mod transport;
