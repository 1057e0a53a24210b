//! Asking an agent that may be just restarting.

use std::{
    thread,
    time::{Duration, Instant},
};

use overlay_control::{self as api, ClientError, Reply, Request};
use overlay_core::{dirs::Dirs, model::Name};

use super::{
    Failure,
    client::{answered, call, the_instance},
};

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// Asks the daemon of an instance to add or delete an endpoint. Where nobody listens, or the agent
/// ends before it answers, it is asked again for so many `seconds`, if it has left a state file:
/// an agent that goes for good, by `down`, leaves none.
///
/// To ask again is safe: an endpoint whose adding was not answered is undone by the next agent.
pub(super) fn ask(
    dirs: &Dirs,
    instance: Option<Name>,
    request: &Request,
    seconds: u32,
) -> Result<Reply, Failure> {
    let may_come = |dirs: &Dirs, name: &Name| dirs.state(name).exists();
    let instance = the_instance(dirs, instance, |dirs, name| {
        dirs.may_listen(name) || (seconds > 0 && may_come(dirs, name))
    })?;
    let deadline = Instant::now() + Duration::from_secs(seconds.into());
    let mut interrupted = false;
    loop {
        let answer = api::call(&dirs.socket(&instance), request);
        let again = match &answer {
            Err(ClientError::Connect { cause, .. }) => {
                use std::io::ErrorKind::{ConnectionRefused, NotFound};
                matches!(cause.kind(), NotFound | ConnectionRefused)
            }
            Err(ClientError::Ended { .. } | ClientError::Io { .. }) => {
                interrupted = true;
                true
            }
            Err(ClientError::Foreign { .. } | ClientError::Silent { .. }) | Ok(_) => false,
        };
        if again && Instant::now() < deadline && may_come(dirs, &instance) {
            thread::sleep(PAUSE);
            continue;
        }
        // The agent that was asked first has deleted it before it ended.
        if interrupted
            && let (Ok(Reply::NotFound(_)), Request::EndpointDel { name }) = (&answer, request)
            && !is_there(dirs, &instance, name)?
        {
            return Ok(Reply::Done);
        }
        return answered(dirs, &instance, answer);
    }
}

fn is_there(dirs: &Dirs, instance: &Name, endpoint: &str) -> Result<bool, Failure> {
    match call(dirs, instance, &Request::Status {})? {
        Reply::Status(status) => {
            let mut endpoints = status.endpoints.iter();
            Ok(endpoints.any(|there| there.name.as_str() == endpoint))
        }
        _ => Err(super::client::unexpected()),
    }
}
