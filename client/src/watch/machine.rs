//! What this machine goes through: it sleeps and wakes up, and its network becomes another one. Linux only; elsewhere nothing is heard,
//! and a dead connection is found by its silence.

use std::io;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use super::calls::Calls;

/// Groups of messages of the routing socket: addresses and routes, IPv4 and IPv6 (`linux/rtnetlink.h`, `RTMGRP_*`).
const ADDRESSES_AND_ROUTES: u32 = 0x10 | 0x40 | 0x100 | 0x400;
/// A change of the network is many messages: for how long it must be quiet until it counts as one, and for how long at most.
const QUIET: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(2);

/// Calls everybody when something of that happens, from now on.
pub(super) fn listen(calls: Calls) {
    let sources = [clock(), network()];
    let sources: Vec<OwnedFd> = sources
        .into_iter()
        .filter_map(|source| {
            let source = source.inspect_err(|error| {
                tracing::warn!(
                    "Cannot hear of a sleep of this machine, or of its network: {error}"
                );
            });
            source.ok()
        })
        .collect();
    if sources.is_empty() {
        return;
    }
    thread::spawn(move || {
        while wait(&sources, None) {
            let begun = Instant::now();
            while begun.elapsed() < PATIENCE && wait(&sources, Some(QUIET)) {}
            tracing::info!(
                "This machine has slept, or its network is another one: connections are tried"
            );
            calls.network_changed();
        }
    });
}

/// Waits for any of them, and takes in what it has; whether one had something in time.
fn wait(sources: &[OwnedFd], timeout: Option<Duration>) -> bool {
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: timeout.as_secs().cast_signed(),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let mut polled: Vec<PollFd> = sources
        .iter()
        .map(|source| PollFd::new(source, PollFlags::IN))
        .collect();
    loop {
        match poll(&mut polled, timeout.as_ref()) {
            Ok(0) => return false,
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(error) => {
                tracing::warn!("Cannot hear of this machine any more: {error}");
                return false;
            }
        }
    }
    for (source, polled) in sources.iter().zip(&polled) {
        // What it says does not matter. A clock that was set makes the timer fail once; it goes on counting.
        if !polled.revents().is_empty() {
            while rustix::io::read(source, &mut [0; 8192]).is_ok() {}
        }
    }
    true
}

/// Becomes readable whenever the clock is set, which it is after a sleep, too (timerfd_create(2), `TFD_TIMER_CANCEL_ON_SET`).
fn clock() -> io::Result<OwnedFd> {
    let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
    let timer = timerfd_create(TimerfdClockId::Realtime, flags)?;
    let never = Itimerspec {
        it_interval: Timespec::default(),
        it_value: Timespec {
            tv_sec: i64::MAX,
            tv_nsec: 0,
        },
    };
    let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
    timerfd_settime(&timer, flags, &never)?;
    Ok(timer)
}

/// Becomes readable whenever an address or a route comes or goes (rtnetlink(7)).
fn network() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // Its protocol 0 is routing.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, ADDRESSES_AND_ROUTES))?;
    Ok(socket)
}
